"""Pages: their content, their order, and the cursors and limits that they accept."""

from __future__ import annotations

import base64
import json
import re
import time
from itertools import product

import pytest

from sessions_sticky import InvalidCursor, keys
from sessions_sticky.queries import index_reader, reads
from sessions_sticky.stores import index
from tests.sessions_sticky.indexed import (
    HOSTILE,
    entries,
    fill,
    forget_refreshes,
    ids,
    on_real,
    on_valkey,
    pager,
    walk,
)
from tests.sessions_sticky.marks import on_redis

ALL = keys.index_all()


@on_redis
def test_page_shows_the_latest_used_first_when_sessions_are_used(call, manager, raw):
    fill(manager, 4)
    for number, conversation_id in enumerate(["conv-2", "conv-0", "conv-3", "conv-1"]):
        for key in entries(raw):
            if b"conv-0" in dict(raw.zrange(key, 0, -1, withscores=True)):
                raw.zincrby(key, 10 * number - 40, conversation_id)
    assert ids(walk(pager(call))) == ["conv-1", "conv-3", "conv-0", "conv-2"]
    forget_refreshes(manager)
    manager.touch("conv-2")
    page = call("page", limit=2)
    assert [entry.session.id for entry in page.entries] == ["conv-2", "conv-1"]
    assert all(86_300 < (entry.expires_in or 0) <= 86_400 for entry in page.entries)
    assert page.next_cursor


@on_real
def test_page_returns_the_idle_time_left(call, manager, raw):
    fill(manager, 2)
    raw.pexpire(keys.session("conv-0"), 7_500)
    raw.persist(keys.session("conv-1"))
    left = {entry.session.id: entry.expires_in for entry in call("page").entries}
    assert left == {"conv-0": 8, "conv-1": None}


@on_redis
def test_page_is_empty_when_there_is_nothing(call, raw):
    for filters in ({}, {"provider": "a"}, {"model": "a"}, {"external_id": "a"}, {"provider": "a", "external_id": "b"}):
        assert call("page", **filters) == ([], None)
        assert call("count", **filters) == 0
    assert not [*raw.scan_iter("sentinel:*")]


@on_real
@pytest.mark.parametrize("limit", [1, 3, 1000])
@pytest.mark.slow
def test_walk_finds_what_matches_each_combination_of_filters(call, manager, limit):
    made = [
        manager.create(f"conv-{p}{m}{o}{n}", p, m, o)
        for p, m, o, n in product(["p1", "p2"], ["m1", "m2"], ["o1", "o2"], range(2))
    ]
    for provider, model, owner in product(["p1", None, "no"], ["m2", None, "no"], ["o1", None, "no"]):
        given = {"provider": provider, "model": model, "owner": owner}
        filters = {name: value for name, value in given.items() if value is not None}
        meant = [s for s in made if all(getattr(s, name) == value for name, value in filters.items())]
        found = walk(pager(call), limit=limit, **filters)
        assert sorted(ids(found)) == sorted(ids(meant))
        assert call("count", **filters) == len(meant)


@on_real
@pytest.mark.slow
def test_walk_finds_each_hostile_name_once(call, manager, raw):
    made = [manager.create(name, HOSTILE[-n], name, HOSTILE[(n + 3) % len(HOSTILE)]) for n, name in enumerate(HOSTILE)]
    for key in entries(raw):
        if key != keys.index_routes():
            raw.zadd(key, dict.fromkeys(raw.zrange(key, 0, -1), 4e9))  # ties: only the bytes tell them apart
    assert ids(walk(pager(call), limit=2)) == sorted(HOSTILE, key=str.encode, reverse=True)
    for session in made:
        for filters in (
            {"provider": session.provider},
            {"model": session.model},
            {"external_id": session.external_id},
            {"provider": session.provider, "model": session.model, "external_id": session.external_id},
        ):
            meant = [s.id for s in made if all(getattr(s, name) == value for name, value in filters.items())]
            assert sorted(ids(walk(pager(call), limit=1, **filters))) == sorted(meant)
            assert call("count", **filters) == len(meant)


@on_valkey
@pytest.mark.parametrize("filters", [{"provider": "\ud800", "model": "x"}, {"external_id": "\udfff"}])
def test_page_is_empty_when_a_filter_has_no_utf8_form(call, manager, filters):
    fill(manager, 1)
    assert call("page", **filters) == ([], None)
    assert call("count", **filters) == 0
    assert call("delete_all", **filters) == 0


