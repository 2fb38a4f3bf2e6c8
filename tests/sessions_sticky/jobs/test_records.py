from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from sessions_sticky import sessions
from sessions_sticky.jobs import records
from sessions_sticky.jobs.job import Job
from sessions_sticky.jobs.records import KEPT_SECONDS, Records
from tests.sessions_sticky.jobs.calls import (
    DELETE,
    SECONDS,
    abandoned,
    fill,
    finished,
    gate,
    jobs,
    no_threads,
    quick_ticks,  # noqa: F401
    start,
)
from tests.waiting import wait_until

if TYPE_CHECKING:
    import redis

pytestmark = pytest.mark.usefixtures("quick_ticks")


def test_job_is_kept_for_a_day_after_its_last_change(session_cache: redis.Redis) -> None:
    fill(2)
    with gate(1) as held:
        key = start(DELETE).key
        held.reached.wait(SECONDS)
        names = [f"sentinel:job:{{index}}:{key}", f"sentinel:job:{{index}}:{key}:done", "sentinel:jobs:{index}"]
        for name in names:
            assert session_cache.expire(name, 50)
    finished(key)
    wait_until(no_threads)
    assert sorted(session_cache.keys("sentinel:job*")) == sorted(name.encode() for name in names)
    for name in names:
        assert KEPT_SECONDS - 60 <= session_cache.ttl(name) <= KEPT_SECONDS


def test_lease_lasts_ten_seconds(session_cache: redis.Redis) -> None:
    fill(2)
    with gate(1) as held:
        key = start(DELETE).key
        held.reached.wait(SECONDS)
        assert 8_000 < session_cache.pttl(f"sentinel:job:{{index}}:{key}:runner") <= 10_000
    finished(key)


def test_recent_lists_the_last_begun_first_and_forgets_the_oldest(session_cache: redis.Redis) -> None:
    now = int(time.time())
    for number in range(105):
        job = Job.begin(f"{number:032x}", DELETE, actor="a", expected=0)
        changes = {"state": "done", "started_at": now - number, "updated_at": now - number}
        fields = {name: getattr(job, name) for name in job.__struct_fields__} | changes
        Records(sessions._store).write(Job(**fields))
    session_cache.delete(f"sentinel:job:{{index}}:{0:032x}")
    session_cache.zadd("sentinel:jobs:{index}", {"odd": now - 1})
    session_cache.set("sentinel:job:{index}:odd", record())
    assert [job.key for job in jobs.recent()] == [f"{number:032x}" for number in range(1, 99)]
    session_cache.zadd("sentinel:jobs:{index}", {"old": now - KEPT_SECONDS - 5})
    finished(start(DELETE).key)
    assert session_cache.zscore("sentinel:jobs:{index}", "old") is None


@pytest.mark.parametrize("key", ["", "a" * 31, "a" * 33, "A" * 32, "g" * 32, "*" * 32, "a" * 32 + "\n", "a" * 32])
def test_every_call_finds_nothing_when_there_is_no_such_job(session_cache: redis.Redis, key: str) -> None:
    if key != "a" * 32:
        session_cache.set(f"sentinel:job:{{index}}:{key}", record(state="done"))
    assert (jobs.get(key), jobs.stop(key), jobs.resume(key)) == (None, None, None)


def record(**changes: Any) -> bytes:
    job = Job.begin("ab" * 16, DELETE, actor="a", expected=1)
    fields = {name: getattr(job, name) for name in job.__struct_fields__} | changes
    return records._ENCODER.encode(Job(**fields))


@pytest.mark.parametrize(
    "poison",
    [
        *(b"", b"{", b"[]", b"\xff", b"null", b"5", record(state="odd"), record(kind="odd"), b'{"a":' * 100_000),
        *(record(**{name: at}) for name in ("started_at", "updated_at") for at in (2**62, -(2**62), 253_402_300_799)),
        *(record(**{name: number}) for name in ("expected", "done") for number in (-1, 2**63)),
    ],
)
def test_every_call_finds_nothing_when_the_record_is_unreadable(
    session_cache: redis.Redis, poison: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    key = "ab" * 16
    session_cache.zadd("sentinel:jobs:{index}", {key: time.time(), "hostile\n": time.time()})
    session_cache.set(f"sentinel:job:{{index}}:{key}", poison)
    assert (jobs.get(key), jobs.stop(key), jobs.resume(key), jobs.recent()) == (None, None, None, [])
    assert f"unreadable job {key!r}" in caplog.text


def test_job_works_when_other_keys_are_of_a_wrong_type(session_cache: redis.Redis) -> None:
    fill(3)
    session_cache.lpush("sentinel:jobs:{index}", 1)
    session_cache.lpush(f"sentinel:job:{{index}}:{'ab' * 16}:done", 1)
    job = finished(abandoned())
    assert (job.state, job.done) == ("done", 0)
    assert sessions.all().count() == 0
    assert jobs.recent() == []


@pytest.mark.parametrize("gone", [True, False])
def test_update_writes_nothing_when_the_record_is_another(session_cache: redis.Redis, gone: bool) -> None:
    key = abandoned()
    found = Records(sessions._store).find(key)
    assert found is not None
    if gone:
        session_cache.delete(f"sentinel:job:{{index}}:{key}")
    else:
        assert jobs.stop(key)
    assert not Records(sessions._store).update(found, expected=9)
    job = jobs.get(key)
    assert job is None if gone else job and (job.state, job.expected) == ("stopped", 0)


def test_change_tries_again_when_another_writes_in_between(
    session_cache: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, store = abandoned(), Records(sessions._store)
    find = store.find

    def find_then_write(key: str) -> records.Found | None:
        found = find(key)
        assert found is not None
        monkeypatch.setattr(store, "find", find)
        assert store.update(found, expected=9)
        return found

    monkeypatch.setattr(store, "find", find_then_write)
    assert store.change(key, ("running",), state="stopped")
    job = jobs.get(key)
    assert job is not None
    assert (job.state, job.expected) == ("stopped", 9)
