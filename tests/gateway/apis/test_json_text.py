"""Editing JSON text byte for byte."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentinel_project.gateway.apis import json_text

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=10,
)
STYLES = st.fixed_dictionaries(
    {"ensure_ascii": st.booleans(), "indent": st.sampled_from([None, 0, 2]), "separators": st.just((" , ", "\t: "))}
)


def drop(*items: bytes):
    return lambda item: None if item in items else item


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (b"[1,2,3]", b"[1,3]"),
        (b"[ 1 , 2 ,3 ]", b"[ 1 , 3 ]"),
        (b"[2, 1]", b"[1]"),
        (b"[1,\n 2 ]", b"[1 ]"),
        (b"[ 2,  2\t]", b"[ \t]"),
        (b"[2,2 , 1,  2,2, 3 ,2]", b"[1,  3]"),
        (b"[ ]", b"[ ]"),
        (b'["2, 2", 2]', b'["2, 2"]'),
    ],
)
def test_change_items_keeps_other_bytes_when_items_are_removed(text, left):
    assert json_text.change_items(text, drop(b"2")) == left


@pytest.mark.slow
@given(items=st.lists(JSON, max_size=5), style=STYLES, removed=st.sets(st.integers(0, 4)))
def test_change_items_removes_exactly_the_chosen_items(items, style, removed):
    numbers = iter(range(len(items)))
    text = json.dumps(items, **style).encode(errors="surrogatepass")
    if not is_utf8(text):
        return
    assert json_text.change_items(text, lambda item: item) == text
    left = json_text.change_items(text, lambda item: None if next(numbers) in removed else item)
    assert json.loads(left) == [item for at, item in enumerate(items) if at not in removed]


@pytest.mark.slow
@given(fields=st.dictionaries(st.text(max_size=4), JSON, min_size=1, max_size=5), style=STYLES)
def test_change_field_changes_exactly_one_value(fields, style):
    text = json.dumps(fields, **style).encode(errors="surrogatepass")
    if not is_utf8(text):
        return
    for name, value in fields.items():
        assert json_text.change_field(text, name, lambda raw: raw) == text
        changed = json_text.change_field(text, name, lambda raw: b'"new"')
        assert changed is not None
        assert json.loads(changed) == {**fields, name: "new"}
        assert len(changed) == len(text) - len(raw_value(text, name)) + len(b'"new"')
        assert json.loads(raw_value(text, name)) == value


@pytest.mark.parametrize("text", [b'{"a":1,"a":2}', b'{"a":1,"b":2,"a":1}', b"5", b"[1]", b"null", b'{"b":1}', b"{}"])
def test_change_field_changes_nothing_when_the_field_is_not_there_once(text):
    assert json_text.change_field(text, "a", lambda raw: b"3") == text


def test_change_field_returns_none_when_the_change_does():
    assert json_text.change_field(b'{"a": 1}', "a", lambda raw: None) is None


def raw_value(text: bytes, name: str) -> bytes:
    return bytes(msgspec.json.decode(text, type=dict[str, msgspec.Raw])[name])


def is_utf8(text: bytes) -> bool:
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError):
        return False
    return True