@on_valkey
@pytest.mark.parametrize("limit", [0, -1, 1001, True, "5", 1.5, None])
def test_page_refuses_a_limit_out_of_range(call, limit):
    with pytest.raises(ValueError, match="limit must be a whole number"):
        call("page", limit=limit)


FILTERED = {
    "page": {},
    "count": {},
    "delete_all": {},
    "rebind_all": {"to_provider": "mistral", "reason": "r"},
}


@on_valkey
@pytest.mark.parametrize("method", FILTERED)
@pytest.mark.parametrize("name", ["provider", "model", "external_id"])
@pytest.mark.parametrize("value", [5, 0, b"openai", ["openai"], None])
def test_filter_is_refused_when_it_is_not_a_string(call, manager, method, name, value):
    fill(manager, 1)
    shown = "owner" if name == "external_id" else name
    with pytest.raises(ValueError, match=rf"^{shown} must be a string, not {re.escape(repr(value))}$"):
        call(method, **{name: value}, **FILTERED[method])


# Cursors.


@on_valkey
def test_page_refuses_a_cursor_of_other_filters(call, manager):
    fill(manager, 3)
    cursor = call("page", limit=1, provider="openai").next_cursor
    for filters in ({}, {"provider": "mistral"}, {"model": "gpt-4"}, {"provider": "openai", "external_id": "user-456"}):
        with pytest.raises(InvalidCursor):
            call("page", cursor=cursor, **filters)


@on_valkey
@pytest.mark.parametrize(
    "fields",
    [
        {"score": "1 1"},
        {"score": "nan"},
        {"score": "("},
        {"score": "1" * 21},
        {"score": 5},
        {"member": None},
    ],
)
def test_page_refuses_a_cursor_that_was_tampered_with(call, manager, fields):
    fill(manager, 3)
    cursor = json.loads(base64.urlsafe_b64decode(call("page", limit=1).next_cursor))
    names = ["filters", "score", "member"]
    forged = [fields.get(name, value) for name, value in zip(names, cursor, strict=True)]
    with pytest.raises(InvalidCursor):
        call("page", cursor=base64.urlsafe_b64encode(json.dumps(forged).encode()).decode())


@on_valkey
@pytest.mark.parametrize("fields", [{"score": "1"}, {"score": "-inf"}, {"member": ""}])
def test_page_stays_with_the_keys_of_the_app_when_a_forged_cursor_is_well_formed(call, manager, raw, fields):
    fill(manager, 3)
    raw.set("foreign", "untouched")
    cursor = json.loads(base64.urlsafe_b64decode(call("page", limit=1).next_cursor))
    names = ["filters", "score", "member"]
    forged = [fields.get(name, value) for name, value in zip(names, cursor, strict=True)]
    page = call("page", cursor=base64.urlsafe_b64encode(json.dumps(forged).encode()).decode())
    assert {entry.session.provider for entry in page.entries} <= {"openai"}
    assert [key for key in raw.scan_iter() if not key.startswith(b"sentinel:")] == [b"foreign"]


# Many routes.


@on_real
def test_no_step_takes_more_than_some_routes_and_pages_keep_their_order(manager, raw, monkeypatch):
    monkeypatch.setattr(index_reader, "MAX_ZSETS", 4)
    monkeypatch.setattr(reads, "MAX_ZSETS", 4)
    store = manager._store.operators
    send, most = store.send, []

    def measure(request):
        for command in getattr(request, "commands", [request]):
            if getattr(command, "script", None) in (index.PAGE, index.COUNT):
                most.append(len(command.keys))
        return send(request)

    monkeypatch.setattr(store, "send", measure)
    made = [manager.create(f"conv-{n:02}", f"p{n % 2}", f"m{n}", "user-1") for n in range(30)]
    for number, session in enumerate(made):  # as last used at different times
        expiry = time.time() + 80_000 - 100 * ((number * 7) % 30)
        raw.expireat(keys.session(session.id), int(expiry))
        for zset in index.zsets(session):
            raw.zadd(zset, {session.id: int(expiry)})
    expected = [session.id for session in made if session.provider == "p0"]
    expected.sort(key=lambda conversation_id: (int(conversation_id[-2:]) * 7) % 30)
    for limit in (1, 4, 7, 50):
        assert ids(walk(manager.filter(provider="p0").page, limit=limit)) == expected
    assert manager.filter(provider="p0").count() == 15
    assert len(manager.stats().routes) == 30
    assert max(most) == 4
