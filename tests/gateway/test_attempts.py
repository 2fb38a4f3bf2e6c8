"""How often and how long a request is tried."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from typing import TYPE_CHECKING

import msgspec
import pytest

from sentinel_project.gateway import metrics
from sentinel_project.gateway.routing import process
from sentinel_project.gateway.upstream import relay
from tests.gateway.asgi import Call, chat, outcome_of, say
from tests.gateway.conftest import provider
from tests.gateway.upstreams import Exchange, answers, fails, stalls
from tests.waiting import stopwatch, until

if TYPE_CHECKING:
    from pytest_django import Settings

    from tests.gateway.upstreams import Behaviour, Upstream


def abandoned() -> float:
    """Return how many requests to north were given up."""
    return metrics.upstream_abandoned.labels("north")._value.get()


@pytest.mark.slow
@pytest.mark.parametrize("stream", [False, True])
async def test_request_has_one_deadline_when_every_provider_hangs(
    bound_to_north: str, gateway: Settings, north: Upstream, south: Upstream, stream: bool
) -> None:
    gateway.SENTINEL_UPSTREAM_TIMEOUT_SECONDS = 0.9
    north.then(stalls)
    south.then(stalls)
    begun, took, before = time.monotonic(), stopwatch(), abandoned()
    answered = await say(bound_to_north, stream=stream)
    assert (answered.status, answered.error["code"]) == (504, "upstream_timeout")
    assert time.monotonic() - begun >= 0.8
    assert took() < 1.6
    assert len(south.exchanges) == stream
    assert abandoned() == before + 1


@pytest.mark.slow
async def test_stream_is_answered_by_another_provider_when_its_own_hangs(
    bound_to_north: str, gateway: Settings, north: Upstream
) -> None:
    gateway.SENTINEL_UPSTREAM_TIMEOUT_SECONDS = 3
    north.then(stalls)
    begun, took = time.monotonic(), stopwatch()
    assert outcome_of(await say(bound_to_north, stream=True)) == (200, "spilled", "south")
    assert time.monotonic() - begun >= 0.9
    assert took() < 2.5


@pytest.mark.slow
@pytest.mark.parametrize("heartbeat", [15, 0.1])
async def test_stream_is_given_up_at_the_deadline_when_no_content_comes(
    gateway: Settings, only_north: Upstream, monkeypatch: pytest.MonkeyPatch, heartbeat: float
) -> None:
    """A provider's comments pass for an answer; its queue may be endless."""
    monkeypatch.setattr(relay, "PRELUDE_SECONDS", 0.1)
    gateway.SENTINEL_UPSTREAM_TIMEOUT_SECONDS = 0.6
    gateway.SENTINEL_HEARTBEAT_SECONDS = heartbeat

    def queues(exchange: Exchange) -> None:
        exchange.begin()
        for _ in range(50):
            exchange.chunk(b": queued\n\n")
            time.sleep(0.05)

    only_north.then(queues)
    begun, took = time.monotonic(), stopwatch()
    answered = await say("new", stream=True)
    assert answered.body.startswith(b": queued\n\n")
    assert b'"code":"upstream_timeout"' in answered.body.split(b"\n\n")[-2]
    assert time.monotonic() - begun >= 0.5
    assert took() < 1.5


@pytest.mark.slow
async def test_stream_may_last_longer_than_the_deadline_when_it_has_content(
    gateway: Settings, only_north: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "PRELUDE_SECONDS", 0.1)
    gateway.SENTINEL_UPSTREAM_TIMEOUT_SECONDS = 0.6

    def writes(exchange: Exchange) -> None:
        exchange.begin()
        exchange.chunk(b": queued\n\n")
        for _ in range(5):
            time.sleep(0.2)
            exchange.event({"content": "word"})
        exchange.end()

    only_north.then(writes)
    answered = await say("new", stream=True)
    assert answered.body.count(b"word") == 5
    assert answered.body.endswith(b"data: [DONE]\n\n")


