"""What operators ask for and get: filters, pages, cursors, statistics; pure."""

from __future__ import annotations

import base64
import re
from datetime import datetime
from typing import NamedTuple, TypedDict

import msgspec

from sessions_sticky.exceptions import InvalidCursor
from sessions_sticky.session import Entry, Session

MAX_PAGE = 1_000


class FilterFields(TypedDict, total=False):
    """The filters as keyword arguments."""

    provider: str | None
    model: str | None
    external_id: str | None


class Filters(NamedTuple):
    """Which sessions match: those that equal all that is not None."""

    provider: str | None = None
    model: str | None = None
    external_id: str | None = None

    @classmethod
    def checked(cls, fields: FilterFields, *, everything: bool | None = None) -> Filters:
        """Return the filters; raise `ValueError` for one that is not a string.

        With `everything` True they must be empty, with False not.
        """
        filters = cls(**fields)
        for name, value in zip(cls._fields, filters, strict=True):
            if value is not None and not isinstance(value, str):
                raise ValueError(f"{name} must be a string or None, not {value!r}")
        if everything is not None and everything != (filters == cls()):
            raise ValueError("Pass either a filter (provider, model, external_id) or everything=True, not both")
        return filters

    def match(self, session: Session) -> bool:
        """Return whether a session matches."""
        return (
            self.provider in (None, session.provider)
            and self.model in (None, session.model)
            and self.external_id in (None, session.external_id)
        )

    @property
    def is_encodable(self) -> bool:
        """Whether all have a UTF-8 form, as the fields of every session have."""
        try:
            "".join(each for each in self if each is not None).encode()
        except UnicodeEncodeError:
            return False
        return True

    @property
    def has_route(self) -> bool:
        """Whether the provider or the model matters."""
        return self.provider is not None or self.model is not None


def check_limit(limit: int) -> int:
    """Return a number of rows; raise `ValueError` for one that a page cannot have."""
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_PAGE:
        raise ValueError(f"limit must be a whole number from 1 to {MAX_PAGE}, not {limit!r}")
    return limit


class Page(NamedTuple):
    """Some sessions, most recently active first; `next_cursor` is None on the last page."""

    sessions: list[Entry]
    next_cursor: str | None


class RouteStats(NamedTuple):
    """The sessions of one provider and model.

    `created_last_hour` counts to the minute, `created_last_day` to the hour (this one and the 23 before); both count
    sessions that are gone by now, too.
    """

    provider: str
    model: str
    sessions: int
    created_last_hour: int
    created_last_day: int


class HourStats(NamedTuple):
    """How many sessions were created in the hour that began at `began_at`, in UTC; those that are gone count, too."""

    began_at: datetime
    created: int


class Stats(NamedTuple):
    """How many sessions there are: in all, and on each route, by provider and model."""

    sessions: int
    routes: list[RouteStats]


class Cursor(NamedTuple):
    """A position between pages: score and member of the last entry read, empty at the start."""

    filters: Filters
    score: str = ""
    member: str = ""

    @classmethod
    def read(cls, text: str, filters: Filters) -> Cursor:
        """Read what `str` returned; raises `InvalidCursor` for anything else, and for a cursor of other filters."""
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
