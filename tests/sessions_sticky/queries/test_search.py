"""Searches: exactly an id, exactly an owner, else a part of an id, in bounded steps."""

from __future__ import annotations

import base64
import hashlib

import pytest

from sessions_sticky import InvalidCursor, keys
from sessions_sticky.identity import identify
from sessions_sticky.queries import search
from tests.sessions_sticky.calls import PROPOSAL
from tests.sessions_sticky.indexed import HOSTILE, fill, ids, on_real, on_valkey, walk
from tests.sessions_sticky.marks import on_redis

KEY = b"k" * 32


def searcher(call, text):
    """Return the method `search` for one text, or its async form."""
    return lambda **kwargs: call("search", text, **kwargs)


def found(call, text, **kwargs):
    """Return the ids that a text finds, on all pages."""
    return sorted(ids(walk(searcher(call, text), **kwargs)))


@on_redis
def test_search_returns_the_session_alone_when_the_text_is_its_id(call, manager, raw):
    manager.create("abc", **{**PROPOSAL, "owner": "conv"})
    manager.create("abcd", **{**PROPOSAL, "owner": "abc"})
    assert found(call, "abc") == ["abc"]


@on_redis
def test_search_returns_the_owners_sessions_when_the_text_is_an_owner(call, manager, raw):
    fill(manager, 5, owner="ann")
    manager.create("ann-1", **PROPOSAL)
    assert found(call, "ann", limit=2) == [f"conv-{number}" for number in range(5)]


@on_valkey
@pytest.mark.parametrize("text", ["other", "-A", "bc@", "@small", "ab:"])
def test_search_finds_ids_that_contain_the_text_as_it_is_written(call, manager, raw, text):
    session_id = "0123456789ab:other-Abc@small"
    manager.create(session_id, **PROPOSAL)
    manager.create("conv-1", **PROPOSAL)
    assert found(call, text) == [session_id]
    assert found(call, text.swapcase()) == []


@on_valkey
@pytest.mark.parametrize("client_id", ["plain", "thread_*[a-z]?\\^", "long" * 80, "content:mine", "bell\a"])
def test_search_finds_an_observed_session_by_the_clients_own_id(call, manager, raw, client_id):
    headers = {"x-session-id": client_id}
    found_identity = identify(headers, {}, owner="o", model="m", api="chat", key=KEY)
    manager.create(found_identity.session_id, **PROPOSAL)
    manager.create("0123456789ab:elsewhere@m", **PROPOSAL)
    assert found(call, client_id) == [found_identity.session_id]


@on_valkey
@pytest.mark.parametrize("text", HOSTILE)
def test_search_takes_every_character_literally(call, manager, raw, text):
    text = text[:200]
    manager.create(f"<{text}>", **PROPOSAL)
    manager.create("<anything else>", **PROPOSAL)
    others = ["<anything else>"] if text in "<anything else>" else []
    assert found(call, text) == sorted([f"<{text}>", *others])


@pytest.mark.slow
@on_real
@pytest.mark.parametrize("seconds", [0, 60])
def test_search_gives_every_match_once_when_taken_in_pages(call, manager, raw, monkeypatch, seconds):
    monkeypatch.setattr(search, "SCAN_COUNT", 10)
    monkeypatch.setattr(search, "MAX_SECONDS", seconds)
    fill(manager, 300)  # beyond the size where Redis replies with the whole ZSET at once
    for number in range(300):
        manager.create(f"other-{number}", **PROPOSAL)
    for limit in (1, 7, 1_000):
        met = ids(walk(searcher(call, "conv-"), limit=limit))
        assert sorted(met) == sorted(f"conv-{number}" for number in range(300))


@on_real
def test_search_has_a_next_page_when_it_has_looked_through_enough(call, manager, raw, monkeypatch):
    monkeypatch.setattr(search, "SCAN_COUNT", 10)
    monkeypatch.setattr(search, "MAX_SECONDS", 0)
    fill(manager, 300)
    page = call("search", "no such id")
    assert page.entries == []
    assert page.next_cursor
    assert found(call, "no such id") == []


@on_redis
def test_search_finds_nothing_when_there_is_nothing(call, raw):
    assert call("search", "conv") == ([], None)
    assert call("search", "lone \ud800 surrogate") == ([], None)


@on_real
def test_search_finds_nothing_when_the_index_is_a_key_of_another_type(call, raw):
    raw.set(keys.index_all(), "text")
    assert call("search", "conv") == ([], None)


@on_valkey
@pytest.mark.parametrize("text", ["", None, 5, b"conv"])
def test_search_refuses_a_text_that_is_empty_or_no_string(call, raw, text):
    with pytest.raises(ValueError, match="text must be a non-empty string"):
        call("search", text)


@on_valkey
@pytest.mark.parametrize(
    "cursor",
    [
        "x",
        "é",
        5,
        str(search.SearchCursor("other text")),
        str(search.SearchCursor("conv", "-1")),
        str(search.SearchCursor("conv", "9" * 21)),
        base64.urlsafe_b64encode(b'["conv"').decode(),
    ],
)
def test_search_refuses_a_cursor_that_it_did_not_return(call, raw, cursor):
    with pytest.raises(InvalidCursor):
        call("search", "conv", cursor=cursor)


def test_pattern_hashes_as_identity_does():
    long = "x" * 300
    session_id = identify({"x-session-id": long}, {}, owner="o", model="m", api="chat", key=KEY).session_id
    assert hashlib.sha256(long.encode()).hexdigest() in session_id
