"""Times and durations as people write them."""

from __future__ import annotations

import time

import pytest

from sessions_sticky.queries.times import format_instant, parse_duration, parse_time

NOW = 1_800_000_000.0


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: NOW)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), (" 12h ", 43_200), ("2d", 172_800), ("0", 0)]
)
def test_parse_duration_reads_units(text, seconds):
    assert parse_duration(text) == seconds
    assert parse_time(text) == NOW - seconds


@pytest.mark.parametrize("text", ["", "h", "-1h", "1w", "1 h", "1e3", "\uff19h", "999999999999d", "1h30m", "nan"])
def test_parse_duration_refuses_other_text(text):
    with pytest.raises(ValueError, match="must be a number of seconds, or a number with s, m, h or d"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["2026-11-26T03:00Z", "2026-11-26T04:00+01:00", "2026-11-26 03:00:00Z"])
def test_parse_time_reads_a_time_with_a_zone(text):
    assert format_instant(parse_time(text)) == "2026-11-26T03:00:00Z"


@pytest.mark.parametrize(
    "text", ["", "2026-11-26T03:00", "2026-11-26", "03:00", "yesterday", "1969-01-01T00:00Z", "-5m"]
)
def test_parse_time_refuses_other_text(text):
    with pytest.raises(ValueError, match="must be a time with a zone"):
        parse_time(text)


def test_parse_time_ends_at_the_beginning_of_time():
    assert parse_time("999999d") == 0
