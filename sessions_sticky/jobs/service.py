"""Jobs: bulk operations that outlive the request that started them, and its worker.

Each process runs one at a time; the others wait, here or for another process. Reading a job changes nothing.
"""

from __future__ import annotations

import secrets
import time
from typing import NamedTuple

from sessions_sticky.exceptions import SessionStoreUnavailable
from sessions_sticky.jobs.job import Job, Plan
from sessions_sticky.jobs.records import Records
from sessions_sticky.jobs.runner import JobRunner, remaining
from sessions_sticky.jobs.worker import Worker, worker_of
from sessions_sticky.manager import SessionManager, sessions
from sessions_sticky.queries.index_reader import Progress
from sessions_sticky.queries.move_cost import MoveCost, move_cost

POLL_SECONDS = 0.02


class Changed(NamedTuple):
    """A job, and whether this call stopped or resumed it."""

    job: Job
    changed: bool


class Jobs:
    """The jobs of one manager's store. Kept for a day after their last change.

    Every method raises `SessionNotSupported` without an index, and `SessionStoreUnavailable`.
    """

    def __init__(self, manager: SessionManager = sessions) -> None:
        self._manager = manager

    def count(self, plan: Plan) -> int:
        """Return the number of sessions that the plan would change, by the index. Raises like `start`."""
        plan.check()
        return remaining(self._manager, plan)

    def cost(self, plan: Plan) -> MoveCost | None:
        """Estimate what a move costs; None for other plans, for moves back and with conditions. Raises like `start`."""
        plan.check()
        if plan.move is None or plan.move.is_back or plan.filters.conditions:
            return None
        return move_cost(self._manager._store.operators, self._manager.ttl_seconds, plan.filters, plan.move)

    def start(self, plan: Plan, *, actor: str) -> Job:
        """Start a job; the history records `actor`. With conditions its worker counts what it is going to change.

        Raises `ValueError` unless the plan has either a filter or `everything`, `InvalidSession` for names that
        cannot be stored.
        """
        plan.check()
        expected = 0 if plan.filters.conditions else remaining(self._manager, plan)
        job = Job.begin(secrets.token_hex(16), plan, actor=actor, expected=expected)
        self._records.write(job)
        self._worker.wake(job)
        return job

    def run(self, plan: Plan, *, actor: str, progress: Progress) -> int:
        """Run a job in this thread, and return the number of changed sessions. Raises like `start` and `progress`.

        An error or an interrupt stops it; no other process takes it over, but `resume` continues it.
        """
        expected = self.count(plan)
        job = Job.begin(secrets.token_hex(16), plan, actor=actor, expected=expected, in_foreground=True)
        self._records.write(job)
        return JobRunner(self._manager, job).run_here(progress)

    def get(self, key: str) -> Job | None:
        """Return a job, None if there is none."""
        found = self._records.find(key)
        return found.job if found else None

    def recent(self) -> list[Job]:
        """Return at most 100 recent jobs, the most recently started first."""
        return [found.job for found in self._records.recent()]

    def watch(self) -> None:
        """Let this process adopt jobs whose worker has died, from now on; a server does so from its first request."""
        self._worker.watch()

    def wait(self, job: Job, seconds: float) -> Job:
        """Wait for the end of the job, at most for the given time, and return it; never raises."""
        deadline = time.monotonic() + seconds
        while job.state == "running" and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
            try:
                job = self.get(job.key) or job
            except SessionStoreUnavailable:
                continue  # the job continues
        return job

    def stop(self, key: str, *, within_seconds: float = 1.0) -> Changed | None:
        """Stop a running job, and wait for its worker; return None if there is no such job."""
        changed = self._records.change(key, ("running",), state="stopped")
        deadline = time.monotonic() + within_seconds
        while (found := self._records.find(key)) and found.job.state == "stopped":
            if not found.is_leased or time.monotonic() > deadline:
                break
            time.sleep(POLL_SECONDS)
        return Changed(found.job, changed) if found else None

    def resume(self, key: str) -> Changed | None:
        """Resume a job that was stopped, has failed or lost its worker; return None if there is no such job."""
        changed = self._records.change(key, ("stopped", "failed"), state="running", detail="", in_foreground=False)
        job = self.get(key)
        if job and job.state == "running":
            self._worker.wake(job)
        return Changed(job, changed) if job else None

    @property
    def _worker(self) -> Worker:
        return worker_of(self._manager)

    @property
    def _records(self) -> Records:
        return Records(self._manager._store.operators)


jobs = Jobs()
"""The jobs of the default manager."""
