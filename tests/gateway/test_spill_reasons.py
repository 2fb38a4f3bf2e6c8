"""A spill has a reason: in the header, the log line and the trail."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from sentinel_project.gateway.providers.load import SLOW_EXCESSES
from sentinel_project.gateway.routing import process
from sentinel_project.gateway.routing.reasons import LOST, Spill
from sentinel_project.gateway.turns.recorder import recorder
from sessions_sticky import SessionStoreUnavailable, sessions
from tests.gateway.asgi import Call, request_lines, say
from tests.gateway.conftest import provider
from tests.gateway.upstreams import Exchange, answers, fails
from tests.waiting import until

if TYPE_CHECKING:
    from pytest_django import Settings

    from tests.gateway.upstreams import Upstream


def reason_of(call: Call) -> tuple[str, str]:
    return call.headers["x-session-outcome"], call.headers["x-session-reason"]


def begins_late(exchange: Exchange) -> None:
    time.sleep(0.5)
    answers(exchange)


async def test_reason_is_in_header_log_and_trail(
    bound_to_north: str, north: Upstream, south: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    north.then(fails(429))
    calls = [await say(bound_to_north) for _ in range(2)]
    assert [reason_of(call) for call in calls] == [("spilled", Spill.FAILED), ("spilled", Spill.COOLING)]
    assert [line["reason"] for line in request_lines(caplog)] == [Spill.FAILED, Spill.COOLING]
    await recorder.flush()
    assert [turn.reason for turn in (await sessions.atrail(bound_to_north)).turns] == [Spill.FAILED, Spill.COOLING]


async def test_hit_has_no_reason(bound_to_north: str) -> None:
    assert "x-session-reason" not in (await say(bound_to_north)).headers


async def test_rebind_has_its_reason(bound_to_north: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process.health, "is_lost", lambda name: name == "north")
    monkeypatch.setattr(process.health, "is_cooling", lambda name, model: name == "north")
    call = await say(bound_to_north)
    assert reason_of(call) == ("rebound", LOST)


@pytest.mark.slow
async def test_spill_has_a_reason_when_the_provider_is_full(
    bound_to_north: str, gateway: Settings, north: Upstream, south: Upstream
) -> None:
    gateway.SENTINEL_QUEUE_SECONDS = 0
    gateway.SENTINEL_PROVIDERS = (provider(north, max_in_flight=1), provider(south))
    north.then(begins_late)
    first = asyncio.create_task(say(bound_to_north))
    await until(lambda: north.exchanges)
    assert reason_of(await say(bound_to_north)) == ("spilled", Spill.FULL)
    assert (await first).headers["x-session-outcome"] == "hit"


@pytest.mark.slow
async def test_spill_has_a_reason_when_the_provider_is_slow(
    bound_to_north: str, gateway: Settings, north: Upstream, south: Upstream
) -> None:
    gateway.SENTINEL_PROVIDERS = (provider(north, first_byte_seconds=0.1), provider(south))
    north.then(*[begins_late] * (SLOW_EXCESSES + 1))
    for _ in range(SLOW_EXCESSES + 1):
        assert reason_of(await say(bound_to_north, stream=True)) == ("spilled", Spill.SLOW)
    asked = len(north.exchanges)
    assert reason_of(await say(bound_to_north)) == ("spilled", Spill.SLOW)
    assert len(north.exchanges) == asked


async def test_spill_has_a_reason_when_the_provider_does_not_speak_the_api(
    bound_to_north: str, gateway: Settings, north: Upstream, south: Upstream
) -> None:
    gateway.SENTINEL_PROVIDERS = (provider(north, apis=("messages",)), provider(south))
    assert reason_of(await say(bound_to_north)) == ("spilled", Spill.API)


async def test_spill_has_a_reason_when_no_provider_has_the_model_by_the_api(
    bound_to_north: str, gateway: Settings, north: Upstream, south: Upstream
) -> None:
    gateway.SENTINEL_PROVIDERS = (provider(north, apis=("messages",)), provider(south, models=("model-b",)))
    assert reason_of(await say(bound_to_north, model="model-b")) == ("spilled", Spill.API)


async def test_spill_has_a_reason_when_the_move_fails(
    bound_to_north: str, gateway: Settings, south: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*args: object, **fields: object) -> None:
        raise SessionStoreUnavailable("down")

    gateway.SENTINEL_PROVIDERS = (provider(south),)
    monkeypatch.setattr(sessions, "arebind", fail)
    assert reason_of(await say(bound_to_north)) == ("spilled", Spill.NOT_MOVED)
