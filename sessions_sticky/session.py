"""The session record, its stored format, and results of the manager."""

from __future__ import annotations

import logging
from enum import StrEnum
from typing import Annotated, NamedTuple

import msgspec

from sessions_sticky.exceptions import InvalidSession, SessionError

logger = logging.getLogger("sessions_sticky")

EARLIEST, LATEST = -62_135_510_400, 253_370_764_800
"""2 January 1 and 1 January 9999 in Unix seconds: other times have no datetime in some time zone."""
_INT64 = msgspec.Meta(ge=-(2**63), le=2**63 - 1)


class Session(msgspec.Struct, frozen=True, gc=False):
    """The binding of a conversation to a provider and a model, for an owner. Immutable.

    Fields are in wire order. `external_id` is the owner. `created_at` is in Unix seconds (int64). Values are checked
    when the session is written (`to_json`) or read (`from_json`), not when it is constructed.
    """

    id: str
    provider: str
    model: str
    external_id: str
    created_at: Annotated[int, _INT64]

    @property
    def owner(self) -> str:
        """Whose conversation it is; stored as `external_id`."""
        return self.external_id

    def to_json(self) -> bytes:
        """Encode as compact UTF-8 JSON, byte for byte as serde_json writes it.

        Raises `InvalidSession` when a field has the wrong type, is out of range or has no UTF-8 form.
        """
        try:
            encoded = _ENCODER.encode(self)
            decoded = _DECODER.decode(encoded)
        except (msgspec.MsgspecError, ValueError, TypeError, OverflowError) as exc:
            raise InvalidSession(f"Cannot be written as a session: {exc}") from exc
        if decoded != self:  # bytes, UUIDs and dates have a JSON form, but are read back as strings
            raise InvalidSession("Cannot be written as a session: a field has the wrong type")
        return encoded

    @classmethod
    def from_json(cls, data: bytes) -> Session:
        """Decode; field order, white space and unknown fields do not matter. Raises `InvalidSession`."""
        try:
            return _DECODER.decode(data)
        except (msgspec.MsgspecError, UnicodeError, TypeError, RecursionError) as exc:
            raise InvalidSession(f"Not a session: {exc}") from exc


def checked(session: Session) -> Session:
    """Return a session as it will be read: members of a `str` enum become plain text. Raises `InvalidSession`."""
    return Session.from_json(session.to_json())


def session_of(conversation_id: str, data: bytes) -> Session:
    """Decode the value stored for a conversation. Raises `InvalidSession`, also for another conversation's session."""
    session = Session.from_json(data)
    if session.id != conversation_id:
        raise InvalidSession("Not a session: its id is not that of its key")
    return session


def readable(conversation_id: str, raw: bytes | None) -> Session | None:
    """Decode a stored value; log an error and return None if it is not a session of this conversation."""
    if raw is None:
        return None
    try:
        return session_of(conversation_id, raw)
    except InvalidSession as exc:
        logger.error("unreadable %r: %s", conversation_id, exc, extra={"conversation_id": conversation_id})
        return None


def plain_text(value: object) -> str:
    """Return text of a subclass, such as Django's `SafeString` or a `str` enum, as a `str`; else raise `TypeError`.

    The text of an enum is its value, while `format` of a member may be its name.
    """
    if isinstance(value, str):
        return str.__str__(value)
    raise TypeError(f"objects of type {type(value).__name__} are not allowed")


_ENCODER = msgspec.json.Encoder(enc_hook=plain_text)
_DECODER = msgspec.json.Decoder(Session)


def check_names(**names: object) -> None:
    """Raise `InvalidSession` for a provider, a model or a reason that is blank or not a string."""
    for name, value in names.items():
        if not isinstance(value, str) or not value.strip():
            raise InvalidSession(f"{name} must be a non-blank string, not {value!r}")


def check_owner(owner: object) -> None:
    """Raise `InvalidSession` for an owner that is not a string; an empty string is a valid owner."""
    if not isinstance(owner, str):
        raise InvalidSession(f"owner must be a string, not {owner!r}")


def check_session(session: object) -> None:
    """Raise `InvalidSession` for anything but a `Session`, such as its id."""
    if not isinstance(session, Session):
        raise InvalidSession(f"session must be a Session, as `get` and `resolve` return it, not {session!r}")


class SessionConflict(SessionError):
    """The binding has changed since the caller read it.

    `current` is the binding now; None when the conversation is not bound.
    """

    def __init__(self, conversation_id: str, current: Session | None) -> None:
        super().__init__(conversation_id, current)
        self.conversation_id = conversation_id
        self.current = current

    def __str__(self) -> str:
        if self.current is None:
            return f"Conversation {self.conversation_id!r} is no longer bound"
        return (
            f"Conversation {self.conversation_id!r} is now bound to"
            f" {self.current.provider!r}, model {self.current.model!r}"
        )


class Entry(msgspec.Struct, frozen=True):
    """A session as an operator sees it.

    `expires_in` is the idle time left in seconds, rounded up; None where the cache cannot tell.
    """

    session: Session
    expires_in: int | None

    @classmethod
    def of(cls, session: Session, left_ms: int | None) -> Entry:
        """Return the entry of a session with so many milliseconds left; None or a negative number: not known."""
        return cls(session, None if left_ms is None or left_ms < 0 else -(-left_ms // 1000))


class Outcome(StrEnum):
    """How `resolve` obtained its session."""

    HIT = "hit"
    CREATED = "created"
    DEGRADED = "degraded"


class Resolution(NamedTuple):
    """The result of `resolve`."""

    session: Session
    outcome: Outcome
