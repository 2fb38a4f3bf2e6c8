from __future__ import annotations

import os
import subprocess
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from django.core.signals import request_started
from django.test import override_settings

from sessions_sticky import SessionError, SessionStoreUnavailable, apps, cache_config, session_deleted, sessions
from sessions_sticky.jobs import runner, service
from sessions_sticky.jobs.job import Job, Plan
from sessions_sticky.jobs.records import Records
from sessions_sticky.jobs.service import Jobs
from sessions_sticky.queries import index_reader
from sessions_sticky.queries.filters import Filters
from sessions_sticky.queries.index_reader import BATCH_SIZE
from sessions_sticky.stores.redis import RedisStore
from tests.programs import Program
from tests.servers import start_server
from tests.sessions_sticky.jobs.calls import (
    DELETE,
    MOVE_ALL,
    SECONDS,
    abandoned,
    fill,
    finished,
    gate,
    jobs,
    no_threads,
    quick_ticks,  # noqa: F401
    start,
    threads,
)
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

pytestmark = pytest.mark.usefixtures("quick_ticks")


@contextmanager
def worker(url: str, lease: float, what: str) -> Iterator[Program]:
    command = ("-m", "tests.sessions_sticky.jobs.worker", url, str(lease), what)
    with Program(*command, env=os.environ, stdout=subprocess.PIPE) as process:
        yield process


def line(process: Program) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.slow
@pytest.mark.parametrize("plan", [DELETE])
def test_job_is_adopted_when_its_worker_was_killed(session_cache: redis.Redis, valkey_url: str, plan: Plan) -> None:
    fill(6_000)
    with worker(valkey_url, 0.5, "start") as process:
        key = line(process)
        wait_until(lambda: int(session_cache.get(f"sentinel:job:{{index}}:{key}:done") or 0) >= 1_000)
        process.kill()
        process.wait()
        done = int(session_cache.get(f"sentinel:job:{{index}}:{key}:done") or 0)
    assert done == 6_000 - len(session_cache.keys("sentinel:session:*")) < 6_000
    assert not threads()
    job = finished(key)
    assert (job.state, job.done, job.expected, job.actor) == ("done", 6_000, 6_000, "alice")
    assert not session_cache.keys("sentinel:session:*")


