"""Pages of sessions, their cursors, and statistics; performs no I/O."""

from __future__ import annotations

import base64
import re
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from sessions_sticky.exceptions import InvalidCursor
from sessions_sticky.session import Entry, Session

MAX_PAGE = 1_000


def check_limit(limit: int) -> int:
    """Return the limit of a page; raise `ValueError` if it is invalid."""
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_PAGE:
        raise ValueError(f"limit must be a whole number from 1 to {MAX_PAGE}, not {limit!r}")
    return limit


class Page(NamedTuple):
    """Some sessions, most recently active first; `next_cursor` is None on the last page."""

    entries: list[Entry]
    next_cursor: str | None


def session_json(session: Session) -> dict[str, Any]:
    """Return the fields of a session, and its owner also under that name."""
    return {**msgspec.structs.asdict(session), "owner": session.owner}


def entry_json(entry: Entry) -> dict[str, Any]:
    """Return the fields of a session and `expires_in`, the remaining idle time in seconds."""
    return {**session_json(entry.session), "expires_in": entry.expires_in}


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
    """A position between pages: score and member of the last entry read, empty at the start.

    `filters` are provider, model and owner.
    """

    filters: tuple[str | None, str | None, str | None]
    score: str = ""
    member: str = ""

    @classmethod
    def read(cls, text: str, filters: tuple[str | None, str | None, str | None]) -> Cursor:
        """Parse the result of `str`; raise `InvalidCursor` for other text and for a cursor of other filters."""
        try:
            cursor = _DECODER.decode(base64.urlsafe_b64decode(text))
        except (ValueError, TypeError, msgspec.MsgspecError) as exc:
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
