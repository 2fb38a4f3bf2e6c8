"""Delete and move many sessions, each by compare-and-set.

Sessions are changed in batches without state between them: an interrupted change has changed complete sessions only,
and repeating it continues with the rest.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from sessions_sticky import metrics
from sessions_sticky.conf import check_target, conf
from sessions_sticky.connections.commands import Batch
from sessions_sticky.exceptions import SessionStoreUnavailable
from sessions_sticky.queries.filters import Age, Filters
from sessions_sticky.queries.index_reader import IndexReader, Row
from sessions_sticky.queries.reads import Reads
from sessions_sticky.session import Session, check_names
from sessions_sticky.signals import session_deleted, session_rebound
from sessions_sticky.stores.base import Store
from sessions_sticky.stores.history import Change, bulk_event
from sessions_sticky.stores.usage import add_commands, move_sums

logger = logging.getLogger("sessions_sticky")

NO_AGE = Age()

MAX_PASSES = 10
"""Maximum number of passes: another process may be moving sessions back."""

Progress = Callable[[int, int], object]
"""Called after each batch with the number of sessions changed so far and the number expected; to stop, raise."""


class Move(NamedTuple):
    """The target of a move and its reason; `model` None keeps the model of each session."""

    provider: str
    model: str | None
    reason: str

    def of(self, session: Session) -> Session:
        """Return the session after the move."""
        model = session.model if self.model is None else self.model
        return Session(session.id, self.provider, model, session.external_id, session.created_at)

    def check(self) -> None:
        """Raise `InvalidSession` for a blank name or reason, and for values that cannot be stored."""
        check_names(to_provider=self.provider, reason=self.reason)
        check_target(self.provider)
        if self.model is not None:
            check_names(to_model=self.model)
        Session("", self.provider, self.model or "", self.reason, 0).to_json()


class Bulk:
    """Bulk changes in one store; `actor` is their author in the history, `counter` a key that counts them."""

    def __init__(
        self, store: Store, ttl_seconds: int, actor: str, send_signal: Callable[..., object], counter: str = ""
    ) -> None:
        self._store = store
        self._ttl_seconds = ttl_seconds
        self._actor = actor
        self._send_signal = send_signal
        self._recorded = {"counter": counter, "is_bulk": True}
        self._reader = IndexReader(store, ttl_seconds)

    def delete_all(self, filters: Filters, progress: Progress | None, age: Age = NO_AGE) -> int:
        """Delete what matches the filters."""
        number = self._change_all(filters, age, None, progress)
        logger.info("deleted %d sessions: %s", number, _described(filters))
        return number

    def rebind_all(self, filters: Filters, move: Move, progress: Progress | None, age: Age = NO_AGE) -> int:
        """Move what matches the filters."""
        move.check()
        number = self._change_all(filters, age, move, progress)
        logger.info("rebound %d sessions: %s, %s", number, _described(filters), move)
        return number

    def _change_all(self, filters: Filters, age: Age, move: Move | None, progress: Progress | None) -> int:
        expected = Reads(self._store, self._ttl_seconds).count(filters, age)
        done, began_at, newest = 0, int(time.time()), None
        try:
            for _ in range(MAX_PASSES):
                before = done
                for rows in self._reader.scan(filters, age):
                    done += self._change([row for row in rows if _wanted(row.session, move, newest)], move)
                    if progress:
                        progress(done, max(expected, done))
                if done == before:
                    break
                # Repeat for sessions that moved during the pass, but not endlessly for new sessions.
                newest = began_at
        finally:
            self._record(filters, move, done)
        return done

    def _record(self, filters: Filters, move: Move | None, number: int) -> None:
        """Add what was done, all of it or until it was stopped, to the recent events as one."""
        if not (number and conf.history_length):
            return
        change = Change("deleted", None, None, "", self._actor)
        if move is not None:
            moved = Session("", move.provider, move.model or filters.model or "", "", 0)
            change = Change("rebound", None, moved, move.reason, self._actor)
        try:
            self._store.send(bulk_event(change, filters, number))
        except SessionStoreUnavailable as exc:
            logger.warning("bulk operation is not among the recent events: %s", exc)

    def _change(self, rows: list[Row], move: Move | None) -> int:
        if not rows:
            return 0
        replies = self._store.send(Batch([self._request(row, move) for row in rows]))
        changed = [row.session for row, (done, _) in zip(rows, replies, strict=True) if done]
        if move is not None:
            self._count(move, Counter(session.provider for session in changed))
        for session in changed:
            if move is None:
                self._store.last_seen.forget(session.id)
                self._send_signal(session_deleted, conversation_id=session.id, session=session, actor=self._actor)
            else:
                moved = move.of(session)
                self._store.last_seen.correct(moved)
                self._send_signal(
                    session_rebound, session=moved, previous=session, reason=move.reason, actor=self._actor
                )
        return len(changed)

    def _count(self, move: Move, numbers: Counter[str]) -> None:
        for from_provider, number in numbers.items():
            metrics.rebound(move.reason, self._actor, from_provider, move.provider, number)
        try:
            self._store.send(add_commands(move_sums(move.reason, self._actor, numbers, move.provider)))
        except SessionStoreUnavailable as exc:
            logger.warning("moves not counted: %s", exc)

    def _request(self, row: Row, move: Move | None) -> Any:
        session, raw, ttl = row.session, row.raw, self._ttl_seconds
        if move is None:
            return self._store.remove(session.id, session, raw, ttl, actor=self._actor, **self._recorded)
        return self._store.replace(
            session, raw, move.of(session), ttl, reason=move.reason, actor=self._actor, **self._recorded
        )


def _described(filters: Filters) -> str:
    owner = "" if filters.external_id is None else ", of one owner"  # do not log owners
    return f"provider {filters.provider!r}, model {filters.model!r}{owner}"


def _wanted(session: Session, move: Move | None, newest: int | None) -> bool:
    if newest is not None and session.created_at > newest:
        return False
    return move is None or move.of(session) != session
