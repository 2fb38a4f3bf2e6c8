"""What happened to conversations, as the history keeps it: one capped stream."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

import msgspec

from sessions_sticky import keys
from sessions_sticky.connections.commands import Command, Script
from sessions_sticky.session import LATEST, Session

Kind = Literal["created", "rebound", "deleted"]

STEP = 1_000
"""Events that one step looks through (less than 1 ms)."""

EVENTS = Script("history")


class Event(NamedTuple):
    """One change of a conversation's binding.

    `provider` and `model` are those after the change (before it, for `deleted`; empty where they were unreadable);
    `from_provider` and `from_model` those before a rebind, else None. `actor` is `"gateway"` or a user's name. `at` is
    the time of the store's clock, in UTC, to the millisecond; `position` the place in the history, for `recent`.
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


class Change(NamedTuple):
    """A change of a binding about to be made; `before` and `after` None mean no binding, or an unreadable one."""

    kind: Kind
    before: Session | None
    after: Session | None
    reason: str
    actor: str

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
            )
        )


class _Stored(msgspec.Struct, frozen=True, omit_defaults=True):
    """An event as it is stored: without the id and the time, which the history's entry has."""

    kind: Kind
    provider: str = ""
    model: str = ""
    from_provider: str | None = None
    from_model: str | None = None
    reason: str = ""
    actor: str = ""


def _text(text: str) -> str:
    return text.encode(errors="replace").decode()  # lone surrogates have no UTF-8 form


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(_Stored)


def read_event(position: bytes, conversation_id: bytes, encoded: bytes) -> Event | None:
    """Decode an entry of the history; None for what another program has put there."""
    try:
        change = _DECODER.decode(encoded)
        seconds = int(position.partition(b"-")[0]) / 1000
    except (msgspec.MsgspecError, ValueError, OverflowError, TypeError):
        return None
    if not 0 <= seconds <= LATEST:
        return None
    return Event(
        change.kind,
        conversation_id.decode(errors="replace"),
        datetime.fromtimestamp(seconds, UTC),
        change.provider,
        change.model,
        change.from_provider,
        change.from_model,
        change.reason,
        change.actor,
        position.decode(),
    )


def stored_events(conversation_id: str, after: str) -> Command[Any]:
    """The events of one conversation in the next part of the history; see history.lua."""
    return EVENTS.call([keys.history()], conversation_id, after, STEP)


def recent_events(after: str | None, limit: int) -> Command[Any]:
    """The events after a position, or the last ones; see history.lua."""
    return EVENTS.call([keys.history()], "", after or "", limit)
