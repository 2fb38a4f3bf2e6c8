"""Real clients: the OpenAI SDK and LangChain, over two real upstreams."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import openai
import pytest

from tests.gateway.asgi import MESSAGES
from tests.gateway.live import LiveGateway
from tests.gateway.upstreams import Held, Upstream, breaks_off, fails

if TYPE_CHECKING:
    from langchain_openai import ChatOpenAI

pytestmark = pytest.mark.slow


def new_id() -> str:
    return f"conv-{uuid.uuid4()}"


@pytest.fixture
def client(live: LiveGateway) -> openai.OpenAI:
    with openai.OpenAI(base_url=f"{live.url}/v1", api_key=live.key) as client:
        yield client


@pytest.fixture
async def async_client(live: LiveGateway) -> openai.AsyncOpenAI:
    async with openai.AsyncOpenAI(base_url=f"{live.url}/v1", api_key=live.key) as client:
        yield client


def say(client, model: str = "model-a", **more):
    return client.chat.completions.create(model=model, messages=MESSAGES, **more)


def text(chunks) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks).strip()


def test_sdk_keeps_provider_and_model_when_the_body_names_the_conversation(client, north: Upstream, south: Upstream):
    extra = {"extra_body": {"conversation_id": new_id()}}
    first, second = say(client, "model-a", **extra), say(client, "model-b", **extra)
    assert first.choices[0].message.content in ("north as model-a", "south as model-a")
    assert second.choices[0].message.content == first.choices[0].message.content
    assert {len(north.exchanges), len(south.exchanges)} == {0, 2}
    assert all("conversation_id" not in body for body in north.sent + south.sent)


def test_sdk_keeps_the_provider_when_a_header_names_the_session(client, north: Upstream, south: Upstream):
    extra = {"extra_headers": {"X-Session-Id": new_id()}}
    answers = [say(client, model, **extra).choices[0].message.content for model in ("model-a", "model-b", "model-a")]
    provider = answers[0].partition(" ")[0]
    assert answers == [f"{provider} as model-a", f"{provider} as model-b", f"{provider} as model-a"]
    assert {len(north.exchanges), len(south.exchanges)} == {0, 3}


def test_sdk_streams_from_the_same_provider_when_the_conversation_continues(client):
    extra = {"extra_body": {"conversation_id": new_id()}}
    first = say(client, "model-a", **extra).choices[0].message.content
    with say(client, "model-b", stream=True, **extra) as stream:
        assert text(stream) == first


def test_sdk_gets_chunks_when_the_upstream_has_not_finished(client, south: Upstream):
    held = Held()
    south.then(held)
    with say(client, "only-south", stream=True) as stream:
        assert next(stream).choices[0].delta.content == "first"
        held.release.set()
        assert text(stream) == "second"


async def test_async_sdk_keeps_provider_and_model_when_the_conversation_continues(async_client):
    extra = {"extra_body": {"conversation_id": new_id()}}
    first, second = await say(async_client, "model-a", **extra), await say(async_client, "model-b", **extra)
    assert second.choices[0].message.content == first.choices[0].message.content
    async with await say(async_client, "model-b", stream=True, **extra) as stream:
        assert text([chunk async for chunk in stream]) == first.choices[0].message.content


def test_sdk_reads_the_session_headers_when_asked_for_the_raw_answer(client):
    raw = client.chat.completions.with_raw_response.create(
        model="model-a", messages=MESSAGES, extra_body={"conversation_id": new_id()}
    )
    assert raw.headers["x-session-outcome"] == "created"
    assert raw.headers["x-session-provider"] in ("north", "south")
    assert raw.parse().choices[0].message.role == "assistant"


def test_sdk_lists_models_when_asked(client):
    assert [model.id for model in client.models.list()] == ["model-a", "model-b", "only-north", "only-south"]
    assert client.models.retrieve("only-north").owned_by == "north"


def test_sdk_raises_authentication_error_when_the_key_is_wrong(live: LiveGateway):
    with openai.OpenAI(base_url=f"{live.url}/v1", api_key="sk-wrong") as client:
        with pytest.raises(openai.AuthenticationError, match="The API key is not valid") as caught:
            say(client)
        assert caught.value.code == "invalid_api_key"
        with pytest.raises(openai.AuthenticationError):
            client.models.list()


def test_sdk_raises_not_found_when_no_provider_serves_the_model(client):
    with pytest.raises(openai.NotFoundError, match="No provider serves the model 'gpt-0'") as caught:
        say(client, "gpt-0")
    assert (caught.value.param, caught.value.code) == ("model", "model_not_found")
    with pytest.raises(openai.NotFoundError, match="No provider serves the model 'gpt-0'"):
        client.models.retrieve("gpt-0")


def test_sdk_raises_not_found_when_the_path_is_unknown(client):
    with pytest.raises(openai.NotFoundError, match="Unknown path: /v1/files/file-1") as caught:
        client.files.retrieve("file-1")
    assert caught.value.code == "unknown_url"


def test_sdk_raises_bad_request_when_the_conversation_id_is_too_long(client):
    with pytest.raises(openai.BadRequestError, match="1 to 256 characters, not 257") as caught:
        say(client, extra_body={"conversation_id": 257 * "x"})
    assert caught.value.param == "conversation_id"


def test_sdk_raises_permission_denied_without_a_retry_for_another_owner(
    client, live: LiveGateway, north: Upstream, south: Upstream
):
    extra = {"extra_body": {"conversation_id": new_id()}}
    say(client, **extra)
    before = live.count_requests()
    with (
        openai.OpenAI(base_url=f"{live.url}/v1", api_key=live.other_key, max_retries=2) as other,
        pytest.raises(openai.PermissionDeniedError, match="belongs to another owner") as caught,
    ):
        say(other, **extra)
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert live.count_requests() == before + 1
    assert len(north.exchanges) + len(south.exchanges) == 1


def test_sdk_raises_the_upstreams_error_when_it_refuses_the_request(client, north: Upstream):
    error = {"message": "temperature is too high", "type": "invalid_request_error", "param": "temperature", "code": 17}
    north.then(fails(400, {"error": error}))
    with pytest.raises(openai.BadRequestError, match="temperature is too high") as caught:
        say(client, "only-north", temperature=9)
    assert caught.value.param == "temperature"


def test_sdk_raises_api_error_when_the_stream_breaks(client, north: Upstream):
    north.then(breaks_off(b'data: {"choices":[{"index":0,"delta":{"content":"first"}}]}\n\n'))
    with say(client, "only-north", stream=True) as stream:
        assert next(stream).choices[0].delta.content == "first"
        with pytest.raises(openai.APIError, match="closed the connection before the end of its answer"):
            next(stream)


def langchain(live: LiveGateway, model: str, conversation_id: str) -> ChatOpenAI:
    from langchain_openai import ChatOpenAI  # which takes a second

    return ChatOpenAI(
        model=model, base_url=f"{live.url}/v1", api_key=live.key, extra_body={"conversation_id": conversation_id}
    )


def test_langchain_keeps_provider_and_model_when_the_conversation_continues(live: LiveGateway):
    conversation_id = new_id()
    first = langchain(live, "model-a", conversation_id).invoke("hello").content
    assert first in ("north as model-a", "south as model-a")
    assert langchain(live, "model-b", conversation_id).invoke("and now?").content == first
    streamed = "".join(chunk.content for chunk in langchain(live, "model-b", conversation_id).stream("continue"))
    assert streamed.strip() == first
