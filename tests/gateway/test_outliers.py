"""One request condemns no provider; requests that others answer do; and some provider is always asked."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from sentinel_project.gateway.providers.failures import Cools
from sentinel_project.gateway.providers.slots import Failure
from sentinel_project.gateway.routing import process
from sessions_sticky import sessions
from tests.gateway.asgi import Call, chat, outcome_of, say
from tests.gateway.upstreams import WAIT_SECONDS, Exchange, answers, breaks_off, fails, stalls
from tests.waiting import until

if TYPE_CHECKING:
    import redis
    from pytest_django import Settings

    from tests.gateway.upstreams import Behaviour, Upstream


@pytest.mark.parametrize(
    "poison", [fails(500), fails(503), breaks_off(), Exchange.cut], ids=["500", "503", "broken", "cut"]
)
async def test_others_are_served_by_their_providers_when_one_request_makes_each_fail(
    bound_to_north: str, north: Upstream, south: Upstream, poison: Behaviour
) -> None:
    sessions.create("souths", "south", "model-a", "ann")
    for _ in range(5):
        north.then(poison, poison)
        south.then(poison, poison)
        assert (await say("poison")).status >= 500
        north.clear()
        south.clear()
        assert outcome_of(await say(bound_to_north)) == (200, "hit", "north")
        assert outcome_of(await say("souths")) == (200, "hit", "south")
    assert not process.health.failing()


@pytest.mark.parametrize("failure", [fails(500), breaks_off()], ids=["status", "broken"])
async def test_provider_cools_down_when_requests_fail_that_another_one_answers(
    gateway: Settings, session_cache: redis.Redis, north: Upstream, failure: Behaviour
) -> None:
    for number in range(3):
        sessions.create(f"conv-{number}", "north", "model-a", "ann")
        assert not process.health.is_cooling("north", "model-a")
        north.then(failure)
        assert outcome_of(await say(f"conv-{number}")) == (200, "spilled", "south")
    assert process.health.is_cooling("north", "model-a")


@pytest.mark.parametrize(
    "failing", [fails(500), fails(429), fails(401), breaks_off()], ids=["500", "429", "401", "broken"]
)
async def test_provider_that_is_due_first_is_asked_when_all_cool_down(
    bound_to_north: str, north: Upstream, south: Upstream, failing: Behaviour
) -> None:
    process.health.failed("south", "model-a", Failure(Cools.PROVIDER))
    process.health.failed("north", "model-a", Failure(Cools.ACCOUNT))
    for conversation_id in (bound_to_north, "fresh"):
        assert outcome_of(await say(conversation_id))[::2] == (200, "south")
        process.health.failed("south", "model-a", Failure(Cools.PROVIDER))
    south.then(failing)
    assert (await say(bound_to_north)).status >= 429
    assert north.exchanges == []


async def test_chat_answers_429_with_the_shortest_time_when_all_state_one(
    bound_to_north: str, north: Upstream, south: Upstream
) -> None:
    north.then(fails(429, Retry_After="300"))
    south.then(fails(503, Retry_After="40"))
    assert (await say(bound_to_north)).status == 429
    for conversation_id in (bound_to_north, "fresh"):
        answered = await say(conversation_id)
        assert (answered.status, answered.error["code"]) == (429, "rate_limit_exceeded")
        assert 38 <= int(answered.headers["retry-after"]) <= 40
    assert await sessions.aget("fresh") is None
    assert len(north.exchanges) == len(south.exchanges) == 1


@pytest.mark.slow
async def test_few_requests_are_in_flight_to_a_provider_that_is_asked_while_it_cools_down(
    gateway: Settings, only_north: Upstream
) -> None:
    process.health.failed("north", "model-a", Failure(Cools.PROVIDER))
    release = threading.Event()

    def answers_later(exchange: Exchange) -> None:
        release.wait(WAIT_SECONDS)
        answers(exchange)

    only_north.then(*[answers_later] * 4)
    running = [asyncio.create_task(say(f"conv-{number}")) for number in range(7)]
    await until(lambda: len(only_north.exchanges) == 4)
    await asyncio.sleep(0.2)
    assert len(only_north.exchanges) == 4
    release.set()
    assert {call.status for call in await asyncio.gather(*running)} == {200}
    assert not process.health.failing()


@pytest.mark.slow
async def test_chat_answers_503_when_a_provider_that_cools_down_keeps_all_waiting(
    gateway: Settings, only_north: Upstream
) -> None:
    gateway.SENTINEL_QUEUE_SECONDS = 0.1
    process.health.failed("north", "model-a", Failure(Cools.PROVIDER))
    only_north.then(*[stalls] * 4)
    running = [Call(chat(conversation_id=f"conv-{number}")) for number in range(4)]
    tasks = [call.start() for call in running]
    await until(lambda: len(only_north.exchanges) == 4)
    answered = await say("late")
    assert (answered.status, answered.error["code"]) == (503, "no_provider")
    assert answered.headers["retry-after"]
    for call in running:
        call.leave()
    await asyncio.gather(*tasks)
    assert outcome_of(await say("late"))[::2] == (200, "north")
