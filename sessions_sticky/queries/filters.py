"""Filters of sessions; performs no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple, TypedDict

from sessions_sticky.identity.stored import read_session_id
from sessions_sticky.session import Session, plain_text
from sessions_sticky.stores.history import Event

MAX_NAME_LENGTH, MAX_REASON_LENGTH = 256, 500
"""Maximum lengths of what operators enter, in characters; the stored format has no limit."""


class FilterFields(TypedDict, total=False):
    """The filters as keyword arguments."""

    provider: str
    model: str
    owner: str
    idle_for: timedelta | float
    created_before: datetime | float
    moved_from: str
    moved_since: datetime | float
    operation: str


class Filters(NamedTuple):
    """Filters of sessions; None matches any value.

    The index answers the first three, which match equal values. For the others, the *conditions*, each session is read:
    by time in seconds and Unix seconds, and by the move that led to the current binding. `operation` is the key of the
    bulk operation that made that move.
    """

    provider: str | None = None
    model: str | None = None
    owner: str | None = None
    idle_for: float | None = None
    created_before: float | None = None
    moved_from: str | None = None
    moved_since: float | None = None
    operation: str | None = None

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Filters:
        """Return the filters among other values by name, unchecked; a missing one matches any value."""
        return cls(*(given.get(name) for name in cls._fields))

    def narrowed(self, fields: FilterFields) -> Filters:
        """Return the filters with additional ones; raise `ValueError` for an invalid one or one already set."""
        if unknown := fields.keys() - FilterFields.__annotations__.keys():
            allowed = ", ".join(FilterFields.__annotations__)
            raise TypeError(f"Unknown filters: {', '.join(sorted(unknown))}; allowed are {allowed}")
        for name in fields:
            if (former := getattr(self, name)) is not None:
                raise ValueError(f"The sessions are already filtered by {name}: {former!r}")
        checked: dict[str, Any] = {name: _checked(name, value) for name, value in fields.items()}
        return self._replace(**checked)

    @property
    def fields(self) -> FilterFields:
        """The filters as keyword arguments, without those that are not set."""
        return {name: value for name, value in self._asdict().items() if value is not None}  # type: ignore[return-value]

    @property
    def indexed(self) -> tuple[str | None, str | None, str | None]:
        """Provider, model and owner, which the index answers."""
        return self.provider, self.model, self.owner

    @property
    def conditions(self) -> dict[str, Any]:
        """The filters that the index cannot answer, without those that are not set."""
        return dict(self._replace(provider=None, model=None, owner=None).fields)

    @property
    def need_moves(self) -> bool:
        """Whether the last move of each session must be read."""
        return any(value is not None for value in (self.moved_from, self.moved_since, self.operation))

    @property
    def is_encodable(self) -> bool:
        """Whether provider, model and owner have a UTF-8 form, as the fields of every session have."""
        try:
            "".join(each for each in self.indexed if each is not None).encode()
        except UnicodeEncodeError:
            return False
        return True

    @property
    def has_route(self) -> bool:
        """Whether the provider or the model is filtered."""
        return self.provider is not None or self.model is not None

    def match(self, session: Session) -> bool:
        """Return whether provider, model and owner match."""
        return (
            self.provider in (None, session.provider)
            and self.model in (None, session.model)
            and self.owner in (None, session.external_id)
        )

    def match_times(self, session: Session, left_ms: int, ttl_seconds: int) -> bool:
        """Return whether a session with `left_ms` of idle time left (negative: no expiry) is as old as they require."""
        if self.created_before is not None and session.created_at >= self.created_before:
            return False
        if self.idle_for is None:
            return True
        is_known = left_ms >= 0 and read_session_id(session.id, model=session.model).kind != "content"
        return is_known and ttl_seconds - left_ms / 1000 >= self.idle_for

    def match_move(self, move: Event | None) -> bool:
        """Return whether a session's last move is as they require."""
        if not self.need_moves:
            return True
        return (
            move is not None
            and self.moved_from in (None, move.from_provider)
            and (self.moved_since is None or move.at.timestamp() >= self.moved_since)
            and self.operation in (None, move.operation)
        )


def _checked(name: str, value: Any) -> str | float:
    """Return the value of a filter, times in seconds; raise `ValueError` if it is invalid."""
    if name == "idle_for" and isinstance(value, timedelta):
        return value.total_seconds()
    if name in ("idle_for", "created_before", "moved_since"):
        return _seconds(name, value)
    if not isinstance(value, str):
        raise ValueError(f"{name} must be a string, not {value!r}")
    return plain_text(value)


def _seconds(name: str, value: Any) -> float:
    if name != "idle_for" and isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError(f"{name} must have a time zone, not {value!r}")
        return value.timestamp()
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise ValueError(f"{name} must be a time or a number of seconds of at least 0, not {value!r}")
    return value
