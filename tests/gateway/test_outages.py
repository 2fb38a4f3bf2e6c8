"""The history of outages of a provider."""

from __future__ import annotations

import asyncio
import time

import pytest
import redis
from django.core.cache import cache
from django.test import Client
from pytest_django import Settings

from sentinel_project.gateway.providers import outages
from sentinel_project.gateway.providers.config import Provider
from sentinel_project.gateway.providers.failures import Cools
from sentinel_project.gateway.providers.health import Health
from sentinel_project.gateway.providers.outages import KEPT, Outage, read, record_forever
from sentinel_project.gateway.providers.slots import Failure
from sessions_sticky import SessionStoreUnavailable, Turn, cache_config, sessions
from tests.servers import free_port
from tests.waiting import until

DOWN = Failure(Cools.PROVIDER, error="HTTP 503")
NORTH = Provider(name="north", base_url="https://north.invalid/v1", api_key=None, models=("a",), weight=1)


@pytest.fixture(autouse=True)
def _quick(session_cache: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outages, "SETTLE_SECONDS", 0.05)


def turn(outcome: str, reason: str = "") -> Turn:
    route = {"provider": "south", "bound_provider": "north", "model": "a"}
    return Turn(conversation_id=None, at=1, outcome=outcome, reason=reason, **route)


async def record(*healths: Health) -> None:
    """Let workers meet the same outage, and wait until it is recorded."""
    tasks = [asyncio.create_task(record_forever(health)) for health in healths]
    await asyncio.sleep(0)
    for health in healths:
        health.failed("north", "a", DOWN)
    for health in healths:
        health.answered("north", "a", health.now())
    before = len(await asyncio.to_thread(read, "north"))
    await asyncio.sleep(0.1)
    await until(lambda: len(read("north")) > before)
    await asyncio.sleep(0.1)
    for task in tasks:
        task.cancel()


def worker() -> Health:
    return Health(30, lambda: (NORTH,))


async def test_outage_has_its_times_error_and_consequences():
    for each in (turn("spilled"), turn("spilled"), turn("rebound", "prompt cache expired"), turn("hit")):
        await sessions.arecord_turn(each)
    await record(worker(), worker())  # both meet it: it is one
    (found,) = await asyncio.to_thread(read, "north")
    assert (found.error, found.spilled, found.moved) == ("HTTP 503", 2, 1)
    assert abs(found.began_at - time.time()) < 5
    assert found.began_at <= found.ended_at <= time.time()


def test_outages_are_capped_and_the_latest_is_first():
    for number in range(KEPT + 5):
        outages._record("north", 1_000.0 * number, 1_000.0 * number + 5, "x")
    found = read("north")
    assert len(found) == KEPT
    assert found[0].began_at == 1_000.0 * (KEPT + 4)


@pytest.mark.parametrize("junk", ["text", [1], [{"began_at": -1}], {"a": 1}])
def test_outages_of_another_program_are_ignored(junk: object):
    cache.set("sentinel:provider-outages:north", junk)
    assert read("north") == []


@pytest.mark.parametrize("junk", [b"{", b"\xff", b"[" * 100_000, b"", {"a": "hash"}])
def test_outage_replaces_what_cannot_be_read(session_cache: redis.Redis, junk: bytes | dict[str, str]):
    key = "sentinel:provider-outages:north"
    session_cache.hset(key, mapping=junk) if isinstance(junk, dict) else session_cache.set(key, junk)
    outages._record("north", 5.0, 9.0, "x")
    assert [each.error for each in read("north")] == ["x"]


def test_outage_is_recorded_when_its_consequences_are_unknown(monkeypatch: pytest.MonkeyPatch):
    def refuse(minutes: int) -> None:
        raise SessionStoreUnavailable("gone")

    monkeypatch.setattr(sessions, "activity", refuse)
    outages._record("north", 5.0, 9.0, "x")
    assert read("north") == [Outage(5.0, 9.0, "x", 0, 0)]


async def test_worker_continues_when_an_outage_cannot_be_recorded(settings: Settings, caplog: pytest.LogCaptureFixture):
    health = worker()
    task = asyncio.create_task(record_forever(health))
    await asyncio.sleep(0)
    settings.CACHES = {"default": cache_config(f"redis://127.0.0.1:{free_port()}/0")}
    health.failed("north", "a", DOWN)
    health.answered("north", "a", health.now())
    await until(lambda: "outage of provider 'north' not recorded" in caplog.text)
    assert not task.done()
    task.cancel()


@pytest.mark.django_db
def test_page_shows_the_outages(settings: Settings, admin_client: Client):
    settings.SENTINEL_PROVIDERS = (NORTH,)
    outages._record("north", 1_700_000_000.0, 1_700_000_090.0, "HTTP 503 <b>")
    page = admin_client.get("/admin/sessions_sticky/session/providers/").text
    assert "2023-11-14 22:13:20" in page
    assert "2023-11-14 22:14:50" in page
    assert "HTTP 503 &lt;b&gt;" in page
