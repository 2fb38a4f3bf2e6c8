"""Doing a job in a thread of this process."""

from __future__ import annotations

import logging
import secrets
import time
from copy import copy
from threading import Thread
from typing import Any

from django.db import connections

from sessions_sticky.connections.commands import Command, Script
from sessions_sticky.exceptions import SessionError, SessionStoreUnavailable
from sessions_sticky.jobs import records
from sessions_sticky.jobs.records import Job, Plan
from sessions_sticky.manager import SessionManager
from sessions_sticky.policy import Operation
from sessions_sticky.queries.bulk import Bulk, Move
from sessions_sticky.queries.index_reader import Row
from sessions_sticky.queries.reads import Overview
from sessions_sticky.signals import Announcement
from sessions_sticky.stores import redis
from sessions_sticky.stores.base import Store

logger = logging.getLogger("sessions_sticky")

LEASE_SECONDS = 10.0
"""How long after its last sign of life a worker is taken to be gone."""
TICK_SECONDS = 0.25
"""How often a worker gives a sign of life, and looks whether it is to stop."""
PATIENCE_SECONDS = 60.0
"""How long a worker waits for a store that does not answer. Somebody else may go on after that."""
RETRY_SECONDS = 0.5

TALLIED = {
    script.sha: Script(*script.names[:-1], "count_change", script.names[-1]) for script in (redis.REMOVE, redis.REPLACE)
}
"""The scripts that make changes, by the SHA-1 of those that do not count them."""


class TalliedBulk(Bulk):
    """Bulk operations that count their changes in a key, each in the step that makes it."""

    def __init__(self, store: Store[Any], ttl_seconds: int, actor: str, tally: str) -> None:
        super().__init__(store, ttl_seconds, actor)
        self._tally = tally

    def _request(self, row: Row, move: Move | None) -> Command:
        _, sha, number, *rest = super()._request(row, move).args
        return TALLIED[sha].call([*rest[:number], self._tally], *rest[number:])


class JobRunner:
    """Does one job, as long as its record says "running" and nobody else has its lease."""

    def __init__(self, manager: SessionManager, job: Job) -> None:
        self._job = job
        self._manager = copy(manager)
        self._store = self._manager._fixed_store = manager._store  # whatever the settings will be
        self._token = secrets.token_hex(16)
        self._next_tick = self._answered_at = time.monotonic()

    def start(self) -> bool:
        """Begin, in a thread; False when somebody else is doing it."""
        if not self._store.send(records.lease(self._job.key, self._token, LEASE_SECONDS)):
            return False
        Thread(target=self._work, name=f"job {self._job.key}", daemon=True).start()
        return True

    def _work(self) -> None:
        try:
            self._persist()
        except SessionStoreUnavailable as exc:
            logger.warning("left job %s, whoever looks at it goes on: %s", self._job.key, exc)
        finally:
            connections.close_all()  # receivers of signals may have used the database

    def _persist(self) -> None:
        while True:
            try:
                return self._manager._run(self._do())
            except SessionStoreUnavailable:
                if time.monotonic() - self._answered_at > PATIENCE_SECONDS:
                    raise
                time.sleep(RETRY_SECONDS)

    def _do(self) -> Operation[None]:
        """Do what is left of the job, as far as it may."""
        try:
            if (yield from self._may_go_on()):
                yield from self._expect()
                if (yield from self._attend(self._operation())):
                    yield from records.change(self._job.key, ("running", "stopped"), state="done")
        except SessionStoreUnavailable:
            raise
        except Exception as exc:
            logger.exception("job %s failed", self._job.key)
            detail = str(exc) if isinstance(exc, SessionError) else "An internal error; see the log of the server."
            yield from records.change(self._job.key, ("running",), state="failed", detail=detail)
        yield records.lease(self._job.key, self._token, 0)

    def _operation(self) -> Operation[int]:
        filters, move, _ = self._job.plan
        ttl_seconds, tally = self._manager.ttl_seconds, records.tally(self._job.key)
        bulk = TalliedBulk(self._store, ttl_seconds, self._job.actor, tally)
        return bulk.rebind_all(filters, move, None) if move else bulk.delete_all(filters, None)

    def _expect(self) -> Operation[None]:
        found = yield from records.find(self._job.key)
        if found:
            number = yield from remaining(self._store, self._manager.ttl_seconds, self._job.plan)
            yield from records.update(found, expected=found.job.done + number)

    def _attend(self, operation: Operation[Any]) -> Operation[bool]:
        """Run an operation with signs of life in between; False when it was stopped."""
        reply, go_on = None, True
        while True:
            try:
                request = operation.send(reply)
            except StopIteration:
                return True
            if time.monotonic() >= self._next_tick:
                go_on = yield from self._may_go_on()
            if not go_on and not isinstance(request, Announcement):  # what has changed is announced yet
                return False
            reply = yield request

    def _may_go_on(self) -> Operation[bool]:
        """Keep the lease and note the time; False when the job is stopped, gone, or somebody else's."""
        self._next_tick = time.monotonic() + TICK_SECONDS
        held = yield records.lease(self._job.key, self._token, LEASE_SECONDS)
        found = yield from records.find(self._job.key)
        self._answered_at = time.monotonic()
        if not held or found is None or found.job.state != "running":
            return False
        yield from records.update(found, expected=max(found.job.expected, found.job.done))
        return True


def remaining(store: Store[Any], ttl_seconds: int, plan: Plan) -> Operation[int]:
    """Count what a plan would change now."""
    overview = Overview(store, ttl_seconds)
    number = yield from overview.count(plan.filters)
    if plan.already_done is not None:
        number -= yield from overview.count(plan.already_done)
    return max(number, 0)
