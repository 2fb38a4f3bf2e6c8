"""Times and durations as people write them; performs no I/O."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

from sessions_sticky.session import LATEST

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
ALLOWED_DURATION = "a number of seconds, or a number with s, m, h or d, such as 12h"
ALLOWED_TIME = f"a time with a zone, such as 2026-11-26T03:00Z, or how long ago: {ALLOWED_DURATION}"

_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,3})?)([smhd]?)")


def parse_duration(text: str) -> float:
    """Parse seconds or a duration such as `12h`. Raises `ValueError`."""
    found = _DURATION.fullmatch(text.strip())
    seconds = float(found[1]) * UNITS[found[2] or "s"] if found else LATEST + 1
    if seconds > LATEST:
        raise ValueError(f"must be {ALLOWED_DURATION}, not {text!r}")
    return seconds


def parse_time(text: str) -> float:
    """Parse a time with a zone, or how long ago, as Unix seconds. Raises `ValueError`."""
    if _DURATION.fullmatch(text.strip()):
        return max(0.0, time.time() - parse_duration(text))
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
    return format_datetime(datetime.fromtimestamp(unix_seconds, UTC))


def format_datetime(at: datetime, timespec: str = "seconds") -> str:
    """Return a time in UTC, in ISO 8601 with a `Z`."""
    return f"{at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec=timespec)}Z"


def format_any(unix_seconds: int) -> str | None:
    """Return a time like `format_instant`; None if another program has set one outside of the calendar."""
    try:
        return format_instant(unix_seconds)
    except (ValueError, OverflowError, OSError):
        return None
