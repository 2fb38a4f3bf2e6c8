"""What `SessionManager` promises, in plain Python: the model that test_state_machine.py holds it against; no I/O."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from math import inf
from typing import Any

from sessions_sticky import Outcome, Resolution, Session, SessionConflict, SessionOwnerMismatch
from sessions_sticky.restoration import RECENT_SECONDS

TTL_SECONDS = 100
HISTORY_SECONDS = 2 * TTL_SECONDS
"""Minimum lifetime of a conversation's history after its last event: an idle time and 120 s."""
EventFields = tuple[str, str, str]
"""An event of the history: kind, provider, model."""


@dataclass
class Held:
    """What is under a session's key, and its expiry; session None is an invalid value."""

    session: Session | None
    until: float
    touchable: bool = True


@dataclass
class Memory:
    """What a process remembers of a conversation; one that is not stored was only proposed while the store was down."""

    session: Session
    since: float
    is_stored: bool = True


@dataclass
class History:
    """The moves and deletions of one conversation; the first ones may have expired."""

    events: list[EventFields] = field(default_factory=list)
    sure_from: int = 0
    changed_at: float = 0.0

    def add(self, event: EventFields, now: float) -> None:
        """Add an event; those before it are uncertain if the list may have expired."""
        self.sure_from = self.sure(now)
        self.events.append(event)
        self.changed_at = now

    def sure(self, now: float) -> int:
        """Return the index of the first event that is surely kept."""
        return len(self.events) if now > self.changed_at + HISTORY_SECONDS else self.sure_from


