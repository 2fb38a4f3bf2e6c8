"""What `SessionManager` promises, in plain Python: the model that test_state_machine.py holds it against; no I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import Any

from sessions_sticky import Outcome, Resolution, Session, SessionConflict, SessionOwnerMismatch

TTL_SECONDS = 100
EventFields = tuple[str, str, str]
"""An event of the history: kind, provider, model."""


@dataclass
class Held:
    """What is under a session's key, and its expiry; session None is an invalid value."""

    session: Session | None
    until: float
    touchable: bool = True


@dataclass
class Model:
    """One store and the processes that use it; times are seconds of a clock of its own."""

    now: float = 0.0
    down: bool = False
    held: dict[str, Held] = field(default_factory=dict)
    deleted: dict[str, float] = field(default_factory=dict)
    """Until when a session is marked as deleted."""
    seen: list[dict[str, tuple[Session, float]]] = field(default_factory=lambda: [{}, {}])
    """What each process remembers, and since when."""
    expected: list[tuple[str, EventFields]] = field(default_factory=list)
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
        self.deleted = {key: until for key, until in self.deleted.items() if until > self.now}
        self.drifted = self.drifted or self.has_immortals

    @property
    def has_immortals(self) -> bool:
        """Whether another program has left a session without an expiry, which the index cannot represent."""
        return any(held.until == inf and held.session for held in self.held.values())

    def remembered(self, who: int, conversation_id: str) -> Session | None:
        """Return what a process remembers and has seen within the idle time."""
        session, since = self.seen[who].get(conversation_id, (None, 0.0))
        return session if session and since >= self.now - TTL_SECONDS else None

    def touch(self, conversation_id: str) -> bool:
        """Extend whatever is there."""
        if (held := self.held.get(conversation_id)) and held.touchable:
            held.until = self.now + TTL_SECONDS
        return self.session(conversation_id) is not None

    def create(self, who: int, session: Session) -> None:
        """Bind unconditionally."""
        self._bind(session)
        self.seen[who][session.id] = session, self.now

    def expect(self, who: int, proposal: Session) -> Session:
        """Return the session that a resolve will give: `proposal` itself when it will be bound, or not stored."""
        if not self.down and (bound := self.session(proposal.id)):
            return bound
        seen = self.remembered(who, proposal.id)
        return proposal if seen is None or (not self.down and proposal.id in self.deleted) else seen

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
        self.seen[who][given.id] = given, self.now
        return Resolution(given, outcome) if given.external_id == owner else SessionOwnerMismatch

    def rebind(self, who: int, before: Session, after: Session) -> SessionConflict | Session:
        """Move by compare-and-set; return what comes out."""
        if self.session(before.id) != before:
            return SessionConflict(before.id, self.session(before.id))
        self._move(after)
        self.seen[who][after.id] = after, self.now
        return after

    def delete(self, who: int, conversation_id: str) -> bool:
        """Unbind, be it a session or not."""
        self.seen[who].pop(conversation_id, None)
        self.deleted[conversation_id] = self.now + TTL_SECONDS
        held = self.held.pop(conversation_id, None)
        if held:
            gone = held.session
            self.expected_events.append(
                (conversation_id, ("deleted", gone.provider if gone else "", gone.model if gone else ""))
            )
        return held is not None

    def delete_unchanged(self, who: int, before: Session) -> SessionConflict | None:
        """Delete a session if it is bound as given."""
        current = self.session(before.id)
        if current != before:
            return SessionConflict(before.id, current)
        self.delete(who, before.id)
        return None

    def delete_all(self, who: int, filters: dict[str, str]) -> int:
        """Delete what the filters mean."""
        return sum(self.delete(who, conversation_id) for conversation_id in self.matching(filters))

    def rebind_all(self, who: int, filters: dict[str, str], provider: str, model: str | None) -> int:
        """Move what the filters mean and is elsewhere."""
        number = 0
        for session in self.matching(filters).values():
            after = moved(session, provider, session.model if model is None else model)
            if after != session:
                number += 1
                self._move(after)
                if session.id in self.seen[who]:
                    self.seen[who][session.id] = after, self.seen[who][session.id][1]
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
        self.held, self.deleted, self.expected_events, self.drifted = {}, {}, [], False

    def _bind(self, session: Session) -> None:
        self.held[session.id] = Held(session, self.now + TTL_SECONDS)
        self.expected_events.append((session.id, ("created", session.provider, session.model)))

    def _move(self, after: Session) -> None:
        held = self.held[after.id]
        self.held[after.id] = Held(after, min(held.until, self.now + TTL_SECONDS))
        self.expected_events.append((after.id, ("rebound", after.provider, after.model)))


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
