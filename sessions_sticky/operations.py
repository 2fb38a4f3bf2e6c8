"""The policy: what each method of `SessionManager` does, without the doing.

An operation is a generator: it yields requests of the store and is resumed with their replies (or with
`SessionStoreUnavailable`), so the same lines serve the blocking methods and their async twins.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Generator
from enum import StrEnum
from typing import Any, NamedTuple, TypeVar

from sessions_sticky import keys, metrics
from sessions_sticky.conf import conf
from sessions_sticky.exceptions import (
    InvalidSession,
    SessionConflict,
    SessionOwnerMismatch,
    SessionStoreUnavailable,
)
from sessions_sticky.session import Entry, Session
from sessions_sticky.store import NO_KEY, Store

logger = logging.getLogger("sessions_sticky")

MAX_UNREADABLE = 5
"""Unreadable values that are replaced before a bind gives up: more come only from a store that is out of order."""

T = TypeVar("T")
Operation = Generator[Any, Any, T]


class Outcome(StrEnum):
    """How `resolve` came by its session."""

    HIT = "hit"
    CREATED = "created"
    DEGRADED = "degraded"


class Resolution(NamedTuple):
    """What `resolve` answers."""

    session: Session
    outcome: Outcome


class Operations:
    """The operations on one store with one idle time."""

    def __init__(self, store: Store[Any], ttl_seconds: int) -> None:
        self._store = store
        self._ttl_seconds = ttl_seconds
        self._seen = store.last_seen

    def get(self, conversation_id: str) -> Operation[Session | None]:
        """Read."""
        keys.check(conversation_id)
        raw = yield self._store.read(keys.session(conversation_id))
        return _readable(conversation_id, raw)

    def inspect(self, conversation_id: str) -> Operation[Entry | None]:
        """Read with the idle time left."""
        session = yield from self.get(conversation_id)
        if session is None:
            return None
        left_ms = yield self._store.expiry(keys.session(conversation_id))
        if left_ms == NO_KEY:
            return None
        return Entry(session, None if left_ms is None or left_ms < 0 else -(-left_ms // 1000))

    def create(self, conversation_id: str, provider: str, model: str, external_id: str) -> Operation[Session]:
        """Store, whatever was there."""
        keys.check(conversation_id)
        asked_at = time.monotonic()
        session = _proposal(conversation_id, provider, model, external_id)
        yield self._store.write(keys.session(conversation_id), session.to_json(), self._ttl_seconds)
        self._remember(session, asked_at)
        _log("created", conversation_id)
        return session

    def touch(self, conversation_id: str) -> Operation[bool]:
        """Extend."""
        keys.check(conversation_id)
        found = yield self._store.touch(keys.session(conversation_id), self._ttl_seconds)
        _log("touched" if found else "miss", conversation_id)
        return bool(found)

    def resolve(self, conversation_id: str, provider: str, model: str, external_id: str) -> Operation[Resolution]:
        """Return the binding, or make it."""
        keys.check(conversation_id)
        asked_at = time.monotonic()
        seen = self._seen.recall(conversation_id, asked_at - self._ttl_seconds)
        proposal = None
        try:
            raw = yield self._store.read_and_touch(keys.session(conversation_id), self._ttl_seconds)
            bound = _readable(conversation_id, raw)
            if bound is None:
                _log("miss", conversation_id)
                if seen is not None and (yield from self._was_deleted(conversation_id)):
                    seen = None
                # A binding that the store has lost (restart, failover) is made again as it was.
                proposal = seen or _proposal(conversation_id, provider, model, external_id)
                bound = yield from self._bind(proposal, raw)
            outcome = Outcome.CREATED if bound is proposal else Outcome.HIT
        except SessionStoreUnavailable as exc:
            if conf.on_store_error == "raise":
                raise
            # Without a cause nobody asked: the breaker is open, and whoever opened it has warned.
            level = logging.WARNING if exc.__cause__ else logging.DEBUG
            logger.log(level, "degraded %r: %s", conversation_id, exc, extra={"conversation_id": conversation_id})
            bound = proposal or seen or _proposal(conversation_id, provider, model, external_id)
            outcome = Outcome.DEGRADED
        self._remember(bound, asked_at)
        metrics.resolved(outcome, bound.provider, asked_at)
        if bound.external_id != external_id:
            raise SessionOwnerMismatch(conversation_id)
        _log(outcome, conversation_id)
        return Resolution(bound, outcome)

    def rebind(self, session: Session, provider: str, model: str, reason: str) -> Operation[Session]:
        """Move by compare-and-set."""
        keys.check(session.id)
        moved = Session(session.id, provider, model, session.external_id, session.created_at)
        key, value, expected = keys.session(session.id), moved.to_json(), session.to_json()
        while True:
            asked_at = time.monotonic()
            done, found = yield self._store.replace(key, expected, value, self._ttl_seconds)
            if done:
                break
            current = _readable(session.id, found)
            if current != session:
                raise SessionConflict(session.id, current)
            expected = found  # the same binding, as another program writes it
        self._remember(moved, asked_at)
        metrics.rebound(reason)
        logger.info(
            "rebound %r from %r, model %r, to %r, model %r: %r",
            *(session.id, session.provider, session.model, provider, model, reason),
            extra={"conversation_id": session.id},
        )
        return moved

    def delete(self, conversation_id: str) -> Operation[bool]:
        """Unbind, for every process that remembers the session too."""
        keys.check(conversation_id)
        # First, so that no process finds the session gone without finding out why.
        yield self._store.write(keys.deleted(conversation_id), b"1", self._ttl_seconds)
        found = yield self._store.delete(keys.session(conversation_id))
        self._seen.forget(conversation_id)
        _log("deleted" if found else "miss", conversation_id)
        return bool(found)

    def _bind(self, proposal: Session, unreadable: bytes | None) -> Operation[Session]:
        """Store the proposal unless a session is there by now; return whichever is stored."""
        key, value = keys.session(proposal.id), proposal.to_json()
        for _ in range(MAX_UNREADABLE):
            if unreadable is None:
                found = yield self._store.add(key, value, self._ttl_seconds)
            else:
                found = yield self._store.heal(key, unreadable, value, self._ttl_seconds)
            if found is None:
                return proposal
            if winner := _readable(proposal.id, found):
                return winner
            unreadable = found
        raise SessionStoreUnavailable(f"The session store gave {MAX_UNREADABLE} unreadable values in a row")

    def _was_deleted(self, conversation_id: str) -> Operation[bool]:
        """Tell a session that somebody deleted from one that the store has lost."""
        marker = yield self._store.read(keys.deleted(conversation_id))
        return marker is not None

    def _remember(self, session: Session, asked_at: float) -> None:
        self._seen.remember(session, asked_at, conf.last_seen_size)


def _proposal(conversation_id: str, provider: str, model: str, external_id: str) -> Session:
    session = Session(conversation_id, provider, model, external_id, int(time.time()))
    session.to_json()  # refuses what cannot be stored, whether or not the store is there
    return session


def _readable(conversation_id: str, raw: bytes | None) -> Session | None:
    """Decode a stored value; None, and an error in the log, for what is no session of this conversation."""
    if raw is None:
        return None
    try:
        session = Session.from_json(raw)
        if session.id != conversation_id:
            raise InvalidSession("Not a session: its id is not that of its key")
    except InvalidSession as exc:
        logger.error("unreadable %r: %s", conversation_id, exc, extra={"conversation_id": conversation_id})
        return None
    return session


def _log(event: str, conversation_id: str) -> None:
    if logger.isEnabledFor(logging.DEBUG):
        logger.debug("%s %r", event, conversation_id, extra={"conversation_id": conversation_id})
