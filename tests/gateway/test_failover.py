"""A conversation is served whatever its provider does, and moves for a reason only."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING

import msgspec
import pytest

from sentinel_project.gateway.apis.base import ApiRequest
from sentinel_project.gateway.providers.config import Provider
from sentinel_project.gateway.routing import process
from sentinel_project.gateway.turns.recorder import recorder
from sentinel_project.gateway.upstream.response import Response
from sessions_sticky import sessions
from tests.gateway.asgi import ask, chat, outcome_of, say
from tests.gateway.conftest import provider
from tests.gateway.upstreams import answers, breaks_off, fails
from tests.servers import free_port

if TYPE_CHECKING:
    import redis
    from pytest_django import Settings

    from tests.gateway.upstreams import Behaviour, Upstream

FAILURES = {status: fails(status) for status in (500, 502, 503, 504, 529, 429)}


@pytest.mark.parametrize("status", FAILURES)
async def test_spills_over_and_keeps_the_binding_when_its_provider_fails(
    bound_to_north: str, north: Upstream, south: Upstream, status: int
) -> None:
    north.then(FAILURES[status])
    assert outcome_of(await say(bound_to_north)) == (200, "spilled", "south")
    assert (await sessions.aget(bound_to_north)).provider == "north"


async def test_spills_over_when_its_provider_cannot_be_reached(
    bound_to_north: str, gateway: Settings, south: Upstream
) -> None:
    closed = f"http://127.0.0.1:{free_port()}/v1"
    dead = Provider(name="north", base_url=closed, api_key=None, models=("model-a",), weight=1)
    gateway.SENTINEL_PROVIDERS = (dead, provider(south))
    assert outcome_of(await say(bound_to_north)) == (200, "spilled", "south")
    assert outcome_of(await say(bound_to_north, stream=True)) == (200, "spilled", "south")


@pytest.mark.slow
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("failing", [1, 2])
@pytest.mark.parametrize("is_reachable", [False, True])
async def test_request_is_freed_at_once_when_its_providers_fail(
    bound_to_north: str,
    gateway: Settings,
    north: Upstream,
    south: Upstream,
    failing: int,
    is_reachable: bool,
    stream: bool,
) -> None:
    """A body may be several megabytes, which the garbage collector does not count."""
    if is_reachable:
        for each in (north, south)[:failing]:
            each.then(fails(500))
    else:
        closed = f"http://127.0.0.1:{free_port()}/v1"
        dead = [msgspec.structs.replace(provider(each), base_url=closed) for each in (north, south)[:failing]]
        gateway.SENTINEL_PROVIDERS = (*dead, *map(provider, (north, south)[failing:]))
    gc.collect()
    gc.disable()
    try:
        assert ((await say(bound_to_north, stream=stream)).status == 200) == (failing == 1)
        await recorder.flush()
        held = [each for each in gc.get_objects() if type(each) in (ApiRequest, Response)]
        assert not held
    finally:
        gc.enable()


PATHS = {
    "chat": "/v1/chat/completions",
    "messages": "/v1/messages",
    "completions": "/v1/completions",
    "embeddings": "/v1/embeddings",
}
NO_ANSWERS = (
    {},
    {"code": 500, "msg": "404 NOT_FOUND", "success": False},
    {"choices": None, "data": None},
    {"detail": "x"},
)


@pytest.mark.parametrize("api", PATHS)
@pytest.mark.parametrize("body", NO_ANSWERS, ids=["empty", "an error of its own", "null", "detail"])
async def test_spills_over_when_an_object_with_status_200_is_no_answer(
    bound_to_north: str, gateway: Settings, north: Upstream, south: Upstream, api: str, body: dict[str, object]
) -> None:
    gateway.SENTINEL_PROVIDERS = tuple(provider(each, apis=tuple(PATHS)) for each in (north, south))
    north.then(fails(200, body))
    south.then(fails(200, {"choices": [], "content": [], "data": []}))
    asked = chat(conversation_id=bound_to_north, prompt="hello", input="hello", max_tokens=5)
    assert outcome_of(await ask(asked, path=PATHS[api])) == (200, "spilled", "south")


@pytest.mark.parametrize(
    ("failing", "error"),
    [
        (fails(503), "HTTP 503"),
        (fails(429, {"error": {"code": "rate_limit_exceeded"}}), "HTTP 429 rate_limit_exceeded"),
        (fails(429, {"error": {"code": "the user's own <b>words</b>"}}), "HTTP 429"),
        (fails(401), "HTTP 401 upstream_refused"),
        (fails(429, {"error": {"code": "insufficient_quota", "type": "x"}}), "HTTP 429 insufficient_quota"),
        (fails(402, {"type": "error", "error": {"type": "billing_error"}}), "HTTP 402 billing_error"),
        (fails(403, {"error": {"code": "the user's own <b>words</b> and api key", "message": "api key"}}), "HTTP 403"),
    ],
)
async def test_last_error_names_status_and_code_but_no_text_of_the_provider(
    bound_to_north: str, north: Upstream, failing: Behaviour, error: str
) -> None:
    for number in range(3):  # two conversations, for the outlier rule
        north.then(failing)
        await say(bound_to_north if number else "conv-other")
    assert process.health.last_error("north") == error


async def test_chat_skips_a_cooling_provider_and_returns_when_it_answers_again(
    bound_to_north: str, north: Upstream
) -> None:
    north.then(fails(429))
    await say(bound_to_north)
    assert outcome_of(await say(bound_to_north)) == (200, "spilled", "south")
    assert len(north.exchanges) == 1
    process.health.answered("north", "model-a", process.health.now())
    assert outcome_of(await say(bound_to_north)) == (200, "hit", "north")


async def last_move(conversation_id: str) -> tuple[str | None, str, str, str]:
    """Return what the history says of the last change: from, to, why, by whom."""
    event = (await sessions.ahistory(conversation_id))[-1]
    assert event.kind == "rebound"
    return event.from_provider, event.provider, event.reason, event.actor


async def test_rebinds_when_its_provider_is_lost(bound_to_north: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process.health, "is_lost", lambda name: name == "north")
    monkeypatch.setattr(process.health, "is_cooling", lambda name, model: name == "north")
    answered = await say(bound_to_north)
    assert outcome_of(answered) == (200, "rebound", "south")
    reason = answered.headers["x-session-reason"]
    assert "90 s" in reason
    assert await last_move(bound_to_north) == ("north", "south", reason, "gateway")


async def test_keeps_the_binding_when_every_provider_refuses(
    bound_to_north: str, north: Upstream, south: Upstream
) -> None:
    """Then it is the request that is wrong, and no reason to move."""
    north.then(fails(404, {"error": {"message": "no such file"}}))
    south.then(fails(404))
    answered = await say(bound_to_north)
    assert answered.status == 404
    assert answered.error["message"] == "no such file"
    assert (await sessions.aget(bound_to_north)).provider == "north"


@pytest.mark.parametrize("passing", [503, 429])
async def test_answer_is_retryable_when_one_provider_refuses_the_key_and_another_fails(
    bound_to_north: str, north: Upstream, south: Upstream, passing: int
) -> None:
    north.then(fails(401))
    south.then(fails(passing))
    answered = await say(bound_to_north)
    assert (answered.status, answered.error["code"]) == (502, "upstream_refused")
    assert "x-should-retry" not in answered.headers


async def test_never_changes_the_model_when_it_fails_over(
    bound_to_north: str, gateway: Settings, north: Upstream, south: Upstream
) -> None:
    gateway.SENTINEL_PROVIDERS = (provider(north), provider(south, models=("model-b",)))
    north.then(fails(500))
    assert (await say(bound_to_north)).status == 500
    assert south.exchanges == []
    assert (await say(bound_to_north, model="model-b")).said == "north as model-a"


@pytest.mark.parametrize("behaviour", [fails(500), breaks_off()], ids=["status", "no first byte"])
async def test_fails_over_when_a_stream_fails_before_its_first_byte(
    bound_to_north: str, north: Upstream, behaviour: Behaviour
) -> None:
    north.then(behaviour)
    answered = await say(bound_to_north, stream=True)
    assert outcome_of(answered) == (200, "spilled", "south")
    assert answered.body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("before", [b"", b'data: {"choices":[{"index":0,"delta":null}]}\n\n'], ids=["at once", "empty"])
@pytest.mark.parametrize(
    "error",
    [
        b'{"error":{"message":"overloaded"}}',
        b'{"error":"overloaded","choices":null}',
        b'{"error":{"message":"overloaded"},"choices":[{"index":0,"delta":null,"finish_reason":null}]}',
        b'{"error":{"message":"overloaded"},"choices":[{"index":0,"delta":{"content":""},"finish_reason":"error"}]}',
    ],
)
async def test_fails_over_when_a_stream_begins_with_an_error_of_any_shape(
    bound_to_north: str, north: Upstream, before: bytes, error: bytes
) -> None:
    north.then(breaks_off(*filter(None, [before]), b"data: %b\n\n" % error))
    answered = await say(bound_to_north, stream=True)
    assert outcome_of(answered) == (200, "spilled", "south")
    assert answered.body.endswith(b"data: [DONE]\n\n")


UNREADABLE = {
    "not utf-8": b'"\xff"',
    "number out of range": b"1e400",
    "integer out of range": b"9" * 5_000,
    "nested": b"[" * 400 + b"]" * 400,
    "nested deeper": b'{"a":' * 480 + b"1" + b"}" * 480,
}
"""JSON values that pass as they are, but cannot be decoded or walked through."""


@pytest.mark.parametrize("value", UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_spills_over_when_an_error_with_status_200_cannot_be_read(
    bound_to_north: str, north: Upstream, value: bytes, stream: bool
) -> None:
    error = b'{"error":{"message":"overloaded","detail":%b}}' % value
    north.then(breaks_off(b"data: %b\n\n" % error) if stream else fails(200, error))
    assert outcome_of(await say(bound_to_north, stream=stream)) == (200, "spilled", "south")


@pytest.mark.parametrize("value", UNREADABLE.values(), ids=UNREADABLE)
async def test_stream_ends_with_the_error_when_one_after_content_cannot_be_read(
    bound_to_north: str, north: Upstream, value: bytes
) -> None:
    content = b'data: {"choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'
    north.then(breaks_off(content, b'data: {"error":{"message":"overloaded","detail":%b}}\n\n' % value))
    answered = await say(bound_to_north, stream=True)
    assert answered.status == 200
    assert b'"error"' in answered.body


async def test_serves_a_request_of_no_conversation_when_a_provider_fails(
    gateway: Settings, north: Upstream, south: Upstream
) -> None:
    gateway.SENTINEL_CONVERSATION_ID_SOURCES = ["header.x-session-id"]
    north.then(*[fails(429)] * 20)
    answered = [await ask(chat()) for _ in range(20)]
    assert {outcome_of(call) for call in answered} == {(200, "none", "south")}
    assert len(north.exchanges) <= 1


@pytest.mark.slow
async def test_moves_no_conversation_when_a_provider_flaps(
    gateway: Settings, session_cache: redis.Redis, north: Upstream
) -> None:
    ids = [f"conv-{n}" for n in range(30)]
    at_first = {call.headers["x-session-provider"] for call in await asyncio.gather(*map(say, ids))}
    assert at_first == {"north", "south"}
    before = {each: (await sessions.aget(each)).provider for each in ids}
    for _ in range(5):
        north.then(fails(503))
        assert {call.status for call in await asyncio.gather(*map(say, ids))} == {200}
        process.health.answered("north", "model-a", process.health.now())
    north.clear()
    north.then(*[answers] * 5)
    after = {each: (await say(each)).headers["x-session-provider"] for each in ids}
    assert after == before
