"""Filters that the index cannot answer: each session is read; performs no I/O."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sessions_sticky.identity.stored import read_session_id
from sessions_sticky.queries.filters import FilterFields, check_new, check_text
from sessions_sticky.session import LATEST, Session
from sessions_sticky.stores.history import Event

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
ALLOWED_DURATION = "a number of seconds, or a number with s, m, h or d, such as 12h"
ALLOWED_TIME = f"a time with a zone, such as 2026-11-26T03:00Z, or how long ago: {ALLOWED_DURATION}"


class Conditions(NamedTuple):
    """Filters by time in seconds and Unix seconds, and by the move that led to the current binding; None matches any.

    `operation` is the key of the bulk operation that made that move.
    """

    idle_for: float | None = None
    created_before: float | None = None
    moved_from: str | None = None
    moved_since: float | None = None
    operation: str | None = None

    def narrowed(self, fields: FilterFields) -> Conditions:
        """Return the filters with additional ones; raise `ValueError` for an invalid one or one already set."""
        for name, former in self._asdict().items():
            check_new(name, fields.get(name), former)
        check_text("moved_from", fields.get("moved_from"))
        check_text("operation", fields.get("operation"))
        idle = fields.get("idle_for")
        given: dict[str, Any] = {
            "idle_for": idle.total_seconds() if isinstance(idle, timedelta) else _seconds("idle_for", idle),
            "created_before": _instant("created_before", fields.get("created_before")),
            "moved_from": fields.get("moved_from"),
            "moved_since": _instant("moved_since", fields.get("moved_since")),
            "operation": fields.get("operation"),
        }
        return self._replace(**{name: value for name, value in given.items() if value is not None})

    @property
    def fields(self) -> FilterFields:
        """The filters as keyword arguments, without those that are not set."""
        return {name: value for name, value in self._asdict().items() if value is not None}  # type: ignore[return-value]

    @property
    def need_moves(self) -> bool:
        """Whether the last move of each session must be read."""
        return any(value is not None for value in (self.moved_from, self.moved_since, self.operation))

    def match(self, session: Session, left_ms: int, ttl_seconds: int) -> bool:
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


def parse_duration(text: str) -> float:
    """Parse seconds or a duration such as `12h`. Raises `ValueError`."""
    found = _DURATION.fullmatch(text.strip())
    seconds = float(found[1]) * UNITS[found[2] or "s"] if found else LATEST + 1
    if seconds > LATEST:
        raise ValueError(f"must be {ALLOWED_DURATION}, not {text!r}")
    return seconds


def parse_time(text: str, now: float) -> float:
    """Parse a time with a zone, or how long before `now`, as Unix seconds. Raises `ValueError`."""
    if _DURATION.fullmatch(text.strip()):
        return max(0.0, now - parse_duration(text))
    try:
        at = datetime.fromisoformat(text.strip())
        seconds = at.timestamp() if at.tzinfo else -1.0
    except (ValueError, OverflowError):
        seconds = -1.0
    if not 0 <= seconds <= LATEST:
        raise ValueError(f"must be {ALLOWED_TIME}, not {text!r}")
    return seconds


def format_instant(unix_seconds: float) -> str:
    """Return a time as `parse_time` reads it."""
    return f"{datetime.fromtimestamp(unix_seconds, UTC).replace(tzinfo=None).isoformat(timespec='seconds')}Z"


def _instant(name: str, value: object) -> float | None:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError(f"{name} must have a time zone, not {value!r}")
        return value.timestamp()
    return _seconds(name, value)


def _seconds(name: str, value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise ValueError(f"{name} must be a time or a number of seconds of at least 0, not {value!r}")
    return value


_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,3})?)([smhd]?)")
