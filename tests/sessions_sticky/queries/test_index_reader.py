"""A walk through the pages misses nothing, repeats nothing, and leaves nothing behind, whatever happens meanwhile."""

from __future__ import annotations

import pytest

from sessions_sticky import SessionManager, keys
from sessions_sticky.stores import index
from tests.sessions_sticky.calls import MOVE, PROPOSAL
from tests.sessions_sticky.indexed import (
    age,
    fill,
    forget_refreshes,
    ids,
    index_keys,
    on_real,
    on_redis,
    on_valkey,
    pager,
    walk,
    write_raw,
)

ALL = keys.INDEX_ALL


# What nobody thought of is tried in test_walk_properties.py.


@on_real
@pytest.mark.parametrize("filters", [{}, {"provider": "openai"}, {"external_id": "user-456"}])
def test_walk_meets_a_session_once_when_it_moves_up_past_the_walk(call, manager, filters):
    made = fill(manager, 20)
    first = call("page", limit=5, **filters)
    forget_refreshes(manager)
    seen = ids([entry.session for entry in first.sessions])
    ahead = [session.id for session in made if session.id not in seen]
    for conversation_id in (seen[0], *ahead[:3], *ahead[:2]):
        manager.touch(conversation_id)
        forget_refreshes(manager)
    rest = walk(lambda **kw: call("page", **{**kw, "cursor": kw["cursor"] or first.next_cursor}), limit=5, **filters)
    assert sorted(seen + ids(rest)) == sorted(ids(made))


@on_real
def test_walk_meets_a_session_once_when_idle_times_differ(manager):
    """Those used with a shorter idle time move up without passing the walk, or down past it."""
    brief = SessionManager(ttl_seconds=3_600)
    low = [brief.create(f"low-{n}", **PROPOSAL) for n in range(6)]
    high = fill(manager, 6)
    page = manager.page(limit=3)
    met = [entry.session.id for entry in page.sessions]
    for conversation_id in (*met[:2], *ids(low)):  # down past the walk; up, but not past it
        forget_refreshes(manager)
        brief.touch(conversation_id)
    forget_refreshes(manager)
    manager.touch(met[0])  # and up again
    forget_refreshes(manager)
    manager.touch(low[0].id)  # up past the walk
    forget_refreshes(manager)
    brief.touch(low[0].id)  # and down again
    found = met + ids(walk(lambda **kw: manager.page(**{**kw, "cursor": kw["cursor"] or page.next_cursor}), limit=3))
    assert sorted(found) == sorted(ids(low + high))


@on_real
def test_walk_meets_a_session_once_when_the_entry_it_stands_on_is_deleted(call, manager, raw):
    made = fill(manager, 9)
    for key in (ALL, keys.owner("user-456"), keys.route("openai", "gpt-4")):
        raw.zadd(key, {session.id: 4e9 for session in made})
    first = call("page", limit=4)
    manager.delete(first.sessions[-1].session.id)
    rest = walk(lambda **kw: call("page", **{**kw, "cursor": kw["cursor"] or first.next_cursor}), limit=4)
    assert sorted(ids([entry.session for entry in first.sessions] + rest)) == sorted(ids(made))


@pytest.fixture
def between(manager, monkeypatch):
    """Run a function once, after the next request of one kind was answered: another client comes in between."""

    def arrange(kind, function):
        store, send = manager._store, manager._store.send

        def send_then_run(request):
            reply = send(request)
            if kind in getattr(request, "args", ())[1:2]:
                monkeypatch.setattr(store, "send", send)
                function()
            return reply

        monkeypatch.setattr(store, "send", send_then_run)

    return arrange


@on_real
@pytest.mark.parametrize("moment", [index.PAGE.sha, keys.INDEX_ROUTES])
def test_walk_meets_a_session_once_when_it_is_rebound_between_two_requests(manager, between, moment):
    """Routes are listed, entries taken, sessions read: one may change its route between each two."""
    made = fill(manager, 6)
    between(moment, lambda: [manager.rebind(session, **{**MOVE, "provider": "openai"}) for session in made[::2]])
    assert sorted(ids(walk(manager.page, limit=4, provider="openai"))) == sorted(ids(made))
    assert manager.count(provider="openai", model="large") == 3


@on_real
def test_walk_meets_a_session_once_when_another_program_has_moved_it(call, manager, raw):
    fill(manager, 6)
    for number in range(0, 6, 2):
        write_raw(raw, f"conv-{number}", model="gpt-5")
    assert sorted(ids(walk(pager(call), limit=2, provider="openai"))) == [f"conv-{n}" for n in range(6)]
    assert call("count", model="gpt-5") == 3
    assert sorted(ids(walk(pager(call), limit=2, provider="openai"))) == [f"conv-{n}" for n in range(6)]


