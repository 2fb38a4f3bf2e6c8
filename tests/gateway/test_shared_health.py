"""What one worker learns of a provider, the others know within a second."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from asgiref.sync import sync_to_async

from sentinel_project.gateway.providers import health_sync as shared_health
from sentinel_project.gateway.providers.config import Provider
from sentinel_project.gateway.providers.health import Health
from sentinel_project.gateway.providers.health_sync import probe_forever, share_forever
from sessions_sticky import cache_config
from tests.gateway.conftest import provider
from tests.gateway.upstreams import Upstream, fails
from tests.servers import free_port, start_server

if TYPE_CHECKING:
    import redis
    from pytest_django import Settings

KEY = "sentinel:provider:north"


@pytest.fixture
def north_alone(north: Upstream) -> list[Provider]:
    return [provider(north)]


@asynccontextmanager
async def sharing(providers: list[Provider], *healths: Health) -> AsyncIterator[None]:
    """Share between workers, each of which has one `Health`."""
    tasks = [asyncio.create_task(share_forever(health, lambda: providers, "default")) for health in healths]
    await asyncio.sleep(0)  # they have begun
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until(condition: Callable[[], object], seconds: float = 1.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - made so by a thread
            await asyncio.sleep(0.01)


async def other_worker_knows(providers: list[Provider]) -> None:
    """Let one of two workers meet a failure, and wait until the other knows."""
    one, other = Health(30), Health(30)
    async with sharing(providers, one, other):
        one.failed("north")
        await until(lambda: other.is_cooling("north"))


@pytest.mark.usefixtures("session_cache")
async def test_other_worker_knows_within_a_second_when_one_learns(north_alone: list[Provider]) -> None:
    one, other = Health(30), Health(30)
    async with sharing(north_alone, one, other):
        one.failed("north", retry_after=100)
        await until(lambda: other.is_cooling("north"))
        assert 98 < other.seconds_left("north") <= 100
        other.answered("north")
        await until(lambda: not one.is_cooling("north"))


@pytest.mark.usefixtures("session_cache")
async def test_other_worker_knows_within_a_second_when_the_database_stalls(north_alone: list[Provider]) -> None:
    answers = threading.Event()
    stalled = asyncio.create_task(sync_to_async(answers.wait)(30))
    await asyncio.sleep(0)
    try:
        await other_worker_knows(north_alone)
    finally:
        answers.set()
        await stalled


@pytest.mark.usefixtures("session_cache")
async def test_other_worker_knows_within_a_second_when_names_are_looked_up_without_end(
    north_alone: list[Provider],
) -> None:
    answers = threading.Event()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(max_workers=1))  # that of getaddrinfo
    stalled = loop.run_in_executor(None, answers.wait, 30)
    try:
        await other_worker_knows(north_alone)
    finally:
        answers.set()
        await stalled


async def test_newcomer_knows_at_once_when_others_have_told(
    session_cache: redis.Redis, north_alone: list[Provider]
) -> None:
    one, newcomer = Health(30), Health(30)
    async with sharing(north_alone, one):
        one.failed("north")
        await until(lambda: session_cache.exists(KEY))
    assert 0 < session_cache.ttl(KEY) <= shared_health.KEEP_SECONDS
    async with sharing(north_alone, newcomer):
        await until(lambda: newcomer.is_cooling("north"))


@pytest.mark.parametrize("junk", [b"[]", b'{"failures": "x"}', b"3", b'"text"', b"null"])
async def test_junk_is_passed_over_when_another_program_wrote_it(
    session_cache: redis.Redis, north_alone: list[Provider], junk: bytes
) -> None:
    session_cache.set(KEY, junk)
    await other_worker_knows(north_alone)


@pytest.mark.parametrize("field", ["cooled_at", "cooling_until", "failing_since", "failed_at", "at"])
@pytest.mark.parametrize("seconds", ["1e300", "4e9", "Infinity", "NaN", "-1e300"])
def test_condition_is_passed_over_when_it_cannot_be_true(session_cache: redis.Redis, field: str, seconds: str) -> None:
    now = f'"cooling_until": {time.time() + 30}, "at": {time.time()}'
    session_cache.set(KEY, f'{{"failures": 1, {now}, "{field}": {seconds}}}')
    assert shared_health.read("default", ["north"]) == {}
    session_cache.set(KEY, f'{{"failures": 1, {now}}}')
    assert shared_health.read("default", ["north"])["north"].failures == 1


async def test_failures_are_counted_on_when_another_program_wrote_a_huge_number(
    session_cache: redis.Redis, north_alone: list[Provider]
) -> None:
    session_cache.set(KEY, f'{{"failures": {10**30}, "at": {time.time()}}}')
    health = Health(30)
    async with sharing(north_alone, health):
        await until(lambda: health.conditions)
        health.failed("north")
        assert 0 < health.seconds_left("north") <= 300


async def test_workers_agree_again_when_the_cache_is_back(
    settings: Settings, north_alone: list[Provider], caplog: pytest.LogCaptureFixture
) -> None:
    with start_server() as server:
        settings.CACHES = {"default": cache_config(server.url)}
        one, other = Health(30), Health(30)
        async with sharing(north_alone, one, other):
            server.kill()
            with caplog.at_level(logging.WARNING):
                one.failed("north")
                await until(lambda: len(caplog.records) == 2)
            assert one.is_cooling("north")
            assert not other.is_cooling("north")
            server.start()
            await until(lambda: other.is_cooling("north"), 2)
        assert len(caplog.records) == 2  # one warning of each worker, however long it lasts


@pytest.mark.usefixtures("session_cache")
async def test_recovery_is_not_undone_when_a_worker_that_has_not_heard_of_it_probes(
    north_alone: list[Provider],
) -> None:
    one, other = Health(30), Health(30)
    async with sharing(north_alone, one, other):
        one.failed("north", retry_after=100)
        await until(lambda: other.is_cooling("north"))
        one.answered("north")
        other.probed("north", alive=True)
        await until(lambda: not other.is_cooling("north"))
        await asyncio.sleep(0.1)
        assert not one.is_cooling("north")


async def test_longer_cooldown_is_not_cut_short_when_another_worker_probes() -> None:
    one, other = Health(30), Health(30)
    one.failed("north")
    other.learn("north", one.conditions["north"])
    one.failed("north", retry_after=1000)
    other.probed("north", alive=True)
    one.learn("north", other.conditions["north"])
    assert one.seconds_left("north") > 900


@pytest.mark.parametrize(("answer", "alive"), [(200, True), (401, True), (404, True), (429, True), (500, False)])
async def test_probe_takes_any_answer_below_500_for_life(
    north: Upstream, north_alone: list[Provider], monkeypatch: pytest.MonkeyPatch, answer: int, alive: bool
) -> None:
    monkeypatch.setattr(shared_health, "PROBE_SECONDS", 0.01)
    health = Health(30)
    health.failed("north")
    before = health.conditions["north"]
    north.then(*[fails(answer)] * 1000)
    task = asyncio.create_task(probe_forever(health, lambda: north_alone))
    await until(lambda: health.conditions["north"] is not before)
    task.cancel()
    assert (health.conditions["north"].failing_since == 0) is alive
    assert health.is_cooling("north")  # the cooldown stays
    assert north.exchanges[0].path == "/v1/models"
    assert north.exchanges[0].command == "GET"


async def test_probe_asks_only_those_that_fail(
    north: Upstream, south: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_health, "PROBE_SECONDS", 0.01)
    health = Health(30)
    dead = Provider(name="dead", base_url=f"http://127.0.0.1:{free_port()}/v1", api_key=None, models=("m",), weight=1)
    health.failed("dead")
    before = health.conditions["dead"]
    task = asyncio.create_task(probe_forever(health, lambda: [provider(north), dead, provider(south)]))
    await until(lambda: health.conditions["dead"] is not before)
    task.cancel()
    assert health.conditions["dead"].failing_since > 0
    assert north.exchanges == south.exchanges == []
