"""Cursors and filters; pure."""

from __future__ import annotations

import base64

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sessions_sticky import InvalidCursor
from sessions_sticky.queries.filters import Filters
from sessions_sticky.queries.pages import Cursor
from tests.sessions_sticky.calls import sample

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
FILTERS = st.tuples(st.none() | TEXTS, st.none() | TEXTS, st.none() | TEXTS)
NO_FILTERS = (None, None, None)
SCORES = st.sampled_from(["", "1700000000.123", "1700000000.1229999", "4", "-1", "inf", "-inf", "1e+300", "1e-09"])


@given(FILTERS, SCORES, TEXTS)
def test_cursor_comes_back_as_it_was_written(filters, score, member):
    cursor = Cursor(filters, score, member)
    assert Cursor.read(str(cursor), filters) == cursor
    assert str(cursor).isascii()


@given(FILTERS, FILTERS)
def test_cursor_is_refused_for_other_filters(filters, others):
    cursor = str(Cursor(filters))
    if filters == others:
        assert Cursor.read(cursor, others)
    else:
        with pytest.raises(InvalidCursor):
            Cursor.read(cursor, others)


@given(st.text() | st.binary().map(lambda data: base64.urlsafe_b64encode(data).decode()))
@example(5)
def test_garbage_is_refused_and_nothing_else_happens(text):
    with pytest.raises(InvalidCursor):
        Cursor.read(text, NO_FILTERS)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.just(["", "", ""]),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=12,
)


@pytest.mark.slow
@given(JSON | st.tuples(FILTERS, TEXTS | JSON, TEXTS | JSON))
def test_json_that_is_not_a_cursor_is_refused(value):
    text = base64.urlsafe_b64encode(msgspec.json.encode(value)).decode()
    try:
        cursor = Cursor.read(text, NO_FILTERS)
    except InvalidCursor:
        return
    float(cursor.score or 0)


@given(st.integers(0, 400), st.integers(0, 255))
def test_cursor_is_refused_or_has_a_score_when_a_byte_is_changed(place, byte):
    data = bytearray(base64.urlsafe_b64decode(str(Cursor(NO_FILTERS, "1700000000.5", "a"))))
    data[place % len(data)] = byte
    try:
        cursor = Cursor.read(base64.urlsafe_b64encode(bytes(data)).decode(), NO_FILTERS)
    except InvalidCursor:
        return
    float(cursor.score or 0)


@pytest.mark.parametrize(
    ("filters", "matches"),
    [
        (Filters(), True),
        (Filters("openai", "gpt-4", "user-456"), True),
        (Filters(provider="openai"), True),
        (Filters(provider="Openai"), False),
        (Filters(provider=""), False),
        (Filters(model="gpt-5"), False),
        (Filters("openai", "gpt-4", "user-45"), False),
    ],
)
def test_filters_match_what_equals_all_of_them(filters, matches):
    assert filters.match(sample()) is matches


@pytest.mark.parametrize("text", ["\ud800", "a\udfff"])
def test_filters_report_values_without_a_utf8_form(text):
    assert Filters("é\U0001f600", None, "").is_encodable
    assert not Filters(provider=text).is_encodable
    assert not Filters(model=text).is_encodable
    assert not Filters(owner=text).is_encodable
