"""Run a job."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from copy import copy
from threading import current_thread
from typing import Any

from django.db import connections
from django.dispatch import Signal

from sessions_sticky.exceptions import SessionError, SessionStoreUnavailable
from sessions_sticky.jobs.job import Job, Plan
from sessions_sticky.jobs.records import Records, done_key
from sessions_sticky.manager import SessionManager
from sessions_sticky.queries.bulk import Bulk, Recorded
from sessions_sticky.queries.index_reader import IndexReader, Progress
from sessions_sticky.signals import send_signal

logger = logging.getLogger("sessions_sticky")

LEASE_SECONDS = 10.0
"""How long after its last heartbeat a worker is considered dead."""
TICK_SECONDS = 0.25
"""Interval at which a worker renews its lease and checks whether it was stopped."""
STORE_TIMEOUT_SECONDS = 60.0
"""How long a worker retries while the store is unavailable. Later, a process that watches adopts the job."""
RETRY_SECONDS = 0.5


class _Stopped(Exception):  # not an error
    """The job was stopped, is gone, or another worker has taken it over."""


class JobRunner:
    """Runs one job while its state is "running" and no other worker has its lease."""

    def __init__(self, manager: SessionManager, job: Job) -> None:
        self._job = job
        self._manager = copy(manager)
        self._manager._fixed_store = manager._store  # fixed, even if the settings change
        self._records = Records(manager._store.operators)
        self._token = secrets.token_hex(16)
        self._next_tick = self._answered_at = time.monotonic()
        self._may_continue = True
        self._expected = job.expected
        self._progress: Progress | None = None

    def run(self) -> bool:
        """Run the job in this thread; return False if another worker runs it."""
        if not self._records.lease(self._job.key, self._token, LEASE_SECONDS):
            return False
        thread = current_thread()
        name, thread.name = thread.name, f"job {self._job.key}"
        try:
            self._run_with_retries()
        except SessionStoreUnavailable as exc:
            logger.warning("job %s suspended until a worker adopts it: %s", self._job.key, exc)
        finally:
            connections.close_all()  # receivers of signals may have used the database
            thread.name = name
        return True

    def run_here(self, progress: Progress) -> int:
        """Run the job for a command; return the number of changed sessions. Errors and interrupts stop the job.

        Raises `KeyboardInterrupt` if the job is stopped elsewhere.
        """
        self._records.lease(self._job.key, self._token, LEASE_SECONDS)
        self._progress = progress
        try:
            done = self._change_all()
            self._finish()
        except BaseException as exc:
            with suppress(SessionStoreUnavailable):
                self._records.change(self._job.key, ("running",), state="stopped")
            if isinstance(exc, _Stopped):
                raise KeyboardInterrupt from exc
            raise
        finally:
            with suppress(SessionStoreUnavailable):
                self._records.lease(self._job.key, self._token, 0)
        return done

    def _run_with_retries(self) -> None:
        while True:
            try:
                return self._do()
            except SessionStoreUnavailable:
                if time.monotonic() - self._answered_at > STORE_TIMEOUT_SECONDS:
                    raise
                time.sleep(RETRY_SECONDS)

    def _do(self) -> None:
        """Run the rest of the job until it is stopped."""
        try:
            self._heartbeat()
            if self._may_continue:
                self._update_expected()
                self._change_all()
                self._finish()
        except _Stopped:
            pass
        except SessionStoreUnavailable:
            raise
        except Exception as exc:
            logger.exception("job %s failed", self._job.key)
            detail = str(exc) if isinstance(exc, SessionError) else "An internal error; see the log of the server."
            self._records.change(self._job.key, ("running",), state="failed", detail=detail)
        self._records.lease(self._job.key, self._token, 0)

    def _finish(self) -> None:
        """Record the end, and log how many sessions all workers of the job have changed."""
        self._records.change(self._job.key, ("running", "stopped"), state="done")
        found = self._records.find(self._job.key)
        number = found.job.done if found else 0
        logger.info("job %s done: changed %d sessions in all, for %s", self._job.key, number, self._job.actor)

    def _change_all(self) -> int:
        filters, move, _ = self._job.plan
        store, ttl_seconds, key = self._manager._store.operators, self._manager.ttl_seconds, self._job.key
        bulk = Bulk(store, ttl_seconds, self._job.actor, self._send_signal, Recorded(done_key(key), key))
        if move:
            return bulk.rebind_all(filters, move, self._check, self._expected)
        return bulk.delete_all(filters, self._check, self._expected)

    def _check(self, done: int, expected: int) -> None:
        """Raise `_Stopped` between two batches once the job may not continue."""
        self._tick()
        if self._progress is not None:
            self._progress(done, expected)
        if not self._may_continue:
            raise _Stopped

    def _send_signal(self, signal: Signal, **arguments: Any) -> None:
        """Renew the lease while signal receivers run; signals are sent for every change."""
        self._tick()
        send_signal(signal, self._manager, **arguments)

    def _tick(self) -> None:
        if time.monotonic() >= self._next_tick:
            self._heartbeat()

    def _heartbeat(self) -> None:
        """Renew the lease and the record's time; the job may continue unless it was stopped, is gone or taken over."""
        self._next_tick = time.monotonic() + TICK_SECONDS
        held = self._records.lease(self._job.key, self._token, LEASE_SECONDS)
        found = self._records.find(self._job.key)
        self._answered_at = time.monotonic()
        self._may_continue = bool(held and found and found.job.state == "running")
        if found and self._may_continue:
            self._records.update(found, expected=max(found.job.expected, found.job.done))

    def _update_expected(self) -> None:
        self._expected = remaining(self._manager, self._job.plan, lambda: self._check(0, 0))
        if found := self._records.find(self._job.key):
            self._records.update(found, expected=found.job.done + self._expected)


def remaining(manager: SessionManager, plan: Plan, check: Callable[[], object] = lambda: None) -> int:
    """Count what a plan would change now; with conditions by reading the sessions, `check` being called between."""
    if not plan.filters.conditions:
        number = manager.all().filter(**plan.filters.fields).count()
        if plan.already_done is not None:
            number -= manager.filter(**plan.already_done.fields).count()
        return max(number, 0)
    found: set[str] = set()
    target = plan.move if plan.move and not plan.move.is_back else None
    for rows in IndexReader(manager._store.operators, manager.ttl_seconds).scan(plan.filters):
        check()
        found.update(row.session.id for row in rows if target is None or target.of(row.session) != row.session)
    return len(found)
