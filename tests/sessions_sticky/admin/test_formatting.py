from __future__ import annotations

import pytest

from sessions_sticky import Entry
from sessions_sticky.admin.formatting import ago, duration, session_row
from tests.sessions_sticky.calls import sample

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59, "59 s"),
        (60, "1 min 0 s"),
        (3_599, "59 min 59 s"),
        (3_600, "1 h 0 min"),
        (86_399, "23 h 59 min"),
        (86_400, "1 d 0 h"),
        (2**31, "24855 d 3 h"),
    ],
)
def test_duration_has_two_units_when_said_in_words(seconds: int, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "in the last minute"),
        (59, "in the last minute"),
        (60, "1 min ago"),
        (3_600, "1 h 0 min ago"),
        (90_000, "1 d 1 h ago"),
    ],
)
def test_ago_is_to_the_minute_when_said_in_words(seconds: int, text: str) -> None:
    assert ago(seconds) == text


@pytest.mark.parametrize(
    ("left", "percent", "last_active"),
    [(1_000, 100, NOW), (250, 25, NOW - 750), (1, 0, NOW - 999), (5_000, 100, NOW)],
)
def test_shown_has_the_last_activity_when_the_cache_has_the_time_left(
    left: int, percent: int, last_active: float
) -> None:
    row = session_row(Entry(sample(), left), "/", 1_000, NOW)
    assert row.last_active_at is not None
    assert (row.percent, row.last_active_at.timestamp()) == (percent, last_active)


def test_shown_is_unknown_when_the_cache_has_no_expiry() -> None:
    row = session_row(Entry(sample(), None), "/", 1_000, NOW)
    assert (row.left, row.last_active, row.percent, row.last_active_at) == ("unknown", "unknown", None, None)
