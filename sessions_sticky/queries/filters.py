"""What operators ask for and get: filters, pages, cursors, statistics; pure."""

from __future__ import annotations

import base64
import re
import secrets
from datetime import datetime
from typing import NamedTuple

import msgspec

from sessions_sticky.exceptions import InvalidCursor
from sessions_sticky.session import Entry, Session


class Filters(NamedTuple):
    """Which sessions are meant: those that equal all that is not None."""

    provider: str | None = None
    model: str | None = None
    external_id: str | None = None

    def match(self, session: Session) -> bool:
        """Tell whether a session is meant."""
        return (
            self.provider in (None, session.provider)
            and self.model in (None, session.model)
            and self.external_id in (None, session.external_id)
        )

    @property
    def have_utf8(self) -> bool:
        """Whether all have a UTF-8 form, as the fields of every session have."""
        try:
            "".join(each for each in self if each is not None).encode()
        except UnicodeEncodeError:
            return False
        return True

    @property
    def by_route(self) -> bool:
        """Whether the provider or the model matters."""
        return self.provider is not None or self.model is not None


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
    """Where a walk through the pages stands.

    `token` names the walk in the store. `score` and `member` are those of the last entry taken, empty at the start;
    `missed` counts the entries taken of those that moved up past the walk, and is None before it gets to them.
    """

    filters: Filters
    token: str
    score: str = ""
    member: str = ""
    missed: int | None = None

    @classmethod
    def start(cls, filters: Filters) -> Cursor:
        """Return the beginning of a new walk."""
        return cls(filters, secrets.token_hex(8))

    @classmethod
    def read(cls, text: str, filters: Filters) -> Cursor:
        """Read what `str` gave; raises `InvalidCursor` for anything else, and for a cursor of other filters."""
        try:
            cursor = _DECODER.decode(base64.urlsafe_b64decode(text.encode()))
        except (ValueError, msgspec.MsgspecError) as exc:
            raise InvalidCursor("Invalid cursor; allowed is what an earlier page gave as its next") from exc
        is_place = _SCORE.fullmatch(cursor.score) and 0 <= (cursor.missed or 0) < 2**31
        if not (_TOKEN.fullmatch(cursor.token) and is_place):
            raise InvalidCursor("Invalid cursor; allowed is what an earlier page gave as its next")
        if cursor.filters != filters:
            raise InvalidCursor("Invalid cursor: it was given for other filters")
        return cursor

    def __str__(self) -> str:
        return base64.urlsafe_b64encode(msgspec.json.encode(self)).decode()


_DECODER = msgspec.json.Decoder(Cursor)
_TOKEN = re.compile(r"[0-9a-f]{16}")
_SCORE = re.compile(r"(-?(inf|[0-9]{1,20}(\.[0-9]{1,20})?(e[+-]?[0-9]{1,3})?))?")
