from __future__ import annotations

import json
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions_sticky import InvalidSession, Session
from tests.sessions_sticky.calls import sample

EXAMPLE = b'{"id":"conv-123","provider":"openai","model":"gpt-4","external_id":"user-456","created_at":1700000000}'
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NAME = TEXT.filter(str.strip)
"""A provider, a model or a reason: not blank."""
SESSIONS = st.builds(Session, TEXT, TEXT, TEXT, TEXT, st.integers(-(2**63), 2**63 - 1))


def test_to_json_writes_the_specified_bytes_when_given_the_example():
    assert sample().to_json() == EXAMPLE


def test_from_json_reads_the_example():
    assert Session.from_json(EXAMPLE) == Session("conv-123", "openai", "gpt-4", "user-456", 1_700_000_000)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("", b""),
        ("é日😀\u2028\x7f/<>&'", "é日😀\u2028\x7f/<>&'".encode()),
        ('"\\', b'\\"\\\\'),
        ("\b\f\n\r\t", rb"\b\f\n\r\t"),
        ("\x00\x01\x0b\x0e\x1b\x1f", rb"\u0000\u0001\u000b\u000e\u001b\u001f"),
    ],
)
def test_to_json_escapes_as_serde_json_does(text, written):
    assert sample(model=text).to_json() == EXAMPLE.replace(b"gpt-4", written)


@pytest.mark.parametrize("created_at", [0, -1, 2**63 - 1, -(2**63)])
def test_to_json_writes_every_int64(created_at):
    assert sample(created_at=created_at).to_json().endswith(b'"created_at":%d}' % created_at)


@given(SESSIONS)
def test_from_json_gives_the_session_back_when_to_json_wrote_it(session):
    assert Session.from_json(session.to_json()) == session


@given(SESSIONS)
def test_to_json_writes_what_the_standard_library_reads(session):
    written = json.loads(session.to_json())
    assert list(written) == ["id", "provider", "model", "external_id", "created_at"]
    assert Session(**written) == session


@given(
    st.permutations(["id", "provider", "model", "external_id", "created_at", "extra", "more"]),
    st.sampled_from([None, 1, "\t", 7]),
    st.booleans(),
)
def test_from_json_ignores_order_space_escapes_and_extra_fields(order, indent, ascii_only):
    fields = {**json.loads(EXAMPLE), "model": "é😀", "extra": {"id": "other", "deep": [1, None]}, "more": 1.5}
    text = json.dumps({name: fields[name] for name in order}, indent=indent, ensure_ascii=ascii_only)
    assert Session.from_json(f" \r\n{text}\n".encode()) == sample(model="é😀")


UNREADABLE = {
    "empty": b"",
    "digits": b"1700000000",
    "text": b"openai",
    "null": b"null",
    "array": b'["conv-123","openai","gpt-4","user-456",1700000000]',
    "empty object": b"{}",
    "cut off": EXAMPLE[:-1],
    "trailing": EXAMPLE + b"x",
    "twice": EXAMPLE * 2,
    "single quotes": EXAMPLE.replace(b'"', b"'"),
    "no UTF-8": EXAMPLE.replace(b"gpt", b"\xff\xfe"),
    "lone surrogate": EXAMPLE.replace(b"gpt", rb"\ud800"),
    "byte order mark": b"\xef\xbb\xbf" + EXAMPLE,
    "pickle": b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x02id\x94\x8c\x01c\x94s.",
    "zlib": b"x\x9c\xabV\xcaLQ\xb2R\x02\x00\x08\x1d\x02\x1d",
    "megabyte": b'{"id":"' + b"x" * 2**20,
    "megabyte of digits": b"1" * 2**20,
    "deep": b"[" * 100_000,
    "deep in an extra field": EXAMPLE[:-1] + b',"x":' + b"[" * 100_000,
    "id missing": EXAMPLE.replace(b'"id":"conv-123",', b""),
    "owner missing": EXAMPLE.replace(b'"external_id":"user-456",', b""),
    "created_at missing": EXAMPLE.replace(b',"created_at":1700000000', b""),
    "id null": EXAMPLE.replace(b'"conv-123"', b"null"),
    "provider a number": EXAMPLE.replace(b'"openai"', b"7"),
    "model a list": EXAMPLE.replace(b'"gpt-4"', b'["gpt-4"]'),
    "created_at text": EXAMPLE.replace(b"1700000000", b'"1700000000"'),
    "created_at a fraction": EXAMPLE.replace(b"1700000000", b"1700000000.5"),
    "created_at true": EXAMPLE.replace(b"1700000000", b"true"),
    "created_at beyond int64": EXAMPLE.replace(b"1700000000", str(2**63).encode()),
    "created_at below int64": EXAMPLE.replace(b"1700000000", str(-(2**63) - 1).encode()),
    "created_at huge": EXAMPLE.replace(b"1700000000", b"9" * 5000),
}
"""Values that are no session; also written into stores by test_poison."""


@pytest.mark.parametrize("data", UNREADABLE.values(), ids=UNREADABLE)
def test_from_json_raises_when_it_is_not_a_session(data):
    with pytest.raises(InvalidSession, match=r"^Not a session: "):
        Session.from_json(data)


@pytest.mark.parametrize(
    "fields",
    [
        {"conversation_id": None},
        {"provider": 7},
        {"provider": b"openai"},
        {"model": ["gpt-4"]},
        {"owner": None},
        {"owner": UUID(int=7)},
        {"created_at": "1700000000"},
        {"created_at": 1.0},
        {"created_at": True},
        {"created_at": 2**63},
        {"created_at": -(2**63) - 1},
        {"created_at": 10**5000},
        {"model": "\ud800"},
        {"owner": object()},
    ],
)
def test_to_json_raises_when_a_field_does_not_fit(fields):
    with pytest.raises(InvalidSession, match=r"^Cannot be written as a session: "):
        sample(**fields).to_json()


def test_session_refuses_change_and_compares_by_value():
    with pytest.raises(AttributeError):
        sample().provider = "other"
    assert sample() == sample()
    assert len({sample(), sample(), sample(provider="other")}) == 2
