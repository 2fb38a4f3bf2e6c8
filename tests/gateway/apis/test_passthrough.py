"""Embeddings, completions without roles, and the APIs that the gateway does not have."""

from __future__ import annotations

import json

import pytest

from sentinel_project.gateway.providers.config import ECHO
from tests.gateway.asgi import ask
from tests.gateway.responses import MODEL, account

EMBEDDINGS, COMPLETIONS = "/v1/embeddings", "/v1/completions"
BODIES = {EMBEDDINGS: {"model": MODEL, "input": ["a", "b"]}, COMPLETIONS: {"model": MODEL, "prompt": "hello"}}


@pytest.mark.parametrize("path", BODIES)
async def test_request_reaches_the_provider_byte_for_byte_and_its_answer_the_client(accounts, gateway, path):
    north = accounts[0]
    gateway.SENTINEL_PROVIDERS = (account(north),)
    raw = json.dumps(BODIES[path], indent=1).encode()
    answer = await ask(raw, path=path)
    assert (answer.status, answer.json["model"]) == (200, MODEL)
    assert [request.body for request in north.used()] == [raw]


@pytest.mark.parametrize("path", BODIES)
async def test_request_is_served_by_another_provider_when_one_is_down(accounts, path):
    accounts[0].kill()
    try:
        answers = [await ask(BODIES[path], path=path) for _ in range(4)]
    finally:
        accounts[0].start()
    assert {answer.headers["x-session-provider"] for answer in answers} == {"south"}


@pytest.mark.parametrize(("path", "field"), [(EMBEDDINGS, "input"), (COMPLETIONS, "prompt")])
async def test_request_is_refused_with_the_field_when_it_is_missing(accounts, path, field):
    answer = await ask({"model": MODEL}, path=path)
    assert (answer.status, answer.error["param"]) == (400, field)


async def test_completion_streams(accounts):
    answer = await ask({**BODIES[COMPLETIONS], "stream": True}, path=COMPLETIONS)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.body.endswith(b"data: [DONE]\n\n")


async def test_embeddings_are_plain_when_a_stream_is_asked_for(accounts):
    answer = await ask({**BODIES[EMBEDDINGS], "stream": True}, path=EMBEDDINGS)
    assert (answer.status, len(answer.json["data"])) == (200, 2)


@pytest.mark.parametrize("given", ["hello world", ["hello", "world"], [1, 2], [[1, 2], [3]]])
@pytest.mark.parametrize("encoding", ["float", "base64"])
async def test_echo_embeds_the_same_input_as_the_same_vector(gateway, given, encoding):
    gateway.SENTINEL_PROVIDERS = ECHO
    body = {"model": "echo-small", "input": given, "encoding_format": encoding}
    first, second = await ask(body, path=EMBEDDINGS), await ask(body, path=EMBEDDINGS)
    assert first.json["data"] == second.json["data"]
    assert len(first.json["data"]) == (2 if given in (["hello", "world"], [[1, 2], [3]]) else 1)


async def test_echo_completes_plain_and_as_a_stream(gateway):
    gateway.SENTINEL_PROVIDERS = ECHO
    body = {"model": "echo-small", "prompt": "hello"}
    plain = (await ask(body, path=COMPLETIONS)).json["choices"][0]["text"]
    streamed = (await ask({**body, "stream": True}, path=COMPLETIONS)).body.decode().split("\n\n")[:-2]
    text = "".join(json.loads(event.removeprefix("data: "))["choices"][0]["text"] for event in streamed)
    assert plain.endswith("(echo-small) heard: hello")
    assert text.partition(" ")[2] == plain.partition(" ")[2]


@pytest.mark.parametrize(
    "path", ["/v1/files", "/v1/files/file-1", "/v1/batches", "/v1/audio/speech", "/v1/images/generations"]
)
async def test_api_that_the_gateway_does_not_have_is_not_found_in_the_shape_of_openai(accounts, path):
    answer = await ask({}, path=path)
    assert (answer.status, answer.error["code"], answer.error["type"]) == (404, "unknown_url", "invalid_request_error")
    assert path in answer.error["message"]
