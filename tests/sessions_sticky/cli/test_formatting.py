from __future__ import annotations

import pytest

from sessions_sticky.cli.formatting import (
    describe_filters,
    escape,
    format_duration,
    format_route,
    format_time,
    pluralize,
    truncate,
)
from sessions_sticky.queries.filters import Filters


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("conv-1", "conv-1"),
        ("日本語 ünï 👋", "日本語 ünï 👋"),
        ("a b", "a b"),
        ("", ""),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\x9b31m", r"\x9b31m"),
        ("two\r\nlines\t", r"two\r\nlines\t"),
        ("\u202etxt.exe", r"\u202etxt.exe"),
        ("\u2067x\u2069", r"\u2067x\u2069"),
        ("zero\u200bwidth\ufeff", r"zero\u200bwidth\ufeff"),
        ("line\u2028end", r"line\u2028end"),
        ("\ud800", r"\ud800"),
        ("\U000e0041", r"\U000e0041"),
        ("back\\slash", "back\\slash"),
    ],
)
def test_visible_shows_what_a_terminal_would_obey_or_hide(text, shown):
    assert escape(text) == shown


@pytest.mark.parametrize(("text", "width", "short"), [("abc", 3, "abc"), ("abcd", 3, "ab…"), ("", 3, "")])
def test_cut_keeps_the_width(text, width, short):
    assert truncate(text, width) == short


@pytest.mark.parametrize(
    ("seconds", "shown"), [(None, "-"), (0, "0:00:00"), (61.9, "0:01:01"), (86_400, "24:00:00"), (10**7, "2777:46:40")]
)
def test_duration_shows_hours_minutes_seconds(seconds, shown):
    assert format_duration(seconds) == shown


@pytest.mark.parametrize(
    ("unix", "shown"),
    [
        (1_700_000_000, "2023-11-14T22:13:20Z"),
        (-1, "1969-12-31T23:59:59Z"),
        (10**12, "1000000000000"),
        (2**63 - 1, "9223372036854775807"),
    ],
)
def test_moment_shows_a_time_in_utc_or_the_number(unix, shown):
    assert format_time(unix) == shown


def test_words_for_people():
    assert [pluralize(number) for number in (0, 1, 12_345)] == [
        "0 conversations",
        "1 conversation",
        "12,345 conversations",
    ]
    assert pluralize(1, "error") == "1 error"
    assert format_route("a\x1b", "m") == r"a\x1b, model m"
    assert format_route("a", None) == "a"
    assert describe_filters(Filters("a", None, "o\n")) == r"of provider a, owner o\n"
    assert describe_filters(Filters()) == "of all providers"
