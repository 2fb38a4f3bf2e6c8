"""The worker of this process: runs jobs one after the other, also those whose worker has died."""

from __future__ import annotations

import logging
import time
from functools import cache
from threading import Lock, Thread

from django.core.exceptions import ImproperlyConfigured

from sessions_sticky.exceptions import SessionError, SessionNotSupported
from sessions_sticky.jobs.job import Job
from sessions_sticky.jobs.records import Records
from sessions_sticky.jobs.runner import JobRunner
from sessions_sticky.manager import SessionManager

logger = logging.getLogger("sessions_sticky")

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

    def _waiting(self) -> list[JobRunner]:
        """Return the jobs without a worker, the first begun first."""
        found = Records(self._manager._store.operators).recent()
        waiting = [each.job for each in reversed(found) if each.job.state == "running" and not each.is_leased]
        return [JobRunner(self._manager, job) for job in waiting]


@cache
def worker_of(manager: SessionManager) -> Worker:
    """Return this process's worker for a manager."""
    return Worker(manager)
