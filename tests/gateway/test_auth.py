"""Who may chat: API keys."""

from __future__ import annotations

import asyncio
import threading
import time as real_time
from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise

import pytest
from asgiref.sync import sync_to_async
from django.db import InterfaceError, OperationalError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from sentinel_project.gateway import auth
from sentinel_project.gateway.auth import KeyRing
from sentinel_project.gateway.errors import ApiError
from sentinel_project.gateway.models import ApiKey
from tests.gateway.asgi import KEY, ask, chat
from tests.gateway.conftest import callers, owner_of

# The key ring reads in another thread, which would not see the rows of a test's own transaction.
database = pytest.mark.django_db(transaction=True)


@pytest.mark.usefixtures("gateway")
@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", KEY, f"Basic {KEY}", f"Bearer{KEY}", "Bearer sk-no", f"Bearer {KEY}x", b"\xff"],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/v1/chat/completions"), ("GET", "/v1/models"), ("GET", "/v1/models/model-a")],
)
async def test_request_is_refused_when_its_key_is_not_valid(north, south, method, path, authorization):
    headers = [] if authorization is None else [("Authorization", authorization)]
    answer = await ask(chat(), path=path, method=method, headers=headers, key=None)
    assert answer.status == 401
    assert answer.error["type"] == "authentication_error"
    assert answer.error["code"] == "invalid_api_key"
    assert answer.headers["www-authenticate"] == "Bearer"
    assert not north.exchanges + south.exchanges


@pytest.mark.usefixtures("gateway")
@pytest.mark.parametrize("authorization", [f"Bearer {KEY}", f"bearer {KEY}", f"BEARER   {KEY} "])
async def test_request_is_served_when_its_key_is_valid(authorization):
    assert (await ask(chat(), headers=[("Authorization", authorization)], key=None)).status == 200


@pytest.mark.usefixtures("gateway")
async def test_refusal_comes_before_the_body_is_judged_when_the_key_is_not_valid():
    assert (await ask(b"{", key="sk-unknown")).status == 401


class Clock:
    """`time.monotonic` of the key ring, moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(auth, "time", clock)
    return clock


issue = sync_to_async(ApiKey.objects.issue)


@sync_to_async
def revoke(owner: str) -> int:
    return ApiKey.objects.filter(owner=owner).revoke()


@database
async def test_owner_is_known_at_once_when_the_key_is_new(clock: Clock):
    ring = KeyRing()
    assert await owner_of(ring, "sk-sentinel-unknown") is None
    key = await issue("ann")
    assert await owner_of(ring, key) == "ann"


@database
async def test_owner_is_none_within_30_seconds_when_the_key_was_revoked(clock: Clock):
    ring, key, kept = KeyRing(), await issue("ann"), await issue("ben")
    assert await owner_of(ring, key) == "ann"
    assert await revoke("ann") == 1
    clock.now += 29.9
    assert await owner_of(ring, key) is None
    assert await owner_of(ring, kept) == "ben"


@database
async def test_owner_is_none_when_the_key_was_deleted(clock: Clock):
    ring, key = KeyRing(), await issue("ann")
    assert await owner_of(ring, key) == "ann"
    await ApiKey.objects.all().adelete()
    clock.now += 29.9
    assert await owner_of(ring, key) is None


@database
async def test_owner_is_none_when_a_key_is_revoked_by_a_host_whose_clock_is_behind(clock: Clock):
    ring, key = KeyRing(), await issue("ann")
    await issue("ben")
    await ApiKey.objects.filter(owner="ben").aupdate(changed_at=timezone.now() + timedelta(minutes=5))
    assert await owner_of(ring, key) == "ann"
    await revoke("ann")
    clock.now += 29.9
    assert await owner_of(ring, key) is None


@database
async def test_refresh_runs_one_query_when_nothing_has_changed(clock: Clock):
    ring = KeyRing()
    await issue("ann")
    await ring.refresh()

    @sync_to_async
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            ring._read()
        return len(captured)

    assert await queries() == 1
    await issue("ben")
    assert await queries() == 2


@database
@pytest.mark.parametrize("error", [OperationalError, InterfaceError])
async def test_owner_stays_known_when_the_database_is_down(clock: Clock, monkeypatch: pytest.MonkeyPatch, error):
    ring, key = KeyRing(), await issue("ann")
    assert await owner_of(ring, key) == "ann"
    monkeypatch.setattr(ring, "_read", fails_with(error))
    for _ in range(3):
        clock.now += 60
        assert await owner_of(ring, key) == "ann"


@database
@pytest.mark.parametrize("error", [OperationalError, InterfaceError])
async def test_owner_raises_503_for_an_unknown_key_while_the_database_is_down(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, error
):
    ring, key = KeyRing(), await issue("ann")
    assert await owner_of(ring, key) == "ann"
    read = ring._read
    monkeypatch.setattr(ring, "_read", fails_with(error))
    new = await issue("ben")
    for unknown in (new, "sk-sentinel-unknown", new):
        with pytest.raises(ApiError, match="API keys cannot be checked") as caught:
            await owner_of(ring, unknown)
        assert (caught.value.status, caught.value.headers["Retry-After"]) == (503, "1")
    monkeypatch.setattr(ring, "_read", read)
    clock.now += 1
    assert await owner_of(ring, new) == "ben"
    assert await owner_of(ring, "sk-sentinel-unknown") is None


@pytest.fixture
def stalled(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A database that answers nothing until the event is set."""
    answers = threading.Event()
    monkeypatch.setattr(auth, "DATABASE_SECONDS", 0.1)
    monkeypatch.setattr(KeyRing, "_read", lambda ring: answers.wait(30))
    yield answers
    answers.set()


