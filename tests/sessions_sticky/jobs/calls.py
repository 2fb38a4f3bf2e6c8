"""Jobs for tests: begun, held up half-way, waited for."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from sessions_sticky import session_deleted, session_rebound, sessions
from sessions_sticky.connections.commands import Batch
from sessions_sticky.jobs import runner
from sessions_sticky.jobs.job import Job, Plan, State
from sessions_sticky.jobs.records import Records
from sessions_sticky.jobs.service import Jobs, Worker
from sessions_sticky.queries.bulk import Move
from sessions_sticky.queries.filters import Filters
from tests.sessions_sticky.calls import sample
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

OPENAI = Filters(provider="openai")
DELETE = Plan(OPENAI)
MOVE_ALL = Plan(OPENAI, Move("mistral", None, "maintenance"))
SECONDS = 30
"""How long a test waits for an event that must happen."""

jobs = Jobs()


@pytest.fixture
def quick_ticks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let threads look at their record before every request; none is left in the end."""
    monkeypatch.setattr(runner, "TICK_SECONDS", 0)  # a look at the record before every request
    monkeypatch.setattr(runner, "RETRY_SECONDS", 0.05)
    yield
    wait_until(no_threads)


def threads() -> list[str]:
    """Return the names of the threads that run a job."""
    return [name for name in _worker_threads() if name != "job worker"]


def _worker_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("job ")]


def fill(number: int, prefix: str = "conv", **fields: Any) -> None:
    store = sessions._store
    bound = [sample(f"{prefix}-{n}", **fields) for n in range(number)]
    for first in range(0, number, 1_000):
        store.send(Batch([store.put(session, 3_600, actor="gateway") for session in bound[first : first + 1_000]]))


def start(plan: Plan, actor: str = "alice") -> Job:
    return jobs.start(plan, actor=actor)


def finished(key: str) -> Job:
    """Return a job once it does not run; another worker adopts it if its own has died."""

    def adopt() -> Job | None:
        job = jobs.get(key)
        if job and job.state == "running":
            Worker(sessions).wake(job)
        return job

    job: Job = wait_until(lambda: (job := adopt()) and job.state != "running" and job)
    return job


def no_threads() -> bool:
    """Return whether no thread runs a job, or looks for one."""
    return not _worker_threads()


class Gate:
    """A receiver of signals that blocks a job after signals for this number of sessions."""

    def __init__(self, after: int) -> None:
        self.announced: list[str] = []
        self.reached = threading.Event()
        self.open = threading.Event()
        self._after = after

    def __call__(self, session: Any, **kwargs: Any) -> None:
        self.announced.append(session.id)
        if len(self.announced) == self._after:
            self.reached.set()
            assert self.open.wait(SECONDS)


@contextmanager
def gate(after: int) -> Iterator[Gate]:
    receiver = Gate(after)
    for signal in (session_deleted, session_rebound):
        signal.connect(receiver)
    try:
        yield receiver
    finally:
        receiver.open.set()
        for signal in (session_deleted, session_rebound):
            signal.disconnect(receiver)


def abandoned(plan: Plan = DELETE, key: str = "ab" * 16, state: State = "running") -> str:
    """A job whose worker died before it did anything."""
    job = Job.begin(key, plan, actor="alice", expected=jobs.count(plan))
    assert Records(sessions._store).write(msgspec.structs.replace(job, state=state))
    return key
