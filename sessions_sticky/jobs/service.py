"""Jobs: bulk operations that outlive the request that started them, and its worker.

Each process has a worker that runs one at a time; the others wait, here or for another process. Reading a job changes
nothing.
"""

from __future__ import annotations

import logging
import secrets
import time
from functools import cache
from threading import Lock, Thread
from typing import NamedTuple

from django.core.exceptions import ImproperlyConfigured

from sessions_sticky.exceptions import SessionError, SessionNotSupported, SessionStoreUnavailable
from sessions_sticky.jobs.job import Job, Plan
from sessions_sticky.jobs.records import Records
from sessions_sticky.jobs.runner import JobRunner, remaining
from sessions_sticky.manager import SessionManager, sessions
from sessions_sticky.queries.index_reader import Progress
from sessions_sticky.queries.move_cost import MoveCost, move_cost

logger = logging.getLogger("sessions_sticky")

POLL_SECONDS = 0.02
WATCH_SECONDS = 5.0
"""How often a process that watches looks for jobs without a worker."""


class Worker:
    """Runs the jobs of one manager's store in a thread, which ends when no job is left without a worker."""

    def __init__(self, manager: SessionManager) -> None:
        self._manager = manager
        self._lock = Lock()
        self._thread: Thread | None = None
        self._watcher: Thread | None = None
        self._is_asked = False
        self._begun: list[Job] = []

    def wake(self, *begun: Job) -> None:
        """Run jobs that were begun here, and what waits for a worker: now, or after the job that runs here."""
        with self._lock:
            self._is_asked = True
            self._begun += begun
            if self._thread is None or not self._thread.is_alive():  # not alive: this process was forked
                self._thread = Thread(target=self._run, name="job worker", daemon=True)
                self._thread.start()

    def watch(self) -> None:
        """Adopt jobs whose worker has died, from now on: for processes that live long."""
        with self._lock:
            if self._watcher is None or not self._watcher.is_alive():
                self._watcher = Thread(target=self._watch, name="watch of jobs", daemon=True)
                self._watcher.start()

    def _watch(self) -> None:
        while True:
            try:
                if self._waiting():
                    self.wake()
            except (SessionNotSupported, ImproperlyConfigured):
                return
            except SessionError as exc:
                logger.debug("jobs not watched: %s", exc)
            except Exception:  # an unexpected error must not end the watch
                logger.exception("jobs not watched")
            time.sleep(WATCH_SECONDS)

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._is_asked:
                    self._thread = None
                    return
                self._is_asked = False
                begun, self._begun = self._begun, []
            try:
                for job in begun:
                    JobRunner(self._manager, job).run()
                while any(runner.run() for runner in self._waiting()):
                    pass
            except SessionError as exc:
                logger.warning("jobs wait: %s", exc)
            except Exception:  # later jobs must not wait for the next process that watches
                logger.exception("jobs wait")

    def _waiting(self) -> list[JobRunner]:
        """Return the jobs without a worker, the first begun first."""
        found = Records(self._manager._store.operators).recent()
        waiting = [each.job for each in reversed(found) if each.job.state == "running" and not each.is_leased]
        return [JobRunner(self._manager, job) for job in waiting]


@cache
def worker_of(manager: SessionManager) -> Worker:
    """Return this process's worker for a manager."""
    return Worker(manager)


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
