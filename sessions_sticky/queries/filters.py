"""Filters, pages, cursors and statistics; performs no I/O."""

from __future__ import annotations

import base64
import re
import warnings
from datetime import datetime, timedelta
from typing import NamedTuple, TypedDict

import msgspec

from sessions_sticky.exceptions import InvalidCursor
from sessions_sticky.session import Entry, Session

MAX_PAGE = 1_000


class FilterFields(TypedDict, total=False):
    """The filters as keyword arguments."""

    provider: str | None
    model: str | None
    owner: str | None
    idle_for: timedelta | float | None
    created_before: datetime | float | None
    moved_from: str | None
    moved_since: datetime | float | None
    operation: str | None


class Filters(NamedTuple):
    """Filters by equality; None matches any value."""

    provider: str | None = None
    model: str | None = None
    owner: str | None = None

    def narrowed(self, fields: FilterFields) -> Filters:
        """Return the filters with additional ones; raise `ValueError` for one that is not a string or already set."""
        if unknown := fields.keys() - FilterFields.__annotations__.keys():
            allowed = ", ".join(FilterFields.__annotations__)
            raise TypeError(f"Unknown filters: {', '.join(sorted(unknown))}; allowed are {allowed}")
        named = {"provider": fields.get("provider"), "model": fields.get("model"), "owner": fields.get("owner")}
        for (name, value), former in zip(named.items(), self, strict=True):
            check_new(name, value, former)
            check_text(name, value)
        merged = (former if value is None else value for value, former in zip(named.values(), self, strict=True))
        return Filters(*merged)

    @property
    def fields(self) -> FilterFields:
        """The filters as keyword arguments."""
        return {"provider": self.provider, "model": self.model, "owner": self.owner}

    def match(self, session: Session) -> bool:
        """Return whether a session matches."""
        return (
            self.provider in (None, session.provider)
            and self.model in (None, session.model)
            and self.owner in (None, session.external_id)
        )

    @property
    def is_encodable(self) -> bool:
        """Whether all values have a UTF-8 form, as the fields of every session have."""
        try:
            "".join(each for each in self if each is not None).encode()
        except UnicodeEncodeError:
            return False
        return True

    @property
    def has_route(self) -> bool:
        """Whether the provider or the model is filtered."""
        return self.provider is not None or self.model is not None


def check_new(name: str, value: object, former: object) -> None:
    """Raise `ValueError` for a filter that is already set."""
    if value is not None and former is not None:
        raise ValueError(f"The sessions are already filtered by {name}: {former!r}")


def check_text(name: str, value: object) -> None:
    """Raise `ValueError` unless a filter is a string or None."""
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name} must be a string or None, not {value!r}")


def check_limit(limit: int) -> int:
    """Return the limit of a page; raise `ValueError` if it is invalid."""
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_PAGE:
        raise ValueError(f"limit must be a whole number from 1 to {MAX_PAGE}, not {limit!r}")
    return limit


class Page(NamedTuple):
    """Some sessions, most recently active first; `next_cursor` is None on the last page."""

    entries: list[Entry]
    next_cursor: str | None

    @property
    def sessions(self) -> list[Entry]:
        """The entries, under their name of 0.1. Deprecated."""
        warnings.warn("Page.sessions is deprecated: use entries", DeprecationWarning, stacklevel=2)
        return self.entries


class RouteStats(NamedTuple):
    """The sessions of one provider and model.

    `created_last_hour` is exact to the minute, `created_last_day` to the hour (the current one and 23 before); both
    include sessions that no longer exist.
    """

    provider: str
    model: str
    sessions: int
    created_last_hour: int
    created_last_day: int


class HourStats(NamedTuple):
    """The number of sessions created in the hour from `began_at` (UTC), including sessions that no longer exist."""

    began_at: datetime
    created: int


class Stats(NamedTuple):
    """Numbers of sessions: in total, and for each route (provider and model)."""

    sessions: int
    routes: list[RouteStats]


class Cursor(NamedTuple):
    """A position between pages: score and member of the last entry read, empty at the start."""

    filters: Filters
    score: str = ""
    member: str = ""

    @classmethod
    def read(cls, text: str, filters: Filters) -> Cursor:
        """Parse the result of `str`; raise `InvalidCursor` for other text and for a cursor of other filters."""
        try:
            cursor = _DECODER.decode(base64.urlsafe_b64decode(text.encode()))
        except (ValueError, msgspec.MsgspecError) as exc:
            raise InvalidCursor("The cursor was not issued by an earlier page") from exc
        if not _SCORE.fullmatch(cursor.score):
            raise InvalidCursor("The cursor was not issued by an earlier page")
        if cursor.filters != filters:
            raise InvalidCursor("The cursor was issued for other filters")
        return cursor

    def __str__(self) -> str:
        return base64.urlsafe_b64encode(msgspec.json.encode(self)).decode()


_DECODER = msgspec.json.Decoder(Cursor)
_SCORE = re.compile(r"(-?(inf|[0-9]{1,20}(\.[0-9]{1,20})?(e[+-]?[0-9]{1,3})?))?")