async def test_owner_stays_known_when_the_database_stalls(clock: Clock, stalled: threading.Event):
    ring = KeyRing()
    ring._callers, ring._version = callers({"sk-sentinel-a": "ann"}), 1
    async with asyncio.timeout(5):
        for _ in range(3):
            clock.now += 60
            assert await owner_of(ring, "sk-sentinel-a") == "ann"
        with pytest.raises(ApiError, match="API keys cannot be checked"):
            await owner_of(ring, "sk-sentinel-unknown")
        stalled.set()
        await asyncio.wait([ring._late])
    assert await owner_of(ring, "sk-sentinel-a") == "ann"


def counted(ring: KeyRing, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let a ring know ann's key and read no database; return the list of the times at which it reads."""
    times: list[float] = []

    def read() -> None:
        times.append(real_time.monotonic())
        ring._callers, ring._version = callers({"sk-sentinel-a": "ann"}), 1
        real_time.sleep(0.01)

    monkeypatch.setattr(ring, "_read", read)
    return times


async def test_owner_shares_reads_when_many_unknown_keys_come_at_once(monkeypatch: pytest.MonkeyPatch):
    ring = KeyRing()
    times = counted(ring, monkeypatch)
    owners = await asyncio.gather(*(owner_of(ring, f"sk-sentinel-{number}") for number in range(500)))
    assert owners == 500 * [None]
    assert len(times) <= 2


async def test_owner_reads_a_limited_number_of_times_when_unknown_keys_come_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
):
    ring = KeyRing()
    times = counted(ring, monkeypatch)
    for number in range(5):
        assert await owner_of(ring, f"sk-sentinel-{number}") is None
        assert await owner_of(ring, "sk-sentinel-a") == "ann"
    assert len(times) == 5
    assert all(later - earlier >= auth.READ_INTERVAL_SECONDS for earlier, later in pairwise(times))


