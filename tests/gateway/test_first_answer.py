"""A new conversation belongs to the provider that gives its first answer; without an answer it is not bound."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING

import pytest

from sentinel_project.gateway.routing import result
from sentinel_project.gateway.upstream import relay
from sessions_sticky import sessions
from tests.gateway.asgi import Call, chat, outcome_of, say
from tests.gateway.conftest import provider
from tests.gateway.upstreams import WAIT_SECONDS, breaks_off, fails, stalls, streams_and_stalls
from tests.waiting import until

if TYPE_CHECKING:
    import redis
    from pytest_django import Settings

    from tests.gateway.upstreams import Behaviour, Exchange, Upstream

FAILURES = {"500": fails(500), "429": fails(429), "401": fails(401), "broken": breaks_off()}
LEADS_TO_NORTH = 1_000_000
"""North's weight against 1: it ranks first for every conversation here."""


@pytest.fixture
def north_first(gateway: Settings, north: Upstream, south: Upstream) -> Settings:
    gateway.SENTINEL_PROVIDERS = (provider(north, weight=LEADS_TO_NORTH), provider(south))
    return gateway


@pytest.mark.usefixtures("north_first")
@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("stream", [False, True])
async def test_conversation_is_bound_to_the_provider_that_answers_first(
    north: Upstream, failure: str, stream: bool
) -> None:
    north.then(FAILURES[failure])
    answered = await say("new", stream=stream)
    assert outcome_of(answered) == (200, "rebound", "south")
    assert answered.headers["x-session-reason"] == "first provider failed"
    north.clear()
    assert outcome_of(await say("new", stream=stream)) == (200, "hit", "south")
    event = (await sessions.ahistory("new"))[-1]
    assert (event.from_provider, event.provider, event.reason) == ("north", "south", "first provider failed")


@pytest.mark.usefixtures("north_first")
async def test_conversation_stays_where_it_is_bound_when_a_later_turn_fails(north: Upstream) -> None:
    await say("old")
    north.then(fails(500))
    assert outcome_of(await say("old")) == (200, "spilled", "south")
    assert (await sessions.aget("old")).provider == "north"


@pytest.mark.parametrize("failure", [fails(500), fails(400), fails(403, {"error": {"message": "flagged"}})])
async def test_conversation_is_not_bound_when_its_first_request_gets_no_answer(
    gateway: Settings, only_north: Upstream, failure: Behaviour
) -> None:
    only_north.then(failure)
    assert (await say("new")).status >= 400
    assert await sessions.aget("new") is None
    assert outcome_of(await say("new")) == (200, "created", "north")


async def test_conversation_is_not_bound_when_its_first_client_leaves_before_the_answer(
    gateway: Settings, only_north: Upstream
) -> None:
    only_north.then(stalls)
    call = Call(chat(conversation_id="new"))
    task = call.start()
    await until(lambda: only_north.exchanges)
    assert (await sessions.aget("new")) is not None
    call.leave()
    await task
    assert await sessions.aget("new") is None


async def test_conversation_stays_bound_when_its_first_stream_breaks_after_its_content(
    gateway: Settings, only_north: Upstream
) -> None:
    only_north.then(streams_and_stalls)
    gateway.SENTINEL_IDLE_TIMEOUT_SECONDS = 0.5
    assert (await say("new", stream=True)).status == 200
    assert (await sessions.aget("new")).provider == "north"


PRELUDES = {
    "comment": b": queued\n\n",
    "role": b'data: {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}\n\n',
}


def queues(prelude: bytes, *rest: bytes) -> Behaviour:
    """Begin a stream, and continue it when its prelude has been passed on."""

    def behave(exchange: Exchange) -> None:
        exchange.begin()
        exchange.chunk(prelude)
        time.sleep(0.8)
        for part in rest:
            exchange.chunk(part)
        exchange.cut()

    return behave


@pytest.fixture
def short_prelude(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "PRELUDE_SECONDS", 0.1)


