"""When keys were last used: noted by the chats, written once in a while."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

import pytest
from asgiref.sync import sync_to_async
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext

from sentinel_project.gateway import auth
from sentinel_project.gateway import key_usage as key_uses
from sentinel_project.gateway.auth import KeyRing
from sentinel_project.gateway.key_usage import KeyUses
from sentinel_project.gateway.models import ApiKey, digest
from tests.gateway.conftest import callers, owner_of

NOON = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)


class Clock:
    """`time.time` of the uses, moved by hand."""

    def __init__(self) -> None:
        self.now = NOON.timestamp()

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(key_uses, "time", clock)
    return clock


def use(uses: KeyUses, clock: Clock, *keys: str, seconds: float) -> int:
    """Use keys so long after noon and write; return the number of queries."""
    clock.now = NOON.timestamp() + seconds
    for key in keys:
        uses.note(digest(key))
    with CaptureQueriesContext(connection) as captured:
        uses.write()
    return len(captured)


def last_use(key: str) -> float | None:
    """Return when a key was last used, by the database, in seconds after noon."""
    at = ApiKey.objects.get(digest=digest(key)).last_used_at
    return None if at is None else (at - NOON).total_seconds()


@pytest.mark.django_db
def test_write_stores_the_minute_of_the_last_use(clock: Clock):
    uses, used, other = KeyUses(), ApiKey.objects.issue("ann"), ApiKey.objects.issue("ben")
    use(uses, clock, used, seconds=0)
    use(uses, clock, used, seconds=150)
    assert last_use(used) == 120
    assert last_use(other) is None


@pytest.mark.django_db
def test_write_asks_the_database_once_a_minute_when_keys_are_in_use(clock: Clock):
    uses, keys = KeyUses(), [ApiKey.objects.issue("ann") for _ in range(20)]
    queries = [use(uses, clock, *keys, seconds=seconds) for seconds in range(0, 120, 10)]
    assert queries == [1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]


@pytest.mark.django_db
def test_write_keeps_the_later_use_when_another_process_saw_it(clock: Clock):
    here, there, key = KeyUses(), KeyUses(), ApiKey.objects.issue("ann")
    here.note(digest(key))
    use(there, clock, key, seconds=600)
    here.write()
    assert last_use(key) == 600


@pytest.mark.django_db
def test_write_changes_nothing_else_when_a_key_is_used(clock: Clock):
    key = ApiKey.objects.issue("ann")
    before = ApiKey.objects.values("changed_at", "revoked_at", "owner").get()
    use(KeyUses(), clock, key, seconds=60)
    assert ApiKey.objects.values("changed_at", "revoked_at", "owner").get() == before


@pytest.mark.django_db
def test_write_takes_thousands_of_keys_when_they_are_due(clock: Clock):
    uses, last = KeyUses(), ApiKey.objects.issue("ann")
    assert use(uses, clock, *map(str, range(1200)), last, seconds=0) == 3
    assert last_use(last) == 0


@pytest.mark.django_db(transaction=True)
async def test_refresh_forever_writes_the_uses_when_a_key_opened_a_chat(monkeypatch: pytest.MonkeyPatch):
    ring, (key, idle) = KeyRing(), [await sync_to_async(ApiKey.objects.issue)("ann") for _ in range(2)]
    monkeypatch.setattr(auth, "REFRESH_SECONDS", 0.01)
    refreshing = asyncio.create_task(ring.refresh_forever())
    try:
        assert await owner_of(ring, key) == "ann"
        await owner_of(ring, "sk-sentinel-unknown")
        deadline = time.monotonic() + 5
        while await sync_to_async(last_use)(key) is None:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
    finally:
        refreshing.cancel()
        await asyncio.gather(refreshing, return_exceptions=True)
    assert await sync_to_async(last_use)(idle) is None


@pytest.mark.django_db(transaction=True)
async def test_refresh_forever_writes_what_is_left_when_the_server_stops():
    ring, key = KeyRing(), await sync_to_async(ApiKey.objects.issue)("ann")
    refreshing = asyncio.create_task(ring.refresh_forever())
    await owner_of(ring, key)
    await asyncio.sleep(0)
    refreshing.cancel()
    await asyncio.gather(refreshing, return_exceptions=True)
    assert await sync_to_async(last_use)(key) is not None


@pytest.mark.django_db
async def test_owner_writes_nothing_when_a_key_opens_a_chat(monkeypatch: pytest.MonkeyPatch):
    ring, key = KeyRing(), "sk-sentinel-known"
    ring._callers = callers({key: "ann"})
    ring._refreshed = float("inf")
    monkeypatch.setattr(auth, "sync_to_async", None)
    assert await owner_of(ring, key) == "ann"


async def test_write_uses_keeps_them_when_the_database_is_down(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def fail(*args: object) -> None:
        raise OperationalError("gone")

    ring = KeyRing()
    ring._uses.note("a")
    with monkeypatch.context() as patch:
        patch.setattr(KeyUses, "_write_batch", fail)
        await ring.write_uses()
    assert "OperationalError" in caplog.text
    written: list[str] = []
    monkeypatch.setattr(KeyUses, "_write_batch", lambda self, minute, names: written.extend(names))
    await ring.write_uses()
    assert written == ["a"]
