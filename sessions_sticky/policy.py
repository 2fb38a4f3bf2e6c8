"""Policy for single sessions: the requests of each method of `SessionManager` and the meaning of their replies.

Methods are coroutines over the functions that perform the I/O, so that blocking and async methods share them: on
functions that block they never suspend.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from sessions_sticky import index_entries, keys, metrics
from sessions_sticky.conf import conf
from sessions_sticky.connections.commands import Send
from sessions_sticky.exceptions import SessionOwnerMismatch, SessionStoreUnavailable
from sessions_sticky.recording import record_move, record_turns
from sessions_sticky.restoration import SendSignal, is_check_due, restore_when_lost
from sessions_sticky.session import (
    Entry,
    Outcome,
    Resolution,
    Session,
    SessionConflict,
    check_names,
    check_owner,
    check_session,
    checked,
    readable,
)
from sessions_sticky.signals import session_created, session_deleted, session_rebound
from sessions_sticky.stores.base import NO_KEY, Replaced, Store, restorable_from
from sessions_sticky.stores.history import RESTORED
from sessions_sticky.stores.trail import Recorded, read_command, read_trail
from sessions_sticky.turns import Trail, Turn

logger = logging.getLogger("sessions_sticky")

MAX_UNREADABLE = 5
"""Unreadable values that are replaced before a bind gives up. More than this means the store is corrupting data."""


@dataclass(slots=True)
class Policy:
    """The policy on one store with one idle time; `actor` is the author of changes in the history."""

    store: Store
    send: Send
    send_signal: Callable[..., Awaitable[None]]
    signal_in_thread: SendSignal
    check_target: Callable[[str], Awaitable[None]]
    ttl_seconds: int
    actor: str

    async def get(self, conversation_id: str) -> Session | None:
        """Read the session."""
        return readable(conversation_id, await self.get_raw(conversation_id))

    async def inspect(self, conversation_id: str) -> Entry | None:
        """Read the session with its remaining idle time."""
        session = await self.get(conversation_id)
        if session is None:
            return None
        left_ms = await self.send(self.store.expiry(keys.session(conversation_id)))
        return None if left_ms == NO_KEY else Entry.of(session, left_ms)

    async def create(
        self, conversation_id: str, provider: str, model: str, owner: str, *, replace: bool = False
    ) -> Session:
        """Store a session, unless there is one that must not be replaced."""
        keys.check(conversation_id)
        check_names(provider=provider, model=model)
        await self.check_target(provider)
        asked_at = time.monotonic()
        session = _proposal(conversation_id, provider, model, owner)
        if replace:
            raw = await self.send(self.store.put(session, self.ttl_seconds, actor=self.actor))
            if former := readable(conversation_id, raw):
                await index_entries.replace(self.store, self.send, self.ttl_seconds, former, session)
            index_entries.mark(self.store, session)
        else:
            bound, is_new = await self._bind(session, None, "")
            if not is_new:
                raise SessionConflict(conversation_id, bound)
        self.store.last_seen.remember(session, asked_at, self.ttl_seconds, conf.last_seen_size)
        _log("created", conversation_id)
        await self.send_signal(session_created, session=session, actor=self.actor)
        return session

    async def touch(self, conversation_id: str) -> bool:
        """Reset the idle time."""
        keys.check(conversation_id)
        raw = await self.send(self.store.read_and_touch(keys.session(conversation_id), self.ttl_seconds))
        session = readable(conversation_id, raw)
        if session is not None and index_entries.is_due(self.store, session):
            await index_entries.refresh(self.store, self.send, self.ttl_seconds, session, raw=raw)
        _log("touched" if session else "miss", conversation_id)
        return session is not None

    async def resolve(self, conversation_id: str, provider: str, model: str, owner: str) -> Resolution:
        """Return the binding, or create it."""
        keys.check(conversation_id)
        check_names(provider=provider, model=model)  # also on a hit, so that invalid calls fail at once
        check_owner(owner)
        asked_at, ttl = time.monotonic(), self.ttl_seconds
        remembered = self.store.last_seen.recall(conversation_id, asked_at)
        proposal, is_restored = None, False
        try:
            raw = await self.send(self.store.read_and_touch(keys.session(conversation_id), ttl))
            bound, outcome = readable(conversation_id, raw), Outcome.HIT
            if bound is None:
                _log("miss", conversation_id)
                proposal, reason = await self._restorable(remembered), RESTORED
                if proposal is None:
                    proposal, reason = _proposal(conversation_id, provider, model, owner), ""
                bound, is_new = await self._bind(proposal, raw, reason)
                outcome = Outcome.CREATED if is_new else Outcome.HIT
                is_restored = is_new and reason == RESTORED
            self.store.last_seen.remember(bound, asked_at, ttl, conf.last_seen_size)
        except SessionStoreUnavailable as exc:
            if conf.on_store_error == "raise":
                raise
            self.store.outages.log(exc, "degraded %r: %s", conversation_id, exc, conversation_id=conversation_id)
            bound, outcome = proposal or remembered, Outcome.DEGRADED
            if bound is None:
                bound = self.store.last_seen.recall_proposal(conversation_id, owner, asked_at)
                bound = bound or _proposal(conversation_id, provider, model, owner)
            # What is only proposed answers until the store is back, and is never restored: another owner may be bound.
            self.store.last_seen.remember(bound, asked_at, ttl, conf.last_seen_size, is_stored=bound is remembered)
        metrics.resolved(outcome, bound.provider, asked_at)
        if outcome is Outcome.CREATED:
            await self.send_signal(session_created, session=bound, actor=self.actor)
        elif outcome is Outcome.HIT and index_entries.is_due(self.store, bound):
            await index_entries.refresh(self.store, self.send, ttl, bound, raw=raw, before=remembered)
        if is_restored:
            metrics.restored()
        if outcome is not Outcome.DEGRADED and is_check_due(self.store, asked_at, is_missing=is_restored):
            await restore_when_lost(self.store, self.send, self.signal_in_thread)
        if bound.external_id != owner:
            raise SessionOwnerMismatch(conversation_id)
        _log(outcome, conversation_id)
        return Resolution(bound, outcome)

    async def _restorable(self, remembered: Session | None) -> Session | None:
        """Return a remembered session that the store has lost (restart, failover); None if it was deleted."""
        if remembered is None:
            return None
        marker = await self.send(self.store.read(keys.deleted(remembered.id)))
        return remembered if remembered.created_at > restorable_from(marker) else None

    async def rebind(self, session: Session, provider: str, model: str, reason: str) -> Session:
        """Move the session by compare-and-set."""
        check_session(session)
        keys.check(session.id)
        check_names(provider=provider, model=model, reason=reason)
        await self.check_target(provider)
        moved = checked(Session(session.id, provider, model, session.external_id, session.created_at))
        expected = session.to_json()
        while True:
            request = self.store.replace(session, expected, moved, self.ttl_seconds, reason=reason, actor=self.actor)
            done, found = await self.send(request)
            if done:
                break
            current = readable(session.id, found)
            if found is None or current != session:
                raise SessionConflict(session.id, current)
            expected = found  # the same binding in another encoding
        self.store.last_seen.correct(moved)  # not a use: keep the remaining idle time
        await record_move(self.store, self.send, session, moved, reason=reason, actor=self.actor)
        await self.send_signal(session_rebound, session=moved, previous=session, reason=reason, actor=self.actor)
        return moved

    async def get_raw(self, conversation_id: str) -> bytes | None:
        """Read the stored value."""
        keys.check(conversation_id)
        return await self.send(self.store.read(keys.session(conversation_id)))

    async def delete(self, conversation_id: str) -> bool:
        """Delete the session, and mark it for other processes that remember it."""
        raw = await self.get_raw(conversation_id)
        done = 0
        while raw is not None and not done:
            done, raw = await self._remove(conversation_id, readable(conversation_id, raw), raw)
        if not done:
            await self.send(self.store.mark_deleted(conversation_id, self.ttl_seconds))
            self.store.last_seen.forget(conversation_id)
        _log("deleted" if done else "miss", conversation_id)
        return bool(done)

    async def delete_unchanged(self, session: Session) -> None:
        """Delete the session by compare-and-delete."""
        check_session(session)
        raw = await self.get_raw(session.id)
        done = 0
        while not done:
            current = readable(session.id, raw)
            if raw is None or current != session:
                raise SessionConflict(session.id, current)
            done, raw = await self._remove(session.id, session, raw)

    async def trail(self, conversation_id: str) -> Trail:
        """Read the last turns."""
        keys.check(conversation_id)
        found = await self.send(read_command(conversation_id)) if self.store.has_index else None
        return read_trail(found or [])  # a key of another type is empty

    async def record_turns(self, turns: Sequence[Turn]) -> list[Recorded]:
        """Add turns to their trails, to the sums and to the metrics; see recording.py."""
        return await record_turns(self.store, self.send, turns, self.ttl_seconds)

    async def _remove(self, conversation_id: str, session: Session | None, raw: bytes) -> Replaced:
        """Remove the value `raw` unless it has changed; if it was removed, forget the session and send the signal."""
        request = self.store.remove(conversation_id, session, raw, self.ttl_seconds, actor=self.actor)
        done, found = await self.send(request)
        if done:
            self.store.last_seen.forget(conversation_id)
            await self.send_signal(session_deleted, conversation_id=conversation_id, session=session, actor=self.actor)
        return done, found

    async def _bind(self, proposal: Session, unreadable: bytes | None, reason: str) -> tuple[Session, bool]:
        """Store the proposal unless there is a session by now; return the stored session, and whether it is new."""
        for _ in range(MAX_UNREADABLE):
            request = self.store.bind(proposal, unreadable, self.ttl_seconds, reason=reason, actor=self.actor)
            found = await self.send(request)
            if found is None:
                index_entries.mark(self.store, proposal)
                return proposal, True
            if winner := readable(proposal.id, found):
                return winner, False
            unreadable = found
        raise SessionStoreUnavailable(f"The session store returned {MAX_UNREADABLE} unreadable values in a row")


def _proposal(conversation_id: str, provider: str, model: str, owner: str) -> Session:
    # Checked here: invalid values are refused even if the store is unavailable.
    return checked(Session(conversation_id, provider, model, owner, int(time.time())))


def _log(event: str, conversation_id: str) -> None:
    if logger.isEnabledFor(logging.DEBUG):
        logger.debug("%s %r", event, conversation_id, extra={"conversation_id": conversation_id})
