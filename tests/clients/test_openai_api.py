"""The OpenAI SDK's other calls: what a provider stores is found there, and small APIs are passed through."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from openai.types.responses import Response

from tests.clients.clients import CHAT_MODEL
from tests.clients.gateway import Gateway
from tests.clients.upstream import MODELS, Upstream

Call = Callable[[openai.OpenAI, Response], Any]


@pytest.fixture
def client(gateway: Gateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway.root}/v1", api_key=gateway.key) as client:
        yield client


def ask(client: openai.OpenAI, **options: Any) -> Response:
    """Return a new response."""
    return client.responses.create(**{"model": CHAT_MODEL, "input": "hello", **options})


def owner_of(answer: str, upstreams: dict[str, Upstream]) -> Upstream:
    """Return who gave an answer."""
    return upstreams[answer.partition(" ")[0]]


def streamed_again(client: openai.OpenAI, response: Response) -> list[int]:
    """Return the numbers of the events of a stored response after its second."""
    return [event.sequence_number for event in client.responses.retrieve(response.id, stream=True, starting_after=1)]


STORED: dict[str, tuple[Call, Call]] = {
    "retrieve": (
        lambda client, response: client.responses.retrieve(response.id).output_text,
        lambda found, response: found == response.output_text,
    ),
    "retrieve as a stream": (
        streamed_again,
        lambda found, response: found == list(range(2, 2 + len(found))) and len(found) > 5,
    ),
    "list input items": (
        lambda client, response: client.responses.input_items.list(response.id).data[0].content[0].text,
        lambda found, response: found == "hello",
    ),
    "delete": (
        lambda client, response: client.responses.delete(response.id),
        lambda found, response: found is None,
    ),
    "continue": (
        lambda client, response: ask(client, previous_response_id=response.id).output_text,
        lambda found, response: found == response.output_text,
    ),
    "count": (
        lambda client, response: (
            client.responses.input_tokens.count(
                model=CHAT_MODEL, previous_response_id=response.id, input="more"
            ).input_tokens
        ),
        lambda found, response: found > 0,
    ),
    "compact": (
        lambda client, response: [
            item.type for item in client.responses.compact(model=CHAT_MODEL, previous_response_id=response.id).output
        ],
        lambda found, response: found == ["message", "compaction"],
    ),
}


@pytest.mark.parametrize("call", STORED)
def test_stored_response_is_used_where_it_is(
    call: str, client: openai.OpenAI, gateway: Gateway, upstreams: dict[str, Upstream]
) -> None:
    response = ask(client)
    owner = owner_of(response.output_text, upstreams)
    gateway.switch()
    use, is_right = STORED[call]
    found = use(client, response)
    assert is_right(found, response), found
    assert [upstream.name for upstream in upstreams.values() if upstream.used()] == [owner.name]


def test_background_response_is_cancelled_where_it_runs(client: openai.OpenAI, gateway: Gateway) -> None:
    response = ask(client, background=True)
    assert response.status == "queued"
    gateway.switch()
    assert client.responses.cancel(response.id).status == "cancelled"


def test_conversation_is_used_where_it_is(
    client: openai.OpenAI, gateway: Gateway, upstreams: dict[str, Upstream]
) -> None:
    conversation = client.conversations.create(metadata={"topic": "test"})
    gateway.switch()
    assert client.conversations.retrieve(conversation.id).metadata == {"topic": "test"}
    ask(client, conversation=conversation.id)
    assert [item.role for item in client.conversations.items.list(conversation.id)] == ["assistant", "user"]
    assert client.conversations.delete(conversation.id).deleted
    assert sum(bool(upstream.used()) for upstream in upstreams.values()) == 1


def test_compacted_history_waits_for_the_account_that_can_read_it(
    client: openai.OpenAI, gateway: Gateway, upstreams: dict[str, Upstream]
) -> None:
    response = ask(client)
    compacted = client.responses.compact(model=CHAT_MODEL, previous_response_id=response.id)
    items = [item.model_dump(exclude_none=True, warnings=False) for item in compacted.output]
    items.append({"role": "user", "content": "and now?"})
    owner_of(response.output_text, upstreams).kill()
    gateway.switch()
    with pytest.raises(openai.InternalServerError) as caught:
        ask(client, input=items)
    assert caught.value.status_code == 503
    assert int(caught.value.response.headers["retry-after"]) > 0
    gateway.restore()
    assert ask(client, input=items).output_text == response.output_text


def test_stored_reasoning_waits_for_the_account_that_has_it(
    client: openai.OpenAI, gateway: Gateway, upstreams: dict[str, Upstream]
) -> None:
    response = ask(client, reasoning={"effort": "low"})
    items = [item.model_dump(exclude_none=True) for item in response.output]
    assert (items[0]["type"], items[0].get("encrypted_content")) == ("reasoning", None)
    question = [{"role": "user", "content": "hello"}, *items, {"role": "user", "content": "and now?"}]
    owner = owner_of(response.output_text, upstreams)
    owner.kill()
    gateway.switch()
    with pytest.raises(openai.InternalServerError) as caught:
        ask(client, input=question)
    assert caught.value.status_code == 503
    gateway.restore()
    assert ask(client, input=question).output_text == response.output_text


def test_unknown_response_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="'resp_unknown' not found"):
        client.responses.retrieve("resp_unknown")
    with pytest.raises(openai.BadRequestError, match="'resp_unknown' not found") as caught:
        ask(client, previous_response_id="resp_unknown")
    assert (caught.value.code, caught.value.param) == ("previous_response_not_found", "previous_response_id")


def test_embeddings_and_completions_are_passed_through(client: openai.OpenAI) -> None:
    embedding = client.embeddings.create(model=CHAT_MODEL, input=["hello", "there"])
    assert [each.embedding for each in embedding.data] == 2 * [[0.5, 0.25, 0.125]]
    assert client.completions.create(model=CHAT_MODEL, prompt="hello").choices[0].text.endswith(f"as {CHAT_MODEL}")
    chunks = client.completions.create(model=CHAT_MODEL, prompt="hello", stream=True)
    assert "".join(chunk.choices[0].text for chunk in chunks).endswith(f"as {CHAT_MODEL}")


def test_models_are_those_of_the_gateway(client: openai.OpenAI) -> None:
    assert sorted(model.id for model in client.models.list()) == sorted(MODELS)


def test_stream_that_breaks_is_an_api_error(client: openai.OpenAI, upstreams: dict[str, Upstream]) -> None:
    for upstream in upstreams.values():
        upstream.fail_turns(6)  # after the first words
    with pytest.raises(openai.APIError) as caught, client.responses.stream(model=CHAT_MODEL, input="hello") as stream:
        stream.get_final_response()
    assert not isinstance(caught.value, openai.APIConnectionError)
