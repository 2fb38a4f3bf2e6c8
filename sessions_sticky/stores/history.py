"""The history: a capped list for each conversation that was moved or deleted, and one stream of recent events.

A list lives as long as its session, and an idle time after its deletion. It contains a binding only if a user made it
or the store had lost it; others follow from the session's `created_at`. A bulk operation is one event of the stream, so
that it does not push out others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from sessions_sticky import keys, metrics
from sessions_sticky.conf import conf
from sessions_sticky.connections.commands import Command
from sessions_sticky.session import LATEST, Session

Kind = Literal["created", "rebound", "deleted"]

MAX_EVENTS = 100
"""Maximum number of events of a conversation."""
MAX_READ = 4
"""Number of events that are read to find the last move: it is the last one, but for bindings that were restored."""
RESTORED = "lost by the store"
"""The reason of a binding that was restored."""


class Event(NamedTuple):
    """One change of a conversation's binding.

    `provider` and `model` are the values after the change (before it for `deleted`; empty if they were unreadable);
    `from_provider` and `from_model` the values before a rebind, else None. `actor` is `"gateway"` or a user's name.
    `at` is the time of the store's clock in UTC, to the millisecond; `position` is the argument for `recent`.

    `operation` is the key of the bulk operation that made the change, else empty. A bulk operation is one event of
    `recent` with the number of `sessions`, an empty conversation id, and its filters in the place of names that differ;
    None and "" without a filter.
    """

    kind: Kind
    conversation_id: str
    at: datetime
    provider: str
    model: str
    from_provider: str | None
    from_model: str | None
    reason: str
    actor: str
    position: str
    sessions: int = 1
    operation: str = ""


class EventFilter(NamedTuple):
    """Which events to show; None matches any. `provider` is the one before or after the change."""

    kind: str | None = None
    provider: str | None = None
    actor: str | None = None

    def match(self, event: Event) -> bool:
        """Return whether an event matches."""
        return (
            self.kind in (None, event.kind)
            and self.provider in (None, event.provider, event.from_provider)
            and self.actor in (None, event.actor)
        )


class PlannedChange(NamedTuple):
    """A planned change of a binding; `before` and `after` are None for no binding or an unreadable one."""

    kind: Kind
    before: Session | None
    after: Session | None
    reason: str
    actor: str
    operation: str = ""

    @property
    def in_conversation_history(self) -> bool:
        """Whether the list of its conversation records it; a binding by a chat follows from `created_at`."""
        return self.kind != "created" or bool(self.reason) or self.actor != metrics.GATEWAY

    def to_json(self) -> bytes:
        """Encode for the history."""
        now, moved = self.after or self.before, self.before and self.after
        return _ENCODER.encode(
            _Stored(
                self.kind,
                now.provider if now else "",
                now.model if now else "",
                self.before.provider if self.before and moved else None,
                self.before.model if self.before and moved else None,
                _text(self.reason),
                _text(self.actor),
                now.created_at if now else None,
                operation=self.operation,
            )
        )


class _Stored(msgspec.Struct, frozen=True, omit_defaults=True):
    """A stored event, without the id and the time, which the stream entry has."""

    kind: Kind
    provider: str = ""
    model: str = ""
    from_provider: str | None = None
    from_model: str | None = None
    reason: str = ""
    actor: str = ""
    created_at: int | None = None
    sessions: Annotated[int, msgspec.Meta(ge=0)] = 1
    operation: str = ""


def _text(text: str) -> str:
    return text.encode(errors="replace").decode()  # lone surrogates have no UTF-8 form


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(_Stored)


def read_event(position: bytes, conversation_id: bytes, encoded: bytes) -> Event | None:
    """Decode an entry of the stream; None for invalid entries of other programs."""
    stored, at = _decoded(encoded), _instant(position.partition(b"-")[0])
    if stored is None or at is None:
        return None
    return _event(stored, conversation_id.decode(errors="replace"), at, position.decode())


def recent_events(after: str | None, limit: int) -> Command[Any]:
    """Read the events after a position, or the last ones, latest first."""
    if after is None:
        return Command(("XREVRANGE", keys.history(), "+", "-", "COUNT", limit))
    return Command(("XRANGE", keys.history(), f"({after}", "+", "COUNT", limit))


def read_recent(entries: Any) -> list[Event]:
    """Decode entries of the stream; skip invalid entries of other programs."""
    pairs = [(position, fields) for position, fields in entries or [] if len(fields) == 4]
    found = (read_event(position, fields[1], fields[3]) for position, fields in pairs)
    return [event for event in found if event]


def bulk_event(kind: Kind, *, reason: str, actor: str, **fields: Any) -> Command[Any]:
    """Add a bulk operation to the stream; `fields` are further ones of its `Event`."""
    stored = _Stored(kind, reason=_text(reason), actor=_text(actor), **fields)
    kept = ("MAXLEN", "=", conf.history_length)
    return Command(("XADD", keys.history(), *kept, "*", "id", "", "event", _ENCODER.encode(stored)))


def conversation_events(conversation_id: str) -> Command[list[bytes]]:
    """Read the list of one conversation."""
    return Command(("LRANGE", keys.history_of(conversation_id), 0, -1))


def last_events(conversation_id: str) -> Command[list[bytes]]:
    """Read the end of the list of one conversation, which `last_move` needs."""
    return Command(("LRANGE", keys.history_of(conversation_id), -MAX_READ, -1))


def last_move(entries: list[bytes] | None, session: Session) -> Event | None:
    """Return the move that led to the binding of a session; None if it was never moved, or if that is not known."""
    for stored, at, position in _own_entries(reversed(entries or [])):
        if stored.kind == "created" and stored.reason == RESTORED:
            continue
        now = (stored.provider, stored.model, stored.created_at)
        if stored.kind != "rebound" or now != (session.provider, session.model, session.created_at):
            return None
        return _event(stored, session.id, at, position)
    return None


def read_conversation_events(conversation_id: str, entries: list[bytes], session: Session | None) -> list[Event]:
    """Decode the list of a conversation and add its bindings; `session` is the current one."""
    events: list[Event] = []
    created_at: int | None = None
    for stored, at, position in _own_entries(entries):
        event = _event(stored, conversation_id, at, position)
        if stored.created_at not in (None, created_at):
            created_at = stored.created_at
            if event.kind != "created" or event.reason == RESTORED:
                first = (event.from_provider or event.provider, event.from_model or event.model)
                events += _bound(conversation_id, created_at, *first, after=events)
        events.append(event)
        if event.kind == "deleted":
            created_at = None
    if session is not None and session.created_at != created_at:
        events += _bound(conversation_id, session.created_at, session.provider, session.model, after=events)
    return events


def _own_entries(entries: Iterable[bytes]) -> Iterator[tuple[_Stored, datetime, str]]:
    """Decode entries of the list of a conversation, with time and position; skip invalid ones of other programs."""
    for entry in entries:
        milliseconds, _, encoded = entry.partition(b" ")
        stored, at = _decoded(encoded), _instant(milliseconds)
        if stored is not None and at is not None:
            yield stored, at, f"{milliseconds.decode()}-0"


def _bound(
    conversation_id: str, created_at: int | None, provider: str, model: str, *, after: list[Event]
) -> list[Event]:
    """Return the event of a chat that bound a conversation after others; none for a time without a date."""
    at = _instant(b"%d000" % (created_at or 0))
    if at is None:
        return []
    if after:
        at = max(at, after[-1].at)  # `created_at` is in whole seconds, and of another clock
    stored = _Stored("created", provider, model, actor=metrics.GATEWAY)
    return [_event(stored, conversation_id, at, f"{created_at}000-0")]


def _event(stored: _Stored, conversation_id: str, at: datetime, position: str) -> Event:
    fields = msgspec.structs.asdict(stored)
    del fields["created_at"]
    return Event(conversation_id=conversation_id, at=at, position=position, **fields)


def _decoded(encoded: bytes) -> _Stored | None:
    try:
        return _DECODER.decode(encoded)
    except (msgspec.MsgspecError, ValueError, TypeError):
        return None


def _instant(milliseconds: bytes) -> datetime | None:
    """Parse a time in Unix milliseconds; return None if it is invalid."""
    try:
        seconds = int(milliseconds) / 1000
    except (ValueError, OverflowError):
        return None
    return datetime.fromtimestamp(seconds, UTC) if 0 <= seconds <= LATEST else None
