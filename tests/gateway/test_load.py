"""Load: bounded first choices, limits of providers with a short queue, slow providers."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING

import pytest

from sentinel_project.gateway.providers.config import Provider
from sentinel_project.gateway.providers.failures import Cools
from sentinel_project.gateway.providers.health import Failure
from sentinel_project.gateway.providers.load import SLOW_EXCESSES, SLOW_TRY_SECONDS, Gate, Load, Pace
from sentinel_project.gateway.routing import process
from sentinel_project.gateway.routing.reasons import Spill
from sessions_sticky import rendezvous
from tests.gateway.asgi import ask, chat, outcome_of, say
from tests.gateway.conftest import provider
from tests.gateway.upstreams import WAIT_SECONDS, Exchange, answers, fails
from tests.waiting import stopwatch, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_django import Settings

    from tests.gateway.upstreams import Upstream


class Later:
    """Answers when `release` is set."""

    def __init__(self) -> None:
        self.release = threading.Event()

    def __call__(self, exchange: Exchange) -> None:
        self.release.wait(WAIT_SECONDS)
        answers(exchange)


@pytest.fixture
def later() -> Iterator[Later]:
    behaviour = Later()
    yield behaviour
    behaviour.release.set()


async def test_gate_admits_owners_in_turn() -> None:
    gate, admitted = Gate(), list[str]()

    async def enter(owner: str) -> None:
        assert await gate.enter(owner, lambda: 1, wait_seconds=5)
        admitted.append(owner)

    await enter("first")
    tasks = [asyncio.create_task(enter(owner)) for owner in ("ann", "ann", "ann", "ben", "cid")]
    await asyncio.sleep(0)
    for _ in range(6):
        gate.leave()
        await asyncio.sleep(0.01)
    await asyncio.gather(*tasks)
    assert admitted == ["first", "ann", "ben", "cid", "ann", "ann"]
    assert gate.in_flight == 0


async def test_gate_refuses_when_its_queue_is_full_or_the_wait_is_over() -> None:
    gate = Gate()
    assert await gate.enter("ann", lambda: 1)
    assert not await gate.enter("ann", lambda: 1)
    waiting = asyncio.create_task(gate.enter("ann", lambda: 1, wait_seconds=0.1, max_queued=1))
    await asyncio.sleep(0)
    assert not await gate.enter("ben", lambda: 1, wait_seconds=5, max_queued=1)
    assert await waiting is False
    gate.leave()
    assert await gate.enter("ben", lambda: 1)


async def test_gate_keeps_no_place_for_a_request_that_is_cancelled() -> None:
    gate = Gate()
    assert await gate.enter("ann", lambda: 1)
    early, late = (asyncio.create_task(gate.enter("ann", lambda: 1, wait_seconds=5)) for _ in range(2))
    await asyncio.sleep(0)
    early.cancel()
    await asyncio.sleep(0)
    gate.leave()
    late.cancel()  # at the moment of its admission
    await asyncio.gather(early, late, return_exceptions=True)
    assert gate.in_flight == 0
    assert await gate.enter("ann", lambda: 1)


@pytest.mark.parametrize(
    ("weights", "in_flight", "is_overfull"),
    [
        ((1, 1), (3, 0), False),
        ((1, 1), (4, 0), True),
        ((1, 1), (6, 6), False),
        ((1, 1), (9, 5), False),
        ((1, 1), (10, 4), True),
        ((3, 1), (12, 4), False),
        ((3, 1), (4, 12), False),
        ((1, 3), (6, 6), True),
    ],
)
def test_provider_is_overfull_when_it_has_a_quarter_more_than_its_share(
    weights: tuple[int, int], in_flight: tuple[int, int], is_overfull: bool
) -> None:
    load = Load()
    names = ("north", "south")
    providers = [
        Provider(name=name, base_url=None, api_key=None, models=(), weight=weight)
        for name, weight in zip(names, weights, strict=True)
    ]
    for name, count in zip(names, in_flight, strict=True):
        load.gates[name].in_flight = count
    assert ("north" in load.overfull(providers)) is is_overfull


async def test_new_conversation_skips_a_provider_with_more_than_its_share(
    gateway: Settings, north: Upstream, south: Upstream, later: Later
) -> None:
    """Ranking alone would send all of them to north."""
    gateway.SENTINEL_PROVIDERS = (provider(north, weight=1.01), provider(south))
    weights = {"north": 1.01, "south": 1}
    ids = [each for each in (f"conv-{number}" for number in range(60)) if rendezvous(each, weights)[0] == "north"]
    north.then(*[later] * 60)
    south.then(*[later] * 60)
    tasks = []
    for each in ids[:12]:
        tasks.append(asyncio.create_task(say(each)))
        await until(lambda: len(north.exchanges) + len(south.exchanges) == len(tasks))
    later.release.set()
    answered = await asyncio.gather(*tasks)
    assert {call.headers["x-session-outcome"] for call in answered} == {"created"}
    assert 4 <= sum(outcome_of(call)[2] == "north" for call in answered) <= 8
    again = await asyncio.gather(*(say(each) for each in ids[:12]))
    assert [outcome_of(call)[2] for call in again] == [outcome_of(call)[2] for call in answered]


@pytest.mark.parametrize(("workers", "most"), [(1, 3), (2, 1), (9, 1)])
async def test_provider_gets_no_more_requests_than_its_limit_allows(
    bound_to_north: str, gateway: Settings, north: Upstream, south: Upstream, later: Later, workers: int, most: int
) -> None:
    gateway.SENTINEL_QUEUE_SECONDS = 0.2
    gateway.SENTINEL_PROVIDERS = (provider(north, max_in_flight=3), provider(south))
    process.load.workers = workers
    north.then(*[later] * 9)
    tasks = [asyncio.create_task(say(bound_to_north)) for _ in range(9)]
    await until(lambda: sum(task.done() for task in tasks) == 9 - most)
    assert len(north.exchanges) == most
    later.release.set()
    outcomes = sorted(outcome_of(call)[:2] for call in await asyncio.gather(*tasks))
    assert outcomes == [(200, "hit")] * most + [(200, "spilled")] * (9 - most)


async def test_bound_conversation_waits_for_a_place_and_gets_it(
    bound_to_north: str, gateway: Settings, north: Upstream, south: Upstream, later: Later
) -> None:
    gateway.SENTINEL_QUEUE_SECONDS = 5
    gateway.SENTINEL_PROVIDERS = (provider(north, max_in_flight=1), provider(south))
    north.then(later)
    tasks = [asyncio.create_task(say(bound_to_north)) for _ in range(2)]
    await until(lambda: north.exchanges)
    later.release.set()
    assert {outcome_of(call) for call in await asyncio.gather(*tasks)} == {(200, "hit", "north")}


async def test_chat_answers_429_when_all_providers_are_full(
    gateway: Settings, north: Upstream, south: Upstream, later: Later
) -> None:
    gateway.SENTINEL_QUEUE_SECONDS = 0
    gateway.SENTINEL_PROVIDERS = tuple(provider(each, max_in_flight=1) for each in (north, south))
    north.then(later)
    south.then(later)
    tasks = [asyncio.create_task(say(f"conv-{number}")) for number in range(2)]
    await until(lambda: north.exchanges and south.exchanges)
    answered = await say("third")
    assert (answered.status, answered.error["code"]) == (429, "rate_limit_exceeded")
    assert answered.headers["retry-after"] == "1"
    later.release.set()
    await asyncio.gather(*tasks)


async def test_content_session_is_spread_when_more_than_four_of_its_requests_are_in_flight(
    gateway: Settings, north: Upstream, south: Upstream, later: Later
) -> None:
    messages = [{"role": role, "content": "hello"} for role in ("user", "assistant", "user")]
    bound = outcome_of(await ask(chat(messages=messages)))
    north.then(*[later] * 12)
    south.then(*[later] * 12)
    tasks = []
    for _ in range(12):
        tasks.append(asyncio.create_task(ask(chat(messages=messages))))
        await until(lambda: len(north.exchanges) + len(south.exchanges) == 1 + len(tasks))
    later.release.set()
    calls = await asyncio.gather(*tasks)
    answered = [outcome_of(call) for call in calls]
    assert {call.headers.get("x-session-reason") for call in calls} == {None, Spill.LOAD}
    assert bound[1] == "created"
    assert 4 <= answered.count((200, "hit", bound[2])) <= 8
    assert {outcome for _, outcome, _ in answered} == {"hit", "spilled"}


def test_pace_is_slow_after_three_excesses_in_a_row_and_tried_twice_a_minute() -> None:
    pace = Pace()
    for _ in range(2):
        for _ in range(SLOW_EXCESSES - 1):
            pace.record(100, is_late=True)
        pace.record(100, is_late=False)
    assert not pace.is_slow(100)
    for _ in range(SLOW_EXCESSES):
        assert not pace.is_slow(100)
        pace.begin(99)
        pace.record(100, is_late=True)
    assert pace.is_slow(100)
    assert pace.is_slow(100 + SLOW_TRY_SECONDS - 1)
    assert not pace.is_slow(100 + SLOW_TRY_SECONDS)
    pace.begin(100 + SLOW_TRY_SECONDS)  # one tries
    assert pace.is_slow(100 + SLOW_TRY_SECONDS)
    pace.record(100 + SLOW_TRY_SECONDS + 1, is_late=False)
    assert not pace.is_slow(100 + SLOW_TRY_SECONDS + 1)


def begins_late(exchange: Exchange) -> None:
    time.sleep(0.5)
    answers(exchange)


@pytest.mark.slow
async def test_stream_spills_once_when_its_provider_begins_late(
    bound_to_north: str, gateway: Settings, north: Upstream, south: Upstream
) -> None:
    gateway.SENTINEL_PROVIDERS = (provider(north, first_byte_seconds=0.2), provider(south, first_byte_seconds=0.2))
    for _ in range(SLOW_EXCESSES):
        north.then(begins_late)
        south.then(begins_late)
        begun, took = time.monotonic(), stopwatch()
        assert outcome_of(await say(bound_to_north, stream=True)) == (200, "spilled", "south")
        assert time.monotonic() - begun >= 0.6
        assert took() < 2
        south.clear()
        process.load.paces["south"].record(time.monotonic(), is_late=False)
    assert not process.health.failing()
    asked = len(north.exchanges)
    assert outcome_of(await say(bound_to_north, stream=True)) == (200, "spilled", "south")
    assert outcome_of(await say(bound_to_north)) == (200, "spilled", "south")
    assert len(north.exchanges) == asked


@pytest.mark.slow
async def test_late_stream_is_waited_for_when_there_is_no_other_provider(
    bound_to_north: str, gateway: Settings, north: Upstream
) -> None:
    gateway.SENTINEL_PROVIDERS = (provider(north, first_byte_seconds=0.1),)
    north.then(begins_late)
    assert outcome_of(await say(bound_to_north, stream=True)) == (200, "hit", "north")


REFUSES = {"error": {"message": "Rate limit reached", "code": "rate_limit_exceeded"}}


@pytest.mark.slow
async def test_conversation_waits_for_its_provider_that_asks_for_a_moment(bound_to_north, north, south):
    """Its prompt is cached there, and would have to be computed again elsewhere."""
    north.then(fails(429, REFUSES, **{"retry-after-ms": "900"}))
    assert outcome_of(await say(bound_to_north)) == (200, "spilled", "south")
    began = time.monotonic()
    assert outcome_of(await say(bound_to_north)) == (200, "hit", "north")
    assert time.monotonic() - began > 0.1


async def test_conversation_spills_when_its_provider_asks_for_longer(bound_to_north, north, south):
    north.then(fails(429, REFUSES, **{"retry-after-ms": "5000"}))
    assert outcome_of(await say(bound_to_north)) == (200, "spilled", "south")
    assert outcome_of(await say(bound_to_north)) == (200, "spilled", "south")


@pytest.mark.slow
async def test_conversation_spills_when_its_provider_refuses_again_while_it_waits(
    bound_to_north, north, south, monkeypatch
):
    waits = asyncio.Event()
    monkeypatch.setattr("random.uniform", lambda low, high: waits.set() or high)  # draws how long it waits
    north.then(fails(429, REFUSES, **{"retry-after-ms": "900"}))
    await say(bound_to_north)
    waiting = asyncio.create_task(say(bound_to_north))
    await waits.wait()
    process.health.failed("north", "model-a", Failure(Cools.MODEL, 5))
    reply = await waiting
    assert outcome_of(reply) == (200, "spilled", "south")
    assert reply.headers["x-session-reason"] == Spill.FULL
    assert len(north.exchanges) == 1


async def test_new_conversation_does_not_wait(gateway, north, south):
    north.then(fails(429, REFUSES, **{"retry-after-ms": "900"}))
    took = stopwatch()
    replies = [outcome_of(await say(f"new-{number}"))[2] for number in range(8)]
    assert set(replies) == {"south"}
    assert took() < 0.9


async def test_one_request_tries_a_provider_when_several_come_as_its_cooldown_ends(
    bound_to_north: str, gateway: Settings, north: Upstream, later: Later
) -> None:
    gateway.SENTINEL_QUEUE_SECONDS = 0
    north.then(fails(429))
    await say(bound_to_north)
    process.health.end_cooldowns("north")
    north.then(later)
    asked = [asyncio.create_task(say(bound_to_north)) for _ in range(5)]
    await until(lambda: sum(task.done() for task in asked) == 4)
    later.release.set()
    outcomes = sorted([outcome_of(await task) for task in asked])
    assert outcomes == [(200, "hit", "north"), *[(200, "spilled", "south")] * 4]
    assert len(north.exchanges) == 2
