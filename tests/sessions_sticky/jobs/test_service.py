from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from sessions_sticky import (
    InvalidSession,
    SessionManager,
    SessionNotSupported,
    SessionStoreUnavailable,
    cache_config,
    session_deleted,
    sessions,
)
from sessions_sticky.jobs.job import Plan
from sessions_sticky.queries.bulk import Move
from sessions_sticky.queries.filters import Filters
from sessions_sticky.queries.index_reader import BATCH_SIZE
from tests.servers import free_port
from tests.sessions_sticky.calls import sample
from tests.sessions_sticky.jobs.calls import (
    DELETE,
    MOVE_ALL,
    OPENAI,
    SECONDS,
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
    from collections.abc import Callable

    import redis

pytestmark = pytest.mark.usefixtures("quick_ticks")


@pytest.mark.slow
def test_start_deletes_only_what_matches_the_plan(session_cache: redis.Redis) -> None:
    fill(1_200)
    fill(3, "other", provider="anthropic")
    begun = start(DELETE)
    assert (begun.state, begun.done, begun.expected, begun.kind) == ("running", 0, 1_200, "delete")
    job = finished(begun.key)
    assert (job.state, job.done, job.expected, job.detail) == ("done", 1_200, 1_200, "")
    assert len(session_cache.keys("sentinel:session:*")) == 3
    (event,) = sessions.history("conv-0")[1:]
    assert (event.kind, event.actor) == ("deleted", "alice")


@pytest.mark.slow
def test_start_moves_only_what_matches_the_plan(session_cache: redis.Redis) -> None:
    fill(700)
    fill(3, "other", provider="anthropic")
    job = finished(start(MOVE_ALL).key)
    assert (job.state, job.done, job.expected) == ("done", 700, 700)
    assert {
        provider: sessions.filter(provider=provider).count() for provider in ("openai", "mistral", "anthropic")
    } == {
        "openai": 0,
        "mistral": 700,
        "anthropic": 3,
    }
    moved = sessions.get("conv-5")
    assert moved == sample("conv-5", provider="mistral")
    event = sessions.history("conv-5")[-1]
    assert (event.kind, event.actor, event.reason) == ("rebound", "alice", "maintenance")


def test_job_has_all_fields(session_cache: redis.Redis) -> None:
    before = int(time.time())
    move = Move("mistral", "large", "why")
    job = finished(start(Plan(Filters("openai", "gpt-4", "user-456"), move), actor="bob").key)
    assert before <= job.started_at <= job.updated_at <= time.time()
    names = ("kind", "provider", "model", "owner", "everything", "to_provider", "to_model", "reason", "actor")
    assert [getattr(job, name) for name in names] == [
        *("rebind", "openai", "gpt-4", "user-456", False, "mistral", "large", "why", "bob"),
    ]
    job = finished(start(Plan(Filters(), everything=True)).key)
    assert [getattr(job, name) for name in names] == ["delete", None, None, None, True, None, None, "", "alice"]


def test_signals_come_from_the_manager_when_a_job_sends_them(session_cache: redis.Redis) -> None:
    fill(2)
    senders: list[Any] = []

    def receive(sender: Any, actor: str, **kwargs: Any) -> None:
        senders.append((sender, actor))

    session_deleted.connect(receive)
    finished(start(DELETE).key)
    session_deleted.disconnect(receive)
    assert senders == [(SessionManager, "alice")] * 2


@pytest.mark.parametrize(
    ("plan", "number"),
    [
        (DELETE, 5),
        (Plan(Filters(), everything=True), 10),
        (Plan(Filters(model="gpt-4")), 7),
        (Plan(Filters(), Move("openai", None, "r"), everything=True), 5),
        (Plan(Filters(), Move("openai", "gpt-4", "r"), everything=True), 6),
        (Plan(Filters(), Move("openai", "gpt-5", "r"), everything=True), 9),
        (Plan(Filters(model="gpt-4"), Move("openai", None, "r")), 3),
        (Plan(Filters(model="gpt-4"), Move("openai", "gpt-5", "r")), 7),
        (Plan(Filters(provider="openai"), Move("openai", None, "r")), 0),
        (Plan(Filters(provider="anthropic"), Move("openai", "gpt-4", "r")), 5),
        (Plan(Filters(provider="openai", owner="user-456"), Move("mistral", None, "r")), 5),
        (Plan(Filters(owner="user-456"), Move("mistral", None, "r")), 10),
        (Plan(Filters(owner="missing")), 0),
    ],
)
def test_count_returns_what_the_job_will_change(session_cache: redis.Redis, plan: Plan, number: int) -> None:
    fill(4)
    fill(3, "b", provider="anthropic")
    fill(2, "c", provider="anthropic", model="claude")
    fill(1, "d", model="gpt-5")
    values = {key: session_cache.get(key) for key in session_cache.keys("sentinel:session:*")}
    assert jobs.count(plan) == number
    assert values == {key: session_cache.get(key) for key in session_cache.keys("sentinel:session:*")}
    assert not session_cache.keys("sentinel:job*")
    job = finished(start(plan).key)
    assert (job.expected, job.done) == (number, number)
    assert jobs.count(plan) == 0


@pytest.mark.parametrize(
    ("plan", "error"),
    [
        (Plan(Filters()), ValueError),
        (Plan(OPENAI, everything=True), ValueError),
        (Plan(Filters(provider="\ud800")), InvalidSession),
        (Plan(Filters(owner="\ud800")), InvalidSession),
        (Plan(OPENAI, Move("\ud800", None, "r")), InvalidSession),
        (Plan(OPENAI, Move("p", 5, "r")), InvalidSession),  # type: ignore[arg-type]
        (Plan(OPENAI, Move("p", None, "\ud800")), InvalidSession),
    ],
    ids=ascii,
)
def test_start_refuses_an_invalid_plan(session_cache: redis.Redis, plan: Plan, error: type[Exception]) -> None:
    for call in (jobs.count, start):
        with pytest.raises(error):
            call(plan)
    assert not session_cache.keys("sentinel:job*")


@pytest.mark.parametrize("name", ["{a}", "*?[]\\", "a\nb", "\x00", "😀" * 256, "<a>'\"", "{index}"])
def test_job_accepts_hostile_names_unchanged(session_cache: redis.Redis, name: str) -> None:
    fill(3, provider=name, model=name, owner=name)
    fill(3, "other")
    job = finished(start(Plan(Filters(name, name, name), Move("to" + name, name, name)), actor=name).key)
    assert (job.state, job.done, job.provider, job.reason, job.actor) == ("done", 3, name, name, name)
    assert sessions.filter(provider="to" + name).count() == 3


@pytest.mark.slow
@pytest.mark.parametrize("plan", [DELETE, MOVE_ALL])
def test_stop_ends_after_whole_batches_and_resume_does_the_rest(session_cache: redis.Redis, plan: Plan) -> None:
    number = 4 * BATCH_SIZE + 7
    fill(number)
    with gate(BATCH_SIZE + 3) as held:
        key = start(plan).key
        assert held.reached.wait(SECONDS)
        stopped = jobs.stop(key, within_seconds=0)
        assert stopped is not None
        assert stopped.changed
        assert (stopped.job.state, stopped.job.done) == ("stopped", 2 * BATCH_SIZE)
        held.open.set()
        wait_until(no_threads)
        assert len(held.announced) == len(set(held.announced)) == 2 * BATCH_SIZE
    job = jobs.get(key)
    assert job is not None
    assert (job.state, job.done, job.expected) == ("stopped", 2 * BATCH_SIZE, number)
    assert sessions.filter(provider="openai").count() == number - job.done
    assert not session_cache.exists(f"sentinel:job:{{index}}:{key}:runner")

    resumed = jobs.resume(key)
    assert resumed is not None
    assert resumed.changed
    job = finished(key)
    assert (job.state, job.done, job.expected) == ("done", number, number)
    assert sessions.filter(provider="openai").count() == 0


@pytest.mark.slow
def test_stop_returns_the_final_number_when_the_worker_notices_in_time(session_cache: redis.Redis) -> None:
    fill(10 * BATCH_SIZE)
    with gate(1) as held:
        key = start(DELETE).key
        held.reached.wait(SECONDS)
        threading.Timer(0.2, held.open.set).start()
        stopped = jobs.stop(key, within_seconds=SECONDS)
        assert stopped is not None
        assert not session_cache.exists(f"sentinel:job:{{index}}:{key}:runner")
        assert stopped.job.state == "stopped"
        assert stopped.job.done == 10 * BATCH_SIZE - sessions.all().count()
    wait_until(no_threads)


@pytest.mark.slow
def test_expected_recounts_what_is_left_when_resumed(session_cache: redis.Redis) -> None:
    fill(3 * BATCH_SIZE)
    with gate(1) as held:
        key = start(DELETE).key
        held.reached.wait(SECONDS)
        jobs.stop(key, within_seconds=0)
        held.open.set()
        wait_until(no_threads)
    fill(10, "new")
    with gate(1) as held:
        jobs.resume(key)
        held.reached.wait(SECONDS)
        half = jobs.get(key)
        assert half is not None
        assert (half.done, half.expected) == (2 * BATCH_SIZE, 3 * BATCH_SIZE + 10)
    job = finished(key)
    assert (job.done, job.expected) == (3 * BATCH_SIZE + 10, 3 * BATCH_SIZE + 10)


@pytest.mark.slow
def test_expected_keeps_up_when_more_turn_up_under_way(session_cache: redis.Redis) -> None:
    fill(BATCH_SIZE + 1)
    with gate(1) as held:
        key = start(DELETE).key
        held.reached.wait(SECONDS)
        fill(5, "new", created_at=1_600_000_000)
        held.open.set()
        job = finished(key)
    assert (job.done, job.expected) == (BATCH_SIZE + 6, BATCH_SIZE + 6)


def test_stop_and_resume_change_nothing_when_the_job_is_done(session_cache: redis.Redis) -> None:
    job = finished(start(DELETE).key)
    record = session_cache.get(f"sentinel:job:{{index}}:{job.key}")
    for call in (jobs.stop, jobs.resume):
        again = call(job.key)
        assert again is not None
        assert (again.job, again.changed) == (job, False)
    assert session_cache.get(f"sentinel:job:{{index}}:{job.key}") == record


def test_resume_changes_nothing_when_the_job_runs(session_cache: redis.Redis) -> None:
    fill(2)
    with gate(1) as held:
        key = start(DELETE).key
        held.reached.wait(SECONDS)
        resumed = jobs.resume(key)
        assert resumed is not None
        assert not resumed.changed
        assert len(threads()) == 1
    assert finished(key).done == 2


@pytest.mark.slow
def test_session_that_was_moved_is_skipped(session_cache: redis.Redis) -> None:
    fill(2 * BATCH_SIZE)
    with gate(1) as held:
        key = start(MOVE_ALL).key
        held.reached.wait(SECONDS)
        waiting = next(entry.session for entry in sessions.filter(provider="openai").page().entries)
        sessions.rebind(waiting, provider="anthropic", model="claude", reason="by hand")
        held.open.set()
        job = finished(key)
    assert (job.done, job.expected) == (2 * BATCH_SIZE - 1, 2 * BATCH_SIZE)
    assert sessions.get(waiting.id) == sample(waiting.id, provider="anthropic", model="claude")


def test_wait_returns_the_job_as_it_is_when_it_takes_longer(session_cache: redis.Redis) -> None:
    fill(2)
    with gate(1) as held:
        job = start(DELETE)
        held.reached.wait(SECONDS)
        begun = time.monotonic()
        assert jobs.wait(job, 0.2).state == "running"
        assert 0.2 <= time.monotonic() - begun < 5
    assert jobs.wait(job, SECONDS).state == "done"


CALLS: list[Callable[[], Any]] = [
    lambda: jobs.count(DELETE),
    lambda: start(DELETE),
    lambda: jobs.get("ab" * 16),
    jobs.recent,
    lambda: jobs.stop("ab" * 16),
    lambda: jobs.resume("ab" * 16),
]


@pytest.mark.parametrize("number", range(len(CALLS)))
def test_every_call_reports_it_when_the_store_is_down(settings: Any, number: int) -> None:
    settings.CACHES = {"default": cache_config(f"redis://127.0.0.1:{free_port()}/0")}
    with pytest.raises(SessionStoreUnavailable):
        CALLS[number]()


@pytest.mark.parametrize("number", range(len(CALLS)))
def test_every_call_reports_it_when_there_is_no_index(session_cache: redis.Redis, settings: Any, number: int) -> None:
    settings.SESSIONS_STICKY = {"INDEX": False}
    with pytest.raises(SessionNotSupported, match=r"SESSIONS_STICKY\['INDEX'\] is False"):
        CALLS[number]()
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    with pytest.raises(SessionNotSupported, match="django-redis can"):
        CALLS[number]()