@pytest.fixture
def slow_count(session_cache: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """A hundred sessions whose conditions are read ten at a time, in twice the time of a lease; whether it was held."""
    monkeypatch.setattr(index_reader, "BATCH_SIZE", 10)
    monkeypatch.setattr(runner, "LEASE_SECONDS", 0.5)
    fill(100)
    held: list[bool] = []
    verify = index_reader.IndexReader.verify

    def slowly(self: index_reader.IndexReader, entries: list[index_reader.IndexEntry]) -> list[index_reader.Row]:
        time.sleep(0.1)
        (found,) = Records(sessions._store).recent()
        held.append(found.is_leased)
        return verify(self, entries)

    monkeypatch.setattr(index_reader.IndexReader, "verify", slowly)
    return held


OLD = Plan(Filters(created_before=time.time() + 3_600))


@pytest.mark.slow
def test_worker_keeps_its_lease_while_it_counts(slow_count: list[bool]) -> None:
    job = start(OLD)
    assert job.expected == 0
    job = finished(job.key)
    assert (job.state, job.done, job.expected) == ("done", 100, 100)
    assert len(slow_count) >= 20
    assert all(slow_count)


@pytest.mark.slow
def test_job_changes_nothing_when_it_is_stopped_while_it_counts(slow_count: list[bool]) -> None:
    job = start(OLD)
    wait_until(lambda: len(slow_count) > 2)
    jobs.stop(job.key)
    wait_until(no_threads)
    assert (finished(job.key).state, finished(job.key).done) == ("stopped", 0)


@pytest.mark.slow
def test_log_has_the_total_when_a_job_was_continued(
    session_cache: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    fill(1_200)
    with gate(500):
        job = start(MOVE_ALL)
        with gate(1) as held:
            assert held.reached.wait(SECONDS)
        jobs.stop(job.key, within_seconds=0)
    wait_until(no_threads)
    jobs.resume(job.key)
    finished(job.key)
    wait_until(no_threads)
    assert f"job {job.key} done: changed 1200 sessions in all, for alice" in caplog.messages


def test_get_leaves_the_job_alone_when_its_worker_is_alive(session_cache: redis.Redis) -> None:
    fill(2)
    with gate(1) as held:
        key = start(DELETE).key
        held.reached.wait(SECONDS)
        for _ in range(5):
            jobs.get(key)
            jobs.recent()
        assert len(threads()) == 1
    finished(key)


@pytest.mark.slow
def test_one_adopts_a_job_when_two_processes_watch(session_cache: redis.Redis, valkey_url: str) -> None:
    fill(10_000)
    key = abandoned()
    with worker(valkey_url, 10, key) as one, worker(valkey_url, 10, key) as two:
        assert [line(one), line(two)] == ["ready", "ready"]
        session_cache.set("go", 1)
        assert sorted((line(one), line(two))) == ["0", "1"]
        job = wait_until(lambda: (found := jobs.get(key)) and found.state == "done" and found)
    assert job.done == 10_000
    assert not threads()


def test_reading_a_job_without_a_worker_changes_nothing(session_cache: redis.Redis) -> None:
    fill(2)
    key = abandoned()
    stored = {name: session_cache.dump(name) for name in session_cache.scan_iter()}
    job = jobs.get(key)
    assert job is not None
    assert jobs.recent() == [job]
    assert jobs.wait(job, 0.1) == job
    assert no_threads()
    assert {name: session_cache.dump(name) for name in session_cache.scan_iter()} == stored


def test_resume_adopts_a_job_whose_worker_is_gone(session_cache: redis.Redis) -> None:
    fill(2)
    key = abandoned()
    resumed = jobs.resume(key)
    assert resumed is not None
    assert not resumed.changed
    assert wait_until(lambda: (job := jobs.get(key)) and job.state == "done" and job).done == 2


def test_process_that_watches_adopts_a_job(session_cache: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "WATCH_SECONDS", 0.01)
    fill(2)
    with watching() as watcher:
        wait_until(watcher.is_alive)
        key = abandoned()
        assert wait_until(lambda: (job := jobs.get(key)) and job.state == "done" and job).done == 2


@contextmanager
def watching() -> Iterator[threading.Thread]:
    """A process that watches, until it finds that there is no index."""
    own = service.Worker(sessions)
    own.watch()
    thread = own._watcher
    own.watch()
    assert own._watcher is thread
    try:
        yield thread
    finally:
        with override_settings(SESSIONS_STICKY={"INDEX": False}):
            thread.join(SECONDS)
        assert not thread.is_alive()


@pytest.mark.parametrize("error", [SessionStoreUnavailable, RuntimeError])
@pytest.mark.parametrize("failing", ["watch of jobs", "job worker"])
def test_worker_continues_after_an_error(
    session_cache: redis.Redis, monkeypatch: pytest.MonkeyPatch, failing: str, error: type[Exception]
) -> None:
    monkeypatch.setattr(service, "WATCH_SECONDS", 0.01)
    fill(2)
    recent, hiccups = Records.recent, [error("a hiccup"), error("another one")]

    def fail(records: Records) -> Any:
        if threading.current_thread().name == failing and hiccups:
            raise hiccups.pop()
        return recent(records)

    monkeypatch.setattr(Records, "recent", fail)
    with watching():
        key = abandoned()
        assert wait_until(lambda: (job := jobs.get(key)) and job.state == "done" and job).done == 2
    assert not hiccups


def test_one_job_runs_at_a_time_and_the_others_wait(session_cache: redis.Redis) -> None:
    fill(4)
    fill(2, "other", provider="azure")
    with gate(1) as held:
        first = start(DELETE).key
        held.reached.wait(SECONDS)
        second = start(Plan(Filters(provider="azure"))).key
        assert threads() == [f"job {first}"]
        time.sleep(0.1)
        waiting = jobs.get(second)
        assert waiting is not None
        assert (waiting.state, waiting.done) == ("running", 0)
        held.open.set()
        for key, number in ((first, 4), (second, 2)):
            assert wait_until(lambda key=key: (job := jobs.get(key)) and job.state == "done" and job).done == number


@pytest.mark.django_db
def test_server_watches_from_its_first_request(monkeypatch: pytest.MonkeyPatch) -> None:
    watched: list[str] = []
    monkeypatch.setattr(Jobs, "watch", lambda self: watched.append("again"))
    request_started.connect(apps.watch_jobs, dispatch_uid=apps.WATCH_JOBS)
    for _ in range(2):
        request_started.send(sender=None)
    assert len(watched) == 1


@pytest.mark.slow
def test_numbers_are_right_when_a_worker_continues_after_its_lease_was_lost(
    session_cache: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "LEASE_SECONDS", 0.05)
    number = 3 * BATCH_SIZE
    fill(number)
    with gate(1) as held:
        key = start(DELETE).key
        held.reached.wait(SECONDS)
        wait_until(lambda: not session_cache.exists(f"sentinel:job:{{index}}:{key}:runner"))
        monkeypatch.setattr(runner, "LEASE_SECONDS", 10)
        job = finished(key)
        assert (job.state, job.done) == ("done", number)
        held.open.set()
        wait_until(no_threads)
        assert len(held.announced) == len(set(held.announced)) == number
    assert finished(key) == job


@pytest.mark.slow
def test_worker_gives_way_when_another_has_the_lease(session_cache: redis.Redis) -> None:
    fill(3 * BATCH_SIZE)
    with gate(1) as held:
        key = start(DELETE).key
        held.reached.wait(SECONDS)
        session_cache.set(f"sentinel:job:{{index}}:{key}:runner", "another", px=60_000)
        held.open.set()
        wait_until(no_threads)
    assert sessions.all().count() == 2 * BATCH_SIZE
    assert session_cache.get(f"sentinel:job:{{index}}:{key}:runner") == b"another"
    job = jobs.get(key)
    assert job is not None
    assert (job.state, job.done, threads()) == ("running", BATCH_SIZE, [])


@pytest.mark.slow
def test_lease_is_kept_while_a_batch_is_announced_slowly(
    session_cache: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "LEASE_SECONDS", 1)
    fill(250)
    begun: list[float] = []

    def receive(**kwargs: Any) -> None:
        begun.append(time.monotonic())
        time.sleep(0.01)

    session_deleted.connect(receive)
    key = start(DELETE).key
    wait_until(lambda: begun)
    while threads():
        jobs.get(key)
        assert len(threads()) <= 1
        time.sleep(0.01)
    session_deleted.disconnect(receive)
    assert begun[-1] - begun[0] > 2
    assert finished(key).done == 250


@pytest.fixture
def server(settings: Any) -> Iterator[Any]:
    """A server that the test may kill, as the default cache."""
    with start_server() as server:
        settings.CACHES = {"default": cache_config(server.url)}
        yield server


@pytest.mark.slow
def test_job_continues_when_the_store_stalls_half_way(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "LEASE_SECONDS", 0.3)
    number = 4 * BATCH_SIZE
    fill(number)
    with gate(BATCH_SIZE + 1) as held:
        key = start(MOVE_ALL).key
        held.reached.wait(SECONDS)
        server.stop()
        held.open.set()
        time.sleep(1)  # several times what a request and a lease last
        with pytest.raises(SessionStoreUnavailable):
            jobs.get(key)
        server.cont()
        wait_until(lambda: listed_state(server) == b'"done"')  # without a read
        job = wait_until(lambda: seen(key))
    assert (job.done, job.expected) == (number, number)
    assert sessions.filter(provider="mistral").count() == number


@pytest.mark.slow
@pytest.mark.parametrize("failing", range(8))
def test_job_continues_when_one_request_fails(
    session_cache: redis.Redis, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    fill(2 * BATCH_SIZE)
    send, left = RedisStore.send, iter(range(failing))

    def fail_once(store: RedisStore, request: Any) -> Any:
        if threading.current_thread().name.startswith("job ") and next(left, None) is None:
            monkeypatch.setattr(RedisStore, "send", send)
            raise SessionStoreUnavailable("a hiccup")
        return send(store, request)

    monkeypatch.setattr(RedisStore, "send", fail_once)
    job = finished(start(MOVE_ALL).key)
    assert RedisStore.send is send
    assert (job.state, job.done, job.expected, job.detail) == ("done", 2 * BATCH_SIZE, 2 * BATCH_SIZE, "")


def seen(key: str) -> Job | None:
    """Return the job after it has stopped running."""
    try:
        job = jobs.get(key)
    except SessionStoreUnavailable:
        return None
    return job if job and job.state != "running" else None


def resumed(key: str) -> bool:
    """Whether the store is there to resume a job."""
    try:
        return jobs.resume(key) is not None
    except SessionStoreUnavailable:
        return False


@pytest.mark.slow
def test_job_is_left_as_it_is_when_the_store_stays_away(
    server: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(runner, "LEASE_SECONDS", 0.3)
    monkeypatch.setattr(runner, "STORE_TIMEOUT_SECONDS", 0.3)
    fill(2 * BATCH_SIZE)
    with gate(1) as held:
        key = start(DELETE).key
        held.reached.wait(SECONDS)
        server.stop()
        held.open.set()
        wait_until(no_threads)
        assert f"job {key} suspended" in caplog.text
        server.cont()
        wait_until(lambda: listed_state(server) == b'"running"')
        job = wait_until(lambda: resumed(key) and seen(key))
    assert (job.state, job.done, job.detail) == ("done", 2 * BATCH_SIZE, "")


def listed_state(server: Any) -> bytes:
    with server.client() as client:
        (key,) = client.zrange("sentinel:jobs:{index}", 0, -1)
        record: bytes = client.get(f"sentinel:job:{{index}}:{key.decode()}")
        return record.partition(b'"state":')[2].partition(b",")[0]


@pytest.mark.slow
def test_job_is_gone_when_the_store_has_lost_it(server: Any) -> None:
    fill(2 * BATCH_SIZE)
    with gate(1) as held:
        key = start(DELETE).key
        held.reached.wait(SECONDS)
        server.restart()
        held.open.set()
        wait_until(no_threads)
    assert wait_until(lambda: found(key)) == [None, None, None, []]
    with server.client() as client:
        assert not client.keys("sentinel:job*")


def found(key: str) -> list[Any]:
    try:
        return [jobs.get(key), jobs.stop(key), jobs.resume(key), jobs.recent()]
    except SessionStoreUnavailable:
        return []


def test_wait_returns_the_job_when_the_store_goes_down(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "STORE_TIMEOUT_SECONDS", 0)
    fill(2)
    with gate(1) as held:
        job = start(DELETE)
        held.reached.wait(SECONDS)
        server.kill()
        assert jobs.wait(job, 0.1).key == job.key


@pytest.mark.parametrize(
    ("error", "detail"),
    [
        (RuntimeError("password is secret"), "An internal error; see the log of the server."),
        (SessionError("No such thing"), "No such thing"),
    ],
)
def test_job_fails_in_words_and_may_be_resumed_when_there_is_a_bug(
    session_cache: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    detail: str,
) -> None:
    def fail(*args: Any) -> Any:
        raise error

    fill(2)
    with monkeypatch.context() as patch:
        patch.setattr(runner.Bulk, "delete_all", fail)
        job = finished(start(DELETE).key)
    assert (job.state, job.detail, job.done) == ("failed", detail, 0)
    assert str(error) in caplog.text
    wait_until(lambda: not session_cache.exists(f"sentinel:job:{{index}}:{job.key}:runner"))
    resumed = jobs.resume(job.key)
    assert resumed is not None
    assert resumed.changed
    job = finished(job.key)
    assert (job.state, job.detail, job.done) == ("done", "", 2)


def test_thread_closes_its_database_connections(session_cache: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []

    class Connections:
        def close_all(self) -> None:
            closed.append(threading.current_thread().name)

    monkeypatch.setattr(runner, "connections", Connections())
    key = start(DELETE).key
    wait_until(no_threads)
    assert closed == [f"job {key}"]
