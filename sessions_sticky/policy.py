"""The policy: what each method of `SessionManager` that concerns one session does, without the doing.

An operation is a generator: it yields requests of the store and is resumed with their replies (or with
`SessionStoreUnavailable`), so the same lines serve the blocking methods and their async twins. It also yields signals
to be sent.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Generator
from typing import Any, TypeVar

from django.dispatch import Signal

from sessions_sticky import keys, metrics
from sessions_sticky.conf import conf
from sessions_sticky.exceptions import (
    InvalidSession,
    SessionConflict,
    SessionOwnerMismatch,
    SessionStoreUnavailable,
)
from sessions_sticky.session import Entry, Outcome, Resolution, Session, session_of
from sessions_sticky.signals import Announcement, session_created, session_deleted, session_rebound
from sessions_sticky.stores import index
from sessions_sticky.stores.base import NO_KEY, Store

logger = logging.getLogger("sessions_sticky")

MAX_UNREADABLE = 5
"""Unreadable values that are replaced before a bind gives up: more come only from a store that is out of order."""
WARN_SECONDS = 1.0

REMADE = "lost by the store"
"""The reason of a binding that was made again as it was."""

T = TypeVar("T")
Operation = Generator[Any, Any, T]


class Operations:
    """The operations on one store with one idle time; `actor` is who the history says made the changes."""

    def __init__(self, store: Store[Any], ttl_seconds: int, actor: str) -> None:
        self._store = store
        self._ttl_seconds = ttl_seconds
        self._actor = actor
        self._seen = store.last_seen

    def get(self, conversation_id: str) -> Operation[Session | None]:
        """Read."""
        keys.check(conversation_id)
        raw = yield self._store.read(keys.session(conversation_id))
        return readable(conversation_id, raw)

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
        raw = yield self._store.put(session, self._ttl_seconds, actor=self._actor)
        former = readable(conversation_id, raw)
        if former is not None and conf.index and index.zsets(former) != index.zsets(session):
            yield from self._refresh(session, session.to_json(), former)
        self._remember(session, asked_at)
        self._note_refreshed(session)
        _log("created", conversation_id)
        yield from announce(session_created, session=session, actor=self._actor)
        return session

    def touch(self, conversation_id: str) -> Operation[bool]:
        """Extend."""
        keys.check(conversation_id)
        raw = yield self._store.read_and_touch(keys.session(conversation_id), self._ttl_seconds)
        session = readable(conversation_id, raw)
        if session is not None:
            yield from self._refresh_when_due(session, raw)
        _log("touched" if session else "miss", conversation_id)
        return session is not None

    def resolve(self, conversation_id: str, provider: str, model: str, external_id: str) -> Operation[Resolution]:
        """Return the binding, or make it."""
        keys.check(conversation_id)
        asked_at = time.monotonic()
        seen = self._seen.recall(conversation_id, asked_at - self._ttl_seconds)
        proposal = None
        reason = ""
        try:
            raw = yield self._store.read_and_touch(keys.session(conversation_id), self._ttl_seconds)
            bound = readable(conversation_id, raw)
            if bound is None:
                _log("miss", conversation_id)
                if seen is not None and (yield from self._was_deleted(conversation_id)):
                    seen = None
                # A binding that the store has lost (restart, failover) is made again as it was.
                proposal = seen or _proposal(conversation_id, provider, model, external_id)
                reason = REMADE if seen else ""
                bound = yield from self._bind(proposal, raw, reason)
            outcome = Outcome.CREATED if bound is proposal else Outcome.HIT
        except SessionStoreUnavailable as exc:
            if conf.on_store_error == "raise":
                raise
            level = logging.WARNING if self._is_news(exc) else logging.DEBUG
            logger.log(level, "degraded %r: %s", conversation_id, exc, extra={"conversation_id": conversation_id})
            bound = proposal or seen or _proposal(conversation_id, provider, model, external_id)
            outcome = Outcome.DEGRADED
        self._remember(bound, asked_at)
        metrics.resolved(outcome, bound.provider, asked_at)
        if outcome is Outcome.CREATED:
            yield from announce(session_created, session=bound, actor=self._actor)
        elif outcome is Outcome.HIT:
            yield from self._refresh_when_due(bound, raw, seen)
        if bound.external_id != external_id:
            raise SessionOwnerMismatch(conversation_id)
        _log(outcome, conversation_id)
        return Resolution(bound, outcome)

    def rebind(self, session: Session, provider: str, model: str, reason: str) -> Operation[Session]:
        """Move by compare-and-set."""
        keys.check(session.id)
        moved = Session(session.id, provider, model, session.external_id, session.created_at)
        expected = session.to_json()
        while True:
            done, found = yield self._store.replace(
                session, expected, moved, self._ttl_seconds, reason=reason, actor=self._actor
            )
            if done:
                break
            current = readable(session.id, found)
            if current != session:
                raise SessionConflict(session.id, current)
            expected = found  # the same binding, as another program writes it
        self._seen.correct(moved)  # not seen in use: what is left of the idle time is what it was
        metrics.rebound(reason, self._actor)
        logger.info(
            "rebound %r from %r, model %r, to %r, model %r: %r",
            *(session.id, session.provider, session.model, provider, model, reason),
            extra={"conversation_id": session.id},
        )
        yield from announce(session_rebound, session=moved, previous=session, reason=reason, actor=self._actor)
        return moved

    def delete(self, conversation_id: str) -> Operation[bool]:
        """Unbind, for every process that remembers the session too."""
        keys.check(conversation_id)
        raw = yield self._store.read(keys.session(conversation_id))
        done = False
        while raw is not None and not done:
            session = readable(conversation_id, raw)
            done, found = yield self._store.remove(conversation_id, session, raw, self._ttl_seconds, actor=self._actor)
            raw = found
        if not done:
            yield self._store.mark_deleted(conversation_id, self._ttl_seconds)
        self._seen.forget(conversation_id)
        _log("deleted" if done else "miss", conversation_id)
        if done:
            yield from announce(session_deleted, conversation_id=conversation_id, session=session, actor=self._actor)
        return bool(done)

    def _bind(self, proposal: Session, unreadable: bytes | None, reason: str) -> Operation[Session]:
        """Store the proposal unless a session is there by now; return whichever is stored."""
        for _ in range(MAX_UNREADABLE):
            found = yield self._store.bind(proposal, unreadable, self._ttl_seconds, reason=reason, actor=self._actor)
            if found is None:
                self._note_refreshed(proposal)
                return proposal
            if winner := readable(proposal.id, found):
                return winner
            unreadable = found
        raise SessionStoreUnavailable(f"The session store gave {MAX_UNREADABLE} unreadable values in a row")

    def _refresh_when_due(self, session: Session, raw: bytes | None, seen: Session | None = None) -> Operation[None]:
        """Bring the index up to date, once in a while; without it a chat goes on as well.

        Where `raw` is not what `session` was read from, somebody else has bound it, and entered it, just now.
        """
        refreshed = self._store.refreshed
        if conf.index and refreshed is not None and refreshed.is_due(session.id, time.monotonic()):
            self._note_refreshed(session)
            yield from self._refresh(session, raw, seen)

    def _refresh(self, session: Session, raw: bytes | None, before: Session | None) -> Operation[None]:
        """Bring the index's entry up to date; the session is bound already, whatever becomes of this."""
        try:
            yield index.refresh(session, self._ttl_seconds * 1000, self._ttl_seconds, raw=raw or b"", before=before)
        except SessionStoreUnavailable as exc:
            logger.log(logging.WARNING if self._is_news(exc) else logging.DEBUG, "index not refreshed: %s", exc)

    def _note_refreshed(self, session: Session) -> None:
        if self._store.refreshed is not None:
            self._store.refreshed.note(session.id, time.monotonic())

    def _was_deleted(self, conversation_id: str) -> Operation[bool]:
        """Tell a session that somebody deleted from one that the store has lost."""
        marker = yield self._store.read(keys.deleted(conversation_id))
        return marker is not None

    def _is_news(self, exc: SessionStoreUnavailable) -> bool:
        """Tell whether to warn: once a second of each kind of error, for a store that refuses does so to every chat."""
        kind, now = type(exc.__cause__), time.monotonic()
        # Without a cause nobody asked: the breaker is open, and whoever opened it has warned.
        if exc.__cause__ is None or now < self._store.quiet_until.get(kind, now):
            return False
        self._store.quiet_until[kind] = now + WARN_SECONDS
        return True

    def _remember(self, session: Session, asked_at: float) -> None:
        self._seen.remember(session, asked_at, conf.last_seen_size)


def _proposal(conversation_id: str, provider: str, model: str, external_id: str) -> Session:
    session = Session(conversation_id, provider, model, external_id, int(time.time()))
    session.to_json()  # refuses what cannot be stored, whether or not the store is there
    return session


def readable(conversation_id: str, raw: bytes | None) -> Session | None:
    """Decode a stored value; None, and an error in the log, for what is no session of this conversation."""
    if raw is None:
        return None
    try:
        return session_of(conversation_id, raw)
    except InvalidSession as exc:
        logger.error("unreadable %r: %s", conversation_id, exc, extra={"conversation_id": conversation_id})
        return None


def announce(signal: Signal, **arguments: Any) -> Operation[None]:
    """Send a signal, if anybody listens."""
    if signal.receivers:  # `has_listeners()` overlooks receivers of one sender
        yield Announcement(signal, arguments)


def _log(event: str, conversation_id: str) -> None:
    if logger.isEnabledFor(logging.DEBUG):
        logger.debug("%s %r", event, conversation_id, extra={"conversation_id": conversation_id})