async def test_owner_reads_once_in_five_seconds_when_the_same_unknown_key_comes(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    ring = KeyRing()
    times = counted(ring, monkeypatch)
    for _ in range(100):
        assert await owner_of(ring, "sk-sentinel-unknown") is None
    assert len(times) == 1
    clock.now += auth.UNKNOWN_SECONDS
    assert await owner_of(ring, "sk-sentinel-unknown") is None
    assert len(times) == 2


async def test_owner_reads_once_a_second_when_reads_fail(clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog):
    ring = KeyRing()
    monkeypatch.setattr(ring, "_read", fails_with(OperationalError))
    for _ in range(3):
        for number in range(10):
            with pytest.raises(ApiError, match="API keys cannot be checked"):
                await owner_of(ring, f"sk-sentinel-{number}")
        clock.now += auth.FAILURE_SECONDS
    assert len(caplog.messages) == 3


async def test_owner_remembers_a_limited_number_of_unknown_keys(clock: Clock, monkeypatch: pytest.MonkeyPatch):
    ring = KeyRing()
    times = counted(ring, monkeypatch)
    monkeypatch.setattr(auth, "MAX_UNKNOWN", 100)
    await asyncio.gather(*(owner_of(ring, f"sk-sentinel-{number}") for number in range(1000)))
    assert len(ring._unknown) <= 100
    assert len(times) <= 2


async def test_owner_knows_a_key_that_is_made_during_a_read(monkeypatch: pytest.MonkeyPatch):
    ring, reading, go_on = KeyRing(), threading.Event(), threading.Event()
    live: dict[str, str] = {}

    def read() -> None:
        found = dict(live)
        reading.set()
        assert go_on.wait(5)
        ring._callers, ring._version = callers(found), len(found)

    monkeypatch.setattr(ring, "_read", read)
    first = asyncio.create_task(owner_of(ring, "sk-sentinel-unknown"))
    assert await asyncio.to_thread(reading.wait, 5)
    live["sk-sentinel-new"] = "ann"
    later = [asyncio.create_task(owner_of(ring, "sk-sentinel-new")) for _ in range(3)]
    await asyncio.sleep(0)
    go_on.set()
    assert await first is None
    assert await asyncio.gather(*later) == 3 * ["ann"]


async def test_owner_is_known_when_another_caller_leaves_during_a_read(monkeypatch: pytest.MonkeyPatch):
    ring = KeyRing()
    counted(ring, monkeypatch)
    leaving, staying = (asyncio.create_task(owner_of(ring, "sk-sentinel-a")) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    assert await staying == "ann"


@database
async def test_owner_is_none_within_30_seconds_while_last_uses_wait_for_a_lock(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    ring, key, lock = KeyRing(), await issue("ann"), threading.Event()
    monkeypatch.setattr(auth, "DATABASE_SECONDS", 1)
    monkeypatch.setattr(ring._uses, "write", lambda: lock.wait(30))
    assert await owner_of(ring, key) == "ann"
    await revoke("ann")
    writing = asyncio.create_task(ring.write_uses())
    await asyncio.sleep(0)
    clock.now += 29.9
    try:
        assert await owner_of(ring, key) is None
    finally:
        lock.set()
        await writing


async def test_owner_raises_503_when_the_database_has_stalled_from_the_start(stalled: threading.Event):
    async with asyncio.timeout(5):
        with pytest.raises(ApiError, match="API keys cannot be checked"):
            await owner_of(KeyRing(), "sk-sentinel-unknown")


@pytest.mark.parametrize("error", [OperationalError, InterfaceError])
async def test_owner_raises_503_when_the_keys_could_never_be_read(monkeypatch: pytest.MonkeyPatch, error):
    ring = KeyRing()
    monkeypatch.setattr(ring, "_read", fails_with(error))
    with pytest.raises(ApiError, match="API keys cannot be checked") as caught:
        await owner_of(ring, "sk-sentinel-unknown")
    assert caught.value.status == 503
    assert caught.value.headers["Retry-After"] == "1"


@pytest.mark.parametrize("error", [OperationalError, InterfaceError])
async def test_refresh_forever_continues_when_the_database_is_down_for_a_while(monkeypatch: pytest.MonkeyPatch, error):
    ring, read = KeyRing(), asyncio.Event()
    loop = asyncio.get_running_loop()
    replies = [fails_with(error), fails_with(error)]

    def reply() -> None:
        if replies:
            replies.pop()()
        loop.call_soon_threadsafe(read.set)

    monkeypatch.setattr(ring, "_read", reply)
    monkeypatch.setattr(auth, "REFRESH_SECONDS", 0)
    refreshing = asyncio.create_task(ring.refresh_forever())
    try:
        await asyncio.wait_for(read.wait(), 5)
    finally:
        refreshing.cancel()


def fails_with(error: type[Exception]):
    def read() -> None:
        raise error("server closed the connection")

    return read
