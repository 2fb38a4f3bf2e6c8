"""Whatever a client sends, the gateway does not fail: the answer is 200 or a 4xx in the shape of the API."""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sentinel_project.gateway.providers.config import ECHO
from tests.gateway.asgi import CHAT, Call, ask

FUZZ = settings(
    max_examples=150, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

pytestmark = pytest.mark.slow

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner), max_leaves=12
)
IDS = st.text(max_size=300) | JSON
MESSAGES = st.lists(st.fixed_dictionaries({}, optional={"role": JSON, "content": JSON, "tool_calls": JSON}), max_size=3)
CHATS = st.fixed_dictionaries(
    {"model": st.sampled_from(["echo-small", "echo-large"]) | JSON, "messages": MESSAGES | JSON},
    optional={
        "stream": st.booleans() | JSON,
        "stream_options": st.just({"include_usage": True}) | JSON,
        "conversation_id": IDS,
        "session_id": IDS,
        "prompt_cache_key": IDS,
        "metadata": st.fixed_dictionaries({}, optional={"conversation_id": IDS, "session_id": IDS}) | JSON,
        "user": JSON,
    },
)


@pytest.fixture
def runner(gateway):
    """One event loop for all examples of a test; the gateway has the echo providers."""
    gateway.SENTINEL_PROVIDERS = ECHO
    with asyncio.Runner() as runner:
        yield runner


def check(answer: Call) -> None:
    if answer.status == 200:
        return
    assert 400 <= answer.status < 500, answer.body
    assert answer.error["message"]


@FUZZ
@given(body=CHATS)
def test_chat_never_fails_when_fields_are_arbitrary(runner, body):
    check(runner.run(ask(json.dumps(body, ensure_ascii=False).encode(errors="surrogatepass"))))


@FUZZ
@given(body=st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_chat_never_fails_when_the_body_is_arbitrary(runner, body):
    check(runner.run(ask(body)))


BLOCKS = st.fixed_dictionaries(
    {}, optional={"type": st.sampled_from(["text", "thinking", "tool_result"]) | JSON, "text": JSON, "content": JSON}
)
CONTENTS = st.text(max_size=20) | st.lists(BLOCKS | JSON, max_size=3) | JSON
TURNS = st.lists(st.fixed_dictionaries({}, optional={"role": JSON, "content": CONTENTS}) | JSON, max_size=3)
MESSAGE_REQUESTS = st.fixed_dictionaries(
    {"model": st.sampled_from(["echo-small", "echo-large"]) | JSON, "messages": TURNS | JSON},
    optional={
        "max_tokens": JSON,
        "stream": st.booleans() | JSON,
        "system": CONTENTS,
        "tools": JSON,
        "thinking": JSON,
        "metadata": st.fixed_dictionaries({}, optional={"user_id": IDS}) | JSON,
        "conversation_id": IDS,
    },
)
MESSAGE_PATHS = st.sampled_from(["/v1/messages", "/v1/messages/count_tokens"])


@FUZZ
@given(
    body=MESSAGE_REQUESTS.map(lambda value: json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass"))
    | st.binary(max_size=200)
    | JSON.map(lambda value: json.dumps(value).encode()),
    path=MESSAGE_PATHS,
    query=st.text(max_size=20),
)
def test_messages_never_fail_when_the_body_is_arbitrary(runner, body, path, query):
    answer = runner.run(ask(body, path=path, query=query))
    check(answer)
    assert answer.status == 200 or answer.json["type"] == "error"


HEADER_NAMES = st.sampled_from(["x-session-id", "session_id", "x-a-session-id", "content-type"])


@FUZZ
@given(headers=st.lists(st.tuples(HEADER_NAMES, st.binary(max_size=300)), max_size=4), authorization=st.binary())
def test_chat_never_fails_when_headers_are_arbitrary(runner, headers, authorization):
    body = {"model": "echo-small", "messages": [{}]}
    check(runner.run(ask(body, headers=headers)))
    answer = runner.run(ask(body, headers=[("Authorization", authorization)], key=None))
    assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")


@FUZZ
@given(path=st.text(max_size=60), method=st.sampled_from(["GET", "POST", "HEAD", "OPTIONS", "BREW"]))
def test_api_never_fails_when_the_path_is_arbitrary(runner, path, method):
    check(runner.run(ask({}, path=f"/v1/{path}", method=method)))
    check(runner.run(ask({}, path=f"{CHAT}{path}", method=method)))
    check(runner.run(ask({}, path=f"/v1/models/{path}", method=method)))


ITEMS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["message", "reasoning", "compaction", "item_reference", "input_file"]) | JSON,
            "role": JSON,
            "content": JSON,
            "id": IDS,
            "encrypted_content": JSON,
            "file_id": IDS,
        },
    ),
    max_size=3,
)
RESPONSE = st.fixed_dictionaries(
    {"model": st.sampled_from(["echo-small", "echo-large"]) | JSON, "input": ITEMS | JSON},
    optional={
        "stream": st.booleans() | JSON,
        "store": JSON,
        "background": JSON,
        "previous_response_id": IDS,
        "conversation": st.fixed_dictionaries({"id": IDS}) | IDS,
        "conversation_id": IDS,
        "prompt": st.fixed_dictionaries({"id": IDS}) | JSON,
        "prompt_cache_key": IDS,
        "instructions": JSON,
        "tools": st.lists(st.fixed_dictionaries({"container": IDS, "vector_store_ids": JSON}), max_size=2) | JSON,
    },
)
RESPONSE_PATHS = st.sampled_from(["/v1/responses", "/v1/responses/compact", "/v1/responses/input_tokens"])


@FUZZ
@given(body=RESPONSE, path=RESPONSE_PATHS)
def test_responses_never_fail_when_fields_are_arbitrary(runner, body, path):
    check(runner.run(ask(json.dumps(body, ensure_ascii=False).encode(errors="surrogatepass"), path=path)))


PASSED = st.fixed_dictionaries(
    {"model": st.sampled_from(["echo-small"]) | JSON},
    optional={"input": JSON, "prompt": JSON, "stream": JSON, "encoding_format": st.just("base64") | JSON},
)


@FUZZ
@given(body=PASSED, path=st.sampled_from(["/v1/embeddings", "/v1/completions"]))
def test_embeddings_and_completions_never_fail_when_fields_are_arbitrary(runner, body, path):
    check(runner.run(ask(json.dumps(body, ensure_ascii=False).encode(errors="surrogatepass"), path=path)))


@FUZZ
@given(
    kind=st.sampled_from(["responses", "conversations"]),
    object_id=st.text(max_size=40),
    below=st.sampled_from(["", "/cancel", "/input_items", "/items", "/items/x"]) | st.text(max_size=10),
    method=st.sampled_from(["GET", "POST", "DELETE"]),
    body=st.binary(max_size=20),
    query=st.text(max_size=20),
)
def test_stored_objects_never_fail_when_the_path_is_arbitrary(runner, kind, object_id, below, method, body, query):
    path = f"/v1/{kind}/{object_id}{below}"
    check(runner.run(ask(body, path=path, method=method, query=query)))