async def test_plain_request_is_not_repeated_when_its_provider_hangs(
    bound_to_north: str, gateway: Settings, north: Upstream, south: Upstream
) -> None:
    gateway.SENTINEL_UPSTREAM_TIMEOUT_SECONDS = 0.2
    north.then(stalls)
    assert (await say(bound_to_north)).status == 504
    assert south.exchanges == []


@pytest.mark.parametrize(("allowed", "asked"), [(1, 1), (2, 2), (3, 3), (9, 4)])
async def test_request_is_tried_at_so_many_providers_as_are_allowed(
    gateway: Settings, north: Upstream, allowed: int, asked: int
) -> None:
    gateway.SENTINEL_MAX_ATTEMPTS = allowed
    names = ("north", "n-2", "n-3", "n-4")
    gateway.SENTINEL_PROVIDERS = tuple(msgspec.structs.replace(provider(north), name=name) for name in names)
    north.then(*[fails(500)] * 4)
    assert (await say("new")).status == 500
    assert len(north.exchanges) == asked


@pytest.mark.slow
async def test_few_further_attempts_are_in_flight_when_a_provider_fails_for_many_requests(
    bound_to_north: str, gateway: Settings, north: Upstream, south: Upstream
) -> None:
    """Three at a time here; the others wait and are served."""
    lock, running, most = threading.Lock(), set[int](), set[int]()

    def counts(exchange: Exchange) -> None:
        with lock:
            running.add(threading.get_ident())
            most.add(len(running))
        time.sleep(0.1)
        with lock:
            running.discard(threading.get_ident())
        answers(exchange)

    north.then(*[fails(500)] * 9)
    south.then(*[counts] * 9)
    answered = await asyncio.gather(*(say(bound_to_north) for _ in range(9)))
    assert {call.status for call in answered} == {200}
    assert max(most) == 3
    assert not process.load.requests


async def test_request_leaves_its_place_when_its_client_leaves_before_a_further_attempt(
    bound_to_north: str, gateway: Settings, north: Upstream
) -> None:
    gateway.SENTINEL_QUEUE_SECONDS = 30
    process.load.retries["model-a"].in_flight = 100
    north.then(fails(500))
    call = Call(chat(conversation_id=bound_to_north))
    answering = call.start()
    await until(lambda: process.load.gates["south"].in_flight == 1)
    call.leave()
    await answering
    assert process.load.gates["south"].in_flight == 0


@pytest.mark.parametrize("failure", [fails(503), stalls])
async def test_stream_leaves_its_place_at_its_end_when_another_provider_failed_first(
    bound_to_north: str, gateway: Settings, north: Upstream, failure: Behaviour
) -> None:
    """The garbage collector of a worker rarely runs, so nothing may wait for it."""
    gateway.SENTINEL_UPSTREAM_TIMEOUT_SECONDS = 1
    north.then(failure)
    gc.disable()
    try:
        assert outcome_of(await say(bound_to_north, stream=True)) == (200, "spilled", "south")
        await until(lambda: not process.load.gates["south"].in_flight)
    finally:
        gc.enable()
    assert not process.load.requests


async def test_requests_in_flight_are_counted_to_their_end(
    bound_to_north: str, gateway: Settings, north: Upstream
) -> None:
    call = Call(chat(conversation_id=bound_to_north, stream=True))
    await call.start()
    await until(lambda: not process.load.gates["north"].in_flight)
    north.then(stalls)
    left = Call(chat(conversation_id=bound_to_north, stream=True))
    task, before = left.start(), abandoned()
    await until(lambda: len(north.exchanges) == 2)
    assert process.load.gates["north"].in_flight == 1
    left.leave()
    await task
    assert process.load.gates["north"].in_flight == 0
    assert abandoned() == before + 1
    assert not process.load.sessions
