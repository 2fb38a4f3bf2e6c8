"""Jobs with all filters, moves back of a job, and jobs of commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from sessions_sticky import SessionStoreUnavailable, keys, sessions
from sessions_sticky.jobs.job import Job, Plan
from sessions_sticky.jobs.records import Records
from sessions_sticky.jobs.runner import JobRunner
from sessions_sticky.queries import index_reader
from sessions_sticky.queries.bulk import Move
from sessions_sticky.queries.filters import Filters
from tests.sessions_sticky.jobs.calls import DELETE, MOVE_ALL, jobs, quick_ticks  # noqa: F401
from tests.waiting import wait_until

if TYPE_CHECKING:
    import redis

pytestmark = pytest.mark.usefixtures("session_cache", "quick_ticks")


def bound(**providers: str) -> None:
    for name, provider in providers.items():
        sessions.create(name, provider, f"model-{name}", "ann")


def where() -> dict[str, str]:
    return {entry.session.id: entry.session.provider for entry in sessions.all()}


def finished(plan: Plan) -> Job:
    key = jobs.start(plan, actor="ann").key
    wait_until(lambda: jobs.get(key).state != "running")  # type: ignore[union-attr]
    job = jobs.get(key)
    assert job is not None
    return job


def test_undo_moves_back_exactly_what_the_job_has_moved() -> None:
    bound(a="openai", b="openai", c="mistral", d="openai", e="openai")
    done = finished(MOVE_ALL)
    assert (done.done, done.ended_at) == (4, done.updated_at)
    moved = sessions.get("d")
    assert moved is not None
    sessions.rebind(moved, provider="xai", model="grok", reason="by hand")
    sessions.delete("e")
    undo = done.undo
    assert undo is not None
    assert jobs.count(undo) == 2
    back = finished(undo)
    assert (back.state, back.done, back.is_back) == ("done", 2, True)
    assert where() == {"a": "openai", "b": "openai", "c": "mistral", "d": "xai"}
    assert back.reason == "move back: maintenance"
    last = sessions.history("a")[-1]
    assert (last.operation, last.actor) == (back.key, "ann")
    assert sessions.recent()[-1].operation == back.key
    again = back.undo
    assert again is not None
    assert jobs.count(again) == 2


def test_undo_is_none_for_jobs_that_moved_nothing() -> None:
    assert finished(MOVE_ALL).undo is None
    bound(a="openai")
    assert finished(DELETE).undo is None


def test_job_with_conditions_changes_only_what_matches(session_cache: redis.Redis) -> None:
    bound(old="openai", new="openai")
    session_cache.expire(keys.session("old"), sessions.ttl_seconds - 7_200)
    plan = Plan(Filters(idle_for=3_600))
    assert jobs.count(plan) == 1
    job = finished(plan)
    assert (job.done, job.idle_for, job.filters) == (1, 3_600, Filters(idle_for=3_600))
    assert list(where()) == ["new"]


def test_count_leaves_out_what_is_there_already(session_cache: redis.Redis) -> None:
    bound(a="openai", b="mistral", c="openai")
    for name in ("a", "b"):
        session_cache.expire(keys.session(name), sessions.ttl_seconds - 7_200)
    plan = Plan(Filters(idle_for=3_600), Move("mistral", None, "r"))
    assert jobs.count(plan) == 1


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (Plan(Filters()), "Either a filter .*moved_from.* or everything=True"),
        (Plan(Filters(idle_for=1.0), None, True), "Either a filter"),
        (Plan(Filters("a"), Move(None, None, "r")), "A move back needs a filter of moves"),
        (Plan(Filters("a", idle_for=-1.0)), "idle_for must be"),
    ],
)
def test_plan_is_refused_when_it_is_not_clear(plan: Plan, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        jobs.count(plan)


def test_record_of_a_filtered_job_cannot_be_read_without_its_conditions(session_cache: redis.Redis) -> None:
    plan = Plan(Filters(idle_for=3_600))
    stored = msgspec.json.decode(msgspec.json.encode(Job.begin("0" * 32, plan, actor="ann", expected=1)))
    assert "everything" not in stored  # 0.1 requires it, so it skips the record
    assert stored["idle_for"] == 3_600


def test_run_records_the_job_of_a_command() -> None:
    bound(a="openai", b="openai")
    reported: list[tuple[int, int]] = []
    assert jobs.run(MOVE_ALL, actor="cli:ann", progress=lambda *now: reported.append(now)) == 2
    (job,) = jobs.recent()
    assert (job.state, job.done, job.actor, job.in_foreground) == ("done", 2, "cli:ann", True)
    assert reported[-1] == (2, 2)


def test_run_stops_the_job_when_it_is_interrupted() -> None:
    bound(a="openai")

    def interrupt(done: int, expected: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        jobs.run(MOVE_ALL, actor="cli", progress=interrupt)
    (job,) = jobs.recent()
    assert job.state == "stopped"
    assert jobs.resume(job.key) is not None
    wait_until(lambda: jobs.get(job.key).state == "done")  # type: ignore[union-attr]
    assert where() == {"a": "mistral"}


def test_run_raises_when_the_job_is_stopped_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_reader, "BATCH_SIZE", 1)
    bound(a="openai", b="openai", c="openai")

    def stop(done: int, expected: int) -> None:
        (job,) = jobs.recent()
        Records(sessions._store.operators).change(job.key, ("running",), state="stopped")

    with pytest.raises(KeyboardInterrupt):
        jobs.run(DELETE, actor="cli", progress=stop)
    assert 0 < len(where()) < 3


def test_run_raises_when_the_store_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    bound(a="openai")

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise SessionStoreUnavailable("gone")

    def lose(done: int, expected: int) -> None:
        monkeypatch.setattr(Records, "change", fail)
        monkeypatch.setattr(Records, "lease", fail)
        fail()

    with pytest.raises(SessionStoreUnavailable, match="gone"):
        jobs.run(DELETE, actor="cli", progress=lose)


def test_job_of_a_command_that_was_killed_is_stopped_and_not_taken_over() -> None:
    bound(a="openai")
    job = Job.begin("1" * 32, MOVE_ALL, actor="cli:ann", expected=1, in_foreground=True)
    records = Records(sessions._store.operators)
    assert records.write(job)
    found = jobs.get(job.key)
    assert found is not None
    assert (found.state, found.detail) == ("stopped", "Its command has ended.")
    jobs._worker.wake()
    wait_until(lambda: jobs._worker._thread is None)
    assert where() == {"a": "openai"}
    assert records.lease(job.key, "token", 10)
    assert jobs.get(job.key).state == "running"  # type: ignore[union-attr]
    assert not JobRunner(sessions, job).run()