@dataclass
class Model:
    """One store and the processes that use it; times are seconds of a clock of its own."""

    restores: bool = True
    """Whether a process notices that the store lost everything, and restores what it remembers."""
    now: float = 0.0
    down: bool = False
    held: dict[str, Held] = field(default_factory=dict)
    deleted: dict[str, tuple[float, int]] = field(default_factory=dict)
    """Until when a session is marked as deleted, and the `created_at` up to which bindings are not restored."""
    seen: list[dict[str, Memory]] = field(default_factory=lambda: [{}, {}])
    """What each process remembers."""
    marked_until: list[float] = field(default_factory=lambda: [inf, inf])
    """Until when each process finds again what it wrote to notice a loss; infinite before its first resolve."""
    recent: list[str] = field(default_factory=list)
    """The conversation ids of the recent events; empty for a bulk operation."""
    histories: dict[str, History] = field(default_factory=dict)
    drifted: bool = False
    """Whether the index may be wrong: other programs have written, or it was lost."""

    def session(self, conversation_id: str) -> Session | None:
        """Return what is bound."""
        held = self.held.get(conversation_id)
        return held.session if held else None

    def left(self, conversation_id: str) -> float:
        """Return the seconds that a key has left; infinite without an expiry."""
        return self.held[conversation_id].until - self.now

    @property
    def sessions(self) -> dict[str, Session]:
        """All that is bound."""
        return {key: held.session for key, held in self.held.items() if held.session}

    def matching(self, filters: dict[str, str]) -> dict[str, Session]:
        """Return the sessions that some filters mean."""
        return {
            key: session
            for key, session in self.sessions.items()
            if all(getattr(session, name) == value for name, value in filters.items())
        }

    def pass_time(self, seconds: float) -> None:
        """Let time pass; what expires is gone."""
        self.now += seconds
        self.held = {key: held for key, held in self.held.items() if held.until > self.now}
        self.deleted = {key: marker for key, marker in self.deleted.items() if marker[0] > self.now}
        self.drifted = self.drifted or self.has_immortals

    @property
    def has_immortals(self) -> bool:
        """Whether another program has left a session without an expiry, which the index cannot represent."""
        return any(held.until == inf and held.session for held in self.held.values())

    def remembered(self, who: int, conversation_id: str) -> Memory | None:
        """Return what a process remembers and has seen within the idle time."""
        memory = self.seen[who].get(conversation_id)
        return memory if memory and memory.since >= self.now - TTL_SECONDS else None

    def restorable(self, session: Session) -> bool:
        """Return whether a lost binding is restored: it is newer than the last one that was deleted."""
        return session.id not in self.deleted or session.created_at > self.deleted[session.id][1]

    def touch(self, conversation_id: str) -> bool:
        """Extend whatever is there."""
        if (held := self.held.get(conversation_id)) and held.touchable:
            held.until = self.now + TTL_SECONDS
        return self.session(conversation_id) is not None

    def create(self, who: int, session: Session) -> None:
        """Bind, whatever is bound."""
        self._bind(session)
        self._remember(who, Memory(session, self.now))

    def expect(self, who: int, proposal: Session) -> Session:
        """Return the session that a resolve will give: `proposal` itself when it will be bound, or not stored."""
        if not self.down and (bound := self.session(proposal.id)):
            return bound
        seen = self.remembered(who, proposal.id)
        if seen is None:
            return proposal
        if seen.is_stored:
            return seen.session if self.down or self.restorable(seen.session) else proposal
        is_owners = seen.session.external_id == proposal.external_id
        return seen.session if self.down and is_owners else proposal

    def resolve(self, who: int, given: Session, owner: str) -> Resolution | type[SessionOwnerMismatch]:
        """Apply the result of `expect` and return the resolution."""
        if self.down:
            outcome = Outcome.DEGRADED
        elif self.session(given.id):
            outcome = Outcome.HIT
            self.touch(given.id)
        else:
            outcome = Outcome.CREATED
            self._bind(given)
        seen = self.remembered(who, given.id)
        is_stored = not self.down or (seen is not None and seen.is_stored)
        self._remember(who, Memory(given, self.now, is_stored))
        if not self.down:
            self._notice_loss(who)
        return Resolution(given, outcome) if given.external_id == owner else SessionOwnerMismatch

    def rebind(self, who: int, before: Session, after: Session) -> SessionConflict | Session:
        """Move by compare-and-set; return what comes out."""
        if self.session(before.id) != before:
            return SessionConflict(before.id, self.session(before.id))
        self._move(after)
        self.recent.append(after.id)
        if after.id in self.seen[who]:
            self.seen[who][after.id].session = after
        return after

    def delete(self, who: int, conversation_id: str) -> bool:
        """Unbind, be it a session or not."""
        is_found = self._delete(who, conversation_id)
        if is_found:
            self.recent.append(conversation_id)
        return is_found

    def delete_unchanged(self, who: int, before: Session) -> SessionConflict | None:
        """Delete a session if it is bound as given."""
        current = self.session(before.id)
        if current != before:
            return SessionConflict(before.id, current)
        self.delete(who, before.id)
        return None

    def delete_all(self, who: int, filters: dict[str, str]) -> int:
        """Delete what the filters mean."""
        number = sum(self._delete(who, conversation_id) for conversation_id in self.matching(filters))
        self._record_bulk(number)
        return number

    def rebind_all(self, who: int, filters: dict[str, str], provider: str, model: str | None) -> int:
        """Move what the filters mean and is elsewhere."""
        number = 0
        for session in self.matching(filters).values():
            after = moved(session, provider, session.model if model is None else model)
            if after != session:
                number += 1
                self._move(after)
                if session.id in self.seen[who]:
                    self.seen[who][session.id].session = after
        self._record_bulk(number)
        return number

    def other_writes(self, conversation_id: str, held: Held) -> None:
        """Another program writes under a session's key."""
        self.held[conversation_id] = held
        self.drifted = True

    def other_deletes(self, conversation_id: str) -> None:
        """Another program deletes a session's key."""
        self.held.pop(conversation_id, None)
        self.drifted = True

    def lose_everything(self) -> None:
        """The store is emptied; the processes remember."""
        self.held, self.deleted, self.recent, self.histories, self.drifted = {}, {}, [], {}, False
        self.marked_until = [inf if until == inf else -inf for until in self.marked_until]

    def _remember(self, who: int, memory: Memory) -> None:
        self.seen[who].pop(memory.session.id, None)  # the one seen last is the last one
        self.seen[who][memory.session.id] = memory

    def _notice_loss(self, who: int) -> None:
        """Restore what a process remembers, if the store no longer has what the process wrote."""
        if self.restores and self.marked_until[who] <= self.now:
            for memory in reversed(self.seen[who].values()):
                session, until = memory.session, memory.since + TTL_SECONDS
                is_missing = session.id not in self.held and until > self.now
                if is_missing and memory.is_stored and self.restorable(session):
                    self._bind(session, until)
        self.marked_until[who] = self.now + RECENT_SECONDS

    def _bind(self, session: Session, until: float | None = None) -> None:
        self.held[session.id] = Held(session, until or self.now + TTL_SECONDS)
        self.recent.append(session.id)

    def _move(self, after: Session) -> None:
        held = self.held[after.id]
        self.held[after.id] = Held(after, min(held.until, self.now + TTL_SECONDS))
        self._record(after.id, ("rebound", after.provider, after.model))

    def _delete(self, who: int, conversation_id: str) -> bool:
        self.seen[who].pop(conversation_id, None)
        held = self.held.pop(conversation_id, None)
        gone = held.session if held else None
        _, former = self.deleted.get(conversation_id, (0.0, 0))
        created_at = gone.created_at if gone else int(time.time())
        self.deleted[conversation_id] = self.now + TTL_SECONDS, max(former, created_at)
        if held:
            self._record(conversation_id, ("deleted", gone.provider if gone else "", gone.model if gone else ""))
        return held is not None

    def _record(self, conversation_id: str, event: EventFields) -> None:
        self.histories.setdefault(conversation_id, History()).add(event, self.now)

    def _record_bulk(self, number: int) -> None:
        if number:
            self.recent.append("")


def moved(session: Session, provider: str, model: str) -> Session:
    """Return a session as it is elsewhere."""
    return Session(session.id, provider, model, session.external_id, session.created_at)


def alike(answer: Any, expected: Any) -> bool:
    """Return whether an answer equals that of the model; errors are compared by class and message."""
    if isinstance(expected, type):
        return type(answer) is expected
    if isinstance(expected, SessionConflict):
        return isinstance(answer, SessionConflict) and answer.current == expected.current
    return bool(answer == expected) and isinstance(answer, bool) is isinstance(expected, bool)
