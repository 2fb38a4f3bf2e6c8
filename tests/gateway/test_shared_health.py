"""What one worker learns of a provider, the others know within a second."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from itertools import product
from typing import TYPE_CHECKING

import msgspec
import pytest
from asgiref.sync import sync_to_async

from sentinel_project.gateway import shared_cache
from sentinel_project.gateway.providers import health_sync
from sentinel_project.gateway.providers.config import Provider
from sentinel_project.gateway.providers.failures import Cools
from sentinel_project.gateway.providers.health import Health
from sentinel_project.gateway.providers.health_sync import States, share_forever
from sentinel_project.gateway.providers.slots import PROVIDER, Failure, model_slot
from sentinel_project.gateway.upstream import probes
from sentinel_project.gateway.upstream.probes import probe_forever
from tests.conftest import patient_config
from tests.gateway.conftest import provider
from tests.gateway.upstreams import Upstream, fails
from tests.servers import free_port, start_server
from tests.waiting import stopwatch, until

if TYPE_CHECKING:
    import redis
    from pytest_django import Settings

MODEL = "model-a"
DOWN = Failure(Cools.PROVIDER)
LIMITED = Failure(Cools.MODEL, retry_after=100, is_alive=True)


def worker() -> Health:
    return Health(30, lambda: ())


def cools(health: Health) -> bool:
    return health.is_cooling("north", MODEL)


@pytest.fixture
def north_alone(north: Upstream) -> list[Provider]:
    return [provider(north)]


@asynccontextmanager
async def sharing(providers: list[Provider], *healths: Health) -> AsyncIterator[None]:
    """Share between workers, each of which has one `Health`."""
    tasks = [asyncio.create_task(share_forever(health, lambda: providers)) for health in healths]
    await asyncio.sleep(0)  # they have begun
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def other_worker_knows(providers: list[Provider]) -> None:
    """Let one of two workers meet a failure, and wait until the other knows."""
    one, other = worker(), worker()
    async with sharing(providers, one, other):
        one.failed("north", MODEL, DOWN)
        await until(lambda: cools(other))


@pytest.mark.slow
@pytest.mark.usefixtures("session_cache")
async def test_other_worker_knows_within_a_second_when_one_learns(north_alone: list[Provider]) -> None:
    one, other = worker(), worker()
    async with sharing(north_alone, one, other):
        one.failed("north", MODEL, LIMITED)
        await until(lambda: cools(other))
        assert 98 < other.seconds_left("north", MODEL) <= 100
        other.answered("north", MODEL, other.now())
        await until(lambda: not cools(one))


@pytest.mark.slow
@pytest.mark.usefixtures("session_cache")
async def test_other_worker_knows_the_error_and_since_when_a_provider_fails(north_alone: list[Provider]) -> None:
    one, other = worker(), worker()
    async with sharing(north_alone, one, other):
        one.failed("north", MODEL, DOWN._replace(error="HTTP 503 overloaded"))
        await until(lambda: cools(other))
        assert other.last_error("north") == "HTTP 503 overloaded"
        since, mine = other.unanswered_since("north"), one.unanswered_since("north")
        assert since is not None
        assert mine is not None
        assert abs(since - mine) < 0.1


@pytest.mark.slow
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


@pytest.mark.slow
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


async def test_new_worker_loads_the_shared_state_at_once(
    session_cache: redis.Redis, north_alone: list[Provider]
) -> None:
    one, newcomer = worker(), worker()
    async with sharing(north_alone, one):
        one.failed("north", MODEL, DOWN)
        await until(lambda: session_cache.exists(health_sync.key(north_alone[0])))
    assert 0 < session_cache.ttl(health_sync.key(north_alone[0])) <= health_sync.KEEP_SECONDS
    async with sharing(north_alone, newcomer):
        await until(lambda: cools(newcomer))


@pytest.mark.slow
@pytest.mark.usefixtures("session_cache")
@pytest.mark.parametrize(
    "change", [{"base_url": "http://127.0.0.1:1/v1"}, {"api_key": "another"}, {"query": {"a": "b"}}]
)
async def test_new_worker_begins_afresh_when_it_has_another_endpoint_or_key(
    north_alone: list[Provider], change: dict[str, object]
) -> None:
    one, restarted, same = worker(), worker(), worker()
    fixed = [msgspec.structs.replace(north_alone[0], **change)]
    async with sharing(north_alone, one, same), sharing(fixed, restarted):
        one.failed("north", MODEL, Failure(Cools.ACCOUNT))
        await until(lambda: cools(same))
        await asyncio.sleep(1.2)
        assert cools(one)
        assert not cools(restarted)


@pytest.mark.slow
@pytest.mark.parametrize("junk", [b"[]", b'{"provider": "x"}', b"3", b'"text"', b"null"])
async def test_junk_is_passed_over_when_another_program_wrote_it(
    session_cache: redis.Redis, north_alone: list[Provider], junk: bytes
) -> None:
    session_cache.set(health_sync.key(north_alone[0]), junk, ex=60)
    await other_worker_knows(north_alone)


def test_record_has_its_own_age_when_it_is_written_between_the_reads(
    session_cache: redis.Redis, north_alone: list[Provider], monkeypatch: pytest.MonkeyPatch
) -> None:
    session_cache.set(health_sync.key(north_alone[0]), "{}", ex=60)
    one, read = worker(), shared_cache.read
    one.failed("north", MODEL, DOWN)
    written = one.states["north"]

    def read_late(place: str, kind: type[States]) -> States | None:
        monkeypatch.setattr(shared_cache, "read", read)
        health_sync.write(north_alone[0], written, one.now())
        return read(place, kind)

    monkeypatch.setattr(shared_cache, "read", read_late)
    found = health_sync.read(north_alone, one.now)["north"]
    assert {slot: state.cooling_until for slot, state in found.items()} == {
        slot: pytest.approx(state.cooling_until, abs=1) for slot, state in written.items()
    }


SLOT = {"id": "x", "failures": 1, "cooling_until": 1, "is_stated": False, **dict.fromkeys(health_sync.PAST, -1)}


@pytest.mark.parametrize(
    ("field", "seconds"),
    [
        *product([*health_sync.PAST, "cooling_until", "failures"], ["1e300", "4e9", "Infinity", "NaN", "-4e9", "[]"]),
        *product(health_sync.PAST, ["1"]),  # in the future
        *product(["cooling_until", "failures"], ["-1"]),
    ],
)
def test_record_is_passed_over_when_it_cannot_be_true(
    session_cache: redis.Redis, north_alone: list[Provider], field: str, seconds: str
) -> None:
    key = health_sync.key(north_alone[0])
    for value, expected in ((SLOT[field], 1), (seconds, 0)):
        slot = ", ".join(f'"{name}": {json.dumps(each)}' for name, each in SLOT.items() if name != field)
        session_cache.set(key, f'{{"provider": {{{slot}, "{field}": {value}}}}}', ex=60)
        assert len(health_sync.read(north_alone, time.monotonic)["north"]) == expected


@pytest.mark.slow
async def test_clock_of_another_process_does_not_matter(
    session_cache: redis.Redis, north_alone: list[Provider]
) -> None:
    """Each process counts from a start of its own, as after a reboot; one stepped back while it ran."""
    offsets = {"ahead": 1e6, "behind": -time.monotonic() + 1}
    ahead, behind = (Health(30, lambda: (), lambda by=by: time.monotonic() + by) for by in offsets.values())
    async with sharing(north_alone, ahead, behind):
        ahead.failed("north", MODEL, LIMITED)
        await until(lambda: cools(behind))
        assert 98 < behind.seconds_left("north", MODEL) <= 100
        behind.answered("north", MODEL, behind.now())
        await until(lambda: not cools(ahead))


@pytest.mark.slow
async def test_both_slots_are_known_when_two_workers_write_one_record(
    session_cache: redis.Redis, north_alone: list[Provider]
) -> None:
    one, other = worker(), worker()
    async with sharing(north_alone, one, other):
        one.failed("north", "model-a", LIMITED)
        other.failed("north", "model-b", LIMITED)
        took = stopwatch()
        await until(lambda: all(len(each.states["north"]) == 2 for each in (one, other)))
        assert took() < 3
    assert set(one.states["north"]) == {model_slot("model-a"), model_slot("model-b")}


@pytest.mark.slow
async def test_workers_agree_again_when_the_cache_is_back(
    settings: Settings, north_alone: list[Provider], caplog: pytest.LogCaptureFixture
) -> None:
    with start_server() as server:
        settings.CACHES = {"default": patient_config(server.url)}
        one, other = worker(), worker()
        async with sharing(north_alone, one, other):
            server.kill()
            with caplog.at_level(logging.WARNING):
                one.failed("north", MODEL, DOWN)
                await until(lambda: len(caplog.records) == 2)
            assert cools(one)
            assert not cools(other)
            server.start()
            took = stopwatch()
            await until(lambda: cools(other))
            assert took() < 2
        assert len(caplog.records) == 2  # one warning of each worker, however long it lasts


@pytest.mark.slow
@pytest.mark.usefixtures("session_cache")
async def test_recovery_is_not_undone_when_a_worker_that_has_not_heard_of_it_probes(
    north_alone: list[Provider],
) -> None:
    one, other = worker(), worker()
    async with sharing(north_alone, one, other):
        one.failed("north", MODEL, LIMITED)
        await until(lambda: cools(other))
        one.answered("north", MODEL, one.now())
        other.record_probe("north", is_alive=True)
        await until(lambda: not cools(other))
        await asyncio.sleep(0.1)
        assert not cools(one)


async def test_longer_cooldown_is_not_cut_short_when_another_worker_probes() -> None:
    one, other = worker(), worker()
    one.failed("north", MODEL, DOWN)
    other.merge("north", PROVIDER, one.states["north"][PROVIDER])
    one.failed("north", MODEL, LIMITED._replace(retry_after=1000))
    other.record_probe("north", is_alive=True)
    one.merge("north", PROVIDER, other.states["north"][PROVIDER])
    assert one.seconds_left("north", MODEL) > 900


@pytest.mark.parametrize(("answer", "alive"), [(200, True), (401, True), (404, True), (429, True), (500, False)])
async def test_probe_counts_any_answer_below_500_as_alive(
    north: Upstream, north_alone: list[Provider], monkeypatch: pytest.MonkeyPatch, answer: int, alive: bool
) -> None:
    monkeypatch.setattr(probes, "PROBE_SECONDS", 0.01)
    health = worker()
    health.failed("north", MODEL, DOWN)
    before = health.states["north"][PROVIDER]
    north.then(*[fails(answer)] * 1000)
    task = asyncio.create_task(probe_forever(health, lambda: north_alone))
    await until(lambda: health.states["north"][PROVIDER] is not before)
    task.cancel()
    assert (health.states["north"][PROVIDER].failing_since is None) is alive
    assert cools(health)  # the cooldown stays
    assert north.exchanges[0].path == "/v1/models"
    assert north.exchanges[0].command == "GET"


async def test_probe_asks_only_those_that_fail(
    north: Upstream, south: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "PROBE_SECONDS", 0.01)
    health = worker()
    dead = Provider(name="dead", base_url=f"http://127.0.0.1:{free_port()}/v1", api_key=None, models=("m",), weight=1)
    health.failed("dead", MODEL, DOWN)
    before = health.states["dead"][PROVIDER]
    task = asyncio.create_task(probe_forever(health, lambda: [provider(north), dead, provider(south)]))
    await until(lambda: health.states["dead"][PROVIDER] is not before)
    task.cancel()
    assert health.states["dead"][PROVIDER].failing_since is not None
    assert north.exchanges == south.exchanges == []