@on_real
def test_walk_meets_a_session_once_when_an_entry_in_the_wrong_place_comes_first(call, manager, raw):
    fill(manager, 6)
    raw.zadd(keys.INDEX_ROUTES, {keys.route_name("openai", "gpt-5"): 4e9})
    raw.zadd(keys.route("openai", "gpt-5"), {"conv-0": 4e9})
    raw.zadd(ALL, {"conv-0": 4e9})
    assert sorted(ids(walk(pager(call), limit=2, provider="openai"))) == [f"conv-{n}" for n in range(6)]
    assert not raw.exists(keys.route("openai", "gpt-5"))


@on_real
def test_page_is_short_but_goes_on_when_few_of_many_fit(manager, monkeypatch):
    monkeypatch.setattr(index, "PAGE_BUDGET", 2)
    for number in range(60):  # the last are met first
        manager.create(f"other-{number}", "openai", "gpt-4", "somebody")
        manager.create(f"else-{number}", "mistral", "large", "user-456")
    manager.create("sought", "openai", "gpt-4", "user-456")
    first = manager.page(provider="openai", external_id="user-456", limit=50)
    assert len(first.sessions) <= 1
    assert first.next_cursor
    assert ids(walk(manager.page, provider="openai", external_id="user-456")) == ["sought"]
    assert manager.count(provider="openai", external_id="user-456") == 1


# What a walk leaves behind.


@on_redis
def test_walk_leaves_nothing_behind_when_it_is_over(call, manager, raw):
    fill(manager, 5)
    age(raw)
    before = index_keys(raw)
    page = call("page", limit=2)
    forget_refreshes(manager)
    manager.touch("conv-0")
    assert len(index_keys(raw)) > len(before)
    walk(lambda **kw: call("page", **{**kw, "cursor": kw["cursor"] or page.next_cursor}), limit=2)
    assert not raw.exists(keys.INDEX_WALKS)
    for key in set(index_keys(raw)) - set(before):
        assert 0 < raw.ttl(key) <= 60


@on_real
def test_walk_leaves_nothing_behind_when_it_is_abandoned(manager, raw):
    fill(manager, 5)
    age(raw)
    brief = SessionManager(ttl_seconds=3_600)
    met = manager.page(limit=2).sessions[0].session.id
    forget_refreshes(manager)
    manager.touch("conv-0")
    forget_refreshes(manager)
    brief.touch(met)
    (token,) = raw.hkeys(keys.INDEX_WALKS)
    walk_keys = [key for key in index_keys(raw) if key.startswith(keys.INDEX_WALKS)]
    assert {key.rpartition(":")[2] for key in walk_keys} == {"walks", "missed", "met"}
    assert 0 < raw.ttl(keys.INDEX_WALKS) <= 60
    assert all(0 < raw.ttl(key) <= 300 for key in walk_keys)
    place = raw.hget(keys.INDEX_WALKS, token).split(b" ", 1)[1]
    raw.hset(keys.INDEX_WALKS, token, b"1000.0 " + place)  # its lease is over
    forget_refreshes(manager)
    manager.touch("conv-1")
    assert not raw.exists(keys.INDEX_WALKS)


@on_real
def test_walks_are_bounded_when_many_begin(manager, raw):
    fill(manager, 3)
    for _ in range(40):
        manager.page(limit=1)
    held = raw.hkeys(keys.INDEX_WALKS)
    assert len(held) == 32
    manager.page(limit=1)
    assert len(set(held) & set(raw.hkeys(keys.INDEX_WALKS))) == 31


@on_valkey
def test_walk_is_given_up_when_too_many_move(manager, raw):
    fill(manager, 3)
    age(raw)
    manager.page(limit=1)
    (token,) = raw.hkeys(keys.INDEX_WALKS)
    raw.rpush(f"{keys.INDEX_WALKS}:{token.decode()}:missed", *range(100_000))
    forget_refreshes(manager)
    manager.touch("conv-0")
    assert not raw.exists(keys.INDEX_WALKS)


@on_real
def test_entry_entered_anew_stays_when_it_was_a_ghost_a_moment_ago(manager, raw, between):
    fill(manager, 2)
    raw.delete(keys.session("conv-1"))
    raw.zincrby(ALL, -1, "conv-1")
    between(index.READ.sha, lambda: manager.create("conv-1", **PROPOSAL))
    manager.page()
    assert raw.zscore(ALL, "conv-1")
    assert manager.count() == 2