@pytest.mark.slow
@pytest.mark.usefixtures("short_prelude")
@pytest.mark.parametrize("prelude", PRELUDES)
@pytest.mark.parametrize("rest", [b"", b'data: {"error": {"message": "overloaded"}}\n\n'], ids=["cut", "error"])
async def test_conversation_is_not_bound_when_its_first_stream_ends_before_its_content(
    gateway: Settings, only_north: Upstream, prelude: str, rest: bytes
) -> None:
    only_north.then(queues(PRELUDES[prelude], rest) if rest else queues(PRELUDES[prelude]))
    answered = await say("new", stream=True)
    assert outcome_of(answered) == (200, "created", "north")
    assert b'"error"' in answered.body
    assert await sessions.aget("new") is None
    assert not result.unconfirmed


@pytest.mark.slow
@pytest.mark.usefixtures("north_first", "short_prelude")
async def test_conversation_is_not_bound_when_the_second_providers_stream_has_no_content(
    north: Upstream, south: Upstream
) -> None:
    north.then(fails(500))
    south.then(queues(PRELUDES["comment"]))
    assert outcome_of(await say("new", stream=True)) == (200, "rebound", "south")
    assert await sessions.aget("new") is None


@pytest.mark.slow
@pytest.mark.usefixtures("short_prelude")
async def test_conversation_stays_bound_when_content_follows_a_long_prelude(
    gateway: Settings, only_north: Upstream
) -> None:
    content = b'data: {"choices": [{"index": 0, "delta": {"content": "hello"}}]}\n\n'
    only_north.then(queues(PRELUDES["comment"], content))
    answered = await say("new", stream=True)
    assert content in answered.body
    assert (await sessions.aget("new")).provider == "north"
    assert not result.unconfirmed


async def test_binding_stays_when_another_request_has_moved_it_in_the_meantime(
    gateway: Settings, only_north: Upstream
) -> None:
    only_north.then(stalls)
    call = Call(chat(conversation_id="new"))
    task = call.start()
    await until(lambda: only_north.exchanges)
    session = await sessions.aget("new")
    await sessions.arebind(session, provider="south", model="model-a", reason="an operator's")
    call.leave()
    await asyncio.gather(task)
    assert (await sessions.aget("new")).provider == "south"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("end", ["refused", "left"])
async def test_binding_stays_when_its_provider_has_answered_another_request(
    gateway: Settings, only_north: Upstream, stream: bool, end: str
) -> None:
    """Subagents and titles are asked for at the same time, under one id."""
    release = threading.Event()

    def refuses_late(exchange: Exchange) -> None:
        release.wait(WAIT_SECONDS)
        fails(400, {"error": {"message": "too long"}})(exchange)

    only_north.then(refuses_late)
    first = Call(chat(conversation_id="new"))
    task = first.start()
    await until(lambda: only_north.exchanges)
    assert outcome_of(await say("new", stream=stream)) == (200, "hit", "north")
    bound = await sessions.aget("new")
    if end == "left":
        first.leave()
        await task
    release.set()
    await task
    assert await sessions.aget("new") == bound
    assert not result.unconfirmed


async def test_old_binding_stays_when_a_request_gets_no_answer(
    bound_to_north: str, north: Upstream, south: Upstream
) -> None:
    north.then(fails(500))
    south.then(fails(500))
    assert (await say(bound_to_north)).status == 500
    assert (await sessions.aget(bound_to_north)).provider == "north"


@pytest.fixture
def restored(bound_to_north: str, session_cache: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> str:
    """A conversation that began a while ago, and whose binding the store has lost; this process remembers it."""
    now = time.time()
    with monkeypatch.context() as patched:
        patched.setattr(time, "time", lambda: now - 100)
        sessions.create(bound_to_north, "north", "model-a", "ann", replace=True)
    session_cache.flushdb()
    return bound_to_north


async def test_restored_binding_stays_when_its_provider_fails(restored: str, north: Upstream) -> None:
    north.then(fails(500))
    assert outcome_of(await say(restored)) == (200, "spilled", "south")
    assert (await sessions.aget(restored)).provider == "north"


async def test_restored_binding_stays_when_no_provider_answers(restored: str, north: Upstream, south: Upstream) -> None:
    north.then(fails(500))
    south.then(fails(500))
    assert (await say(restored)).status == 500
    assert (await sessions.aget(restored)).provider == "north"
