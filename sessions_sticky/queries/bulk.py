"""Deleting and moving many sessions, each by compare-and-set; see operations.py for the form.

Everything is done in batches and nothing is kept from one to the next: an operation that ends half-way has changed
whole sessions only, and doing it again does the rest.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from sessions_sticky import metrics
from sessions_sticky.connections.commands import Batch
from sessions_sticky.policy import Operation, announce
from sessions_sticky.queries.filters import Cursor, Filters
from sessions_sticky.queries.index_reader import Row, Walk
from sessions_sticky.queries.reads import Overview
from sessions_sticky.session import Session
from sessions_sticky.signals import session_deleted, session_rebound
from sessions_sticky.stores.base import Store

logger = logging.getLogger("sessions_sticky")

BATCH_SIZE = 500
"""Sessions read and changed together; some milliseconds of work, in between which Redis serves its other clients."""

MAX_PASSES = 10
"""How often to begin again while sessions are found: somebody else may be moving them back."""

Progress = Callable[[int, int], object]
"""Called after each batch with the number of sessions changed so far and the number expected; to stop, raise."""


class Move(NamedTuple):
    """Where to move sessions and why; `model` None keeps each session's own."""

    provider: str
    model: str | None
    reason: str

    def of(self, session: Session) -> Session:
        """Return the session as it is once moved."""
        model = session.model if self.model is None else self.model
        return Session(session.id, self.provider, model, session.external_id, session.created_at)


class Bulk:
    """The bulk operations on one store with one idle time; `actor` is who the history says made the changes."""

    def __init__(self, store: Store[Any], ttl_seconds: int, actor: str) -> None:
        self._store = store
        self._ttl_seconds = ttl_seconds
        self._actor = actor
        self._walk = Walk(store, ttl_seconds)

    def delete_all(self, filters: Filters, progress: Progress | None) -> Operation[int]:
        """Delete what the filters mean."""
        number = yield from self._change_all(filters, None, progress)
        logger.info("deleted %d sessions: %s", number, _described(filters))
        return number

    def rebind_all(self, filters: Filters, move: Move, progress: Progress | None) -> Operation[int]:
        """Move what the filters mean."""
        move.of(Session("", "", "", "", 0)).to_json()  # refuses what cannot be stored, even when there is no session
        number = yield from self._change_all(filters, move, progress)
        logger.info("rebound %d sessions: %s, %s", number, _described(filters), move)
        return number

    def _change_all(self, filters: Filters, move: Move | None, progress: Progress | None) -> Operation[int]:
        expected = yield from Overview(self._store, self._ttl_seconds).count(filters)
        done, began_at, newest = 0, int(time.time()), None
        for _ in range(MAX_PASSES):
            changed = 0
            at: Cursor | None = Cursor.start(filters)
            while at is not None:
                rows, at = yield from self._walk.step(at, BATCH_SIZE)
                changed += yield from self._change([row for row in rows if _wanted(row.session, move, newest)], move)
                if progress:
                    progress(done + changed, max(expected, done + changed))
            done += changed
            if not changed:
                break
            # Once more, for what changed under way; but not for ever after sessions that are only being made.
            newest = began_at
        return done

    def _change(self, rows: list[Row], move: Move | None) -> Operation[int]:
        if not rows:
            return 0
        replies = yield Batch([self._request(row, move) for row in rows])
        changed = [row.session for row, (done, _) in zip(rows, replies, strict=True) if done]
        if move is not None:
            metrics.rebound(move.reason, self._actor, len(changed))
        for session in changed:
            if move is None:
                self._store.last_seen.forget(session.id)
                yield from announce(session_deleted, conversation_id=session.id, session=session, actor=self._actor)
            else:
                moved = move.of(session)
                self._store.last_seen.correct(moved)
                yield from announce(
                    session_rebound, session=moved, previous=session, reason=move.reason, actor=self._actor
                )
        return len(changed)

    def _request(self, row: Row, move: Move | None) -> Any:
        session, raw, ttl = row.session, row.raw, self._ttl_seconds
        if move is None:
            return self._store.remove(session.id, session, raw, ttl, actor=self._actor)
        return self._store.replace(session, raw, move.of(session), ttl, reason=move.reason, actor=self._actor)


def _described(filters: Filters) -> str:
    owner = "" if filters.external_id is None else ", of one owner"  # owners stay out of the log
    return f"provider {filters.provider!r}, model {filters.model!r}{owner}"


def _wanted(session: Session, move: Move | None, newest: int | None) -> bool:
    if newest is not None and session.created_at > newest:
        return False
    return move is None or move.of(session) != session
