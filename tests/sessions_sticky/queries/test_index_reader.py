"""Each entry of the index that is read is verified against its session, and repaired where it is wrong."""

from __future__ import annotations

import pytest

from sessions_sticky import keys
from sessions_sticky.queries import index_reader
from sessions_sticky.stores import index
from tests.sessions_sticky.calls import MOVE, PROPOSAL
from tests.sessions_sticky.indexed import fill, ids, index_keys, on_real, pager, walk, write_raw

ALL = keys.index_all()


@on_real
def test_pages_continue_when_the_session_at_the_cursor_is_deleted(call, manager, raw):
    made = fill(manager, 9)
    for key in (ALL, keys.owner("user-456"), keys.route("openai", "gpt-4")):
        raw.zadd(key, {session.id: 4e9 for session in made})
    first = call("page", limit=4)
    manager.delete(first.entries[-1].session.id)
    rest = walk(lambda **kw: call("page", **{**kw, "cursor": kw["cursor"] or first.next_cursor}), limit=4)
    assert sorted(ids([entry.session for entry in first.entries] + rest)) == sorted(ids(made))


@on_real
def test_pages_leave_no_keys_behind(call, manager, raw):
    fill(manager, 5)
    before = index_keys(raw)
    call("page", limit=2)
    manager.touch("conv-0")
    assert index_keys(raw) == before


@pytest.fixture
def between(manager, monkeypatch):
    """Run a function once, after the next call of a script was answered, as another client may."""

    def arrange(script, function):
        store = manager._store.operators
        send = store.send

        def send_then_run(request):
            reply = send(request)
            if getattr(request, "script", None) is script:
                monkeypatch.setattr(store, "send", send)
                function()
            return reply

        monkeypatch.setattr(store, "send", send_then_run)

    return arrange


@on_real
def test_page_has_a_moved_session_only_at_its_new_provider(manager, between):
    """Entries are read, then their sessions: a session may move in between."""
    made = fill(manager, 6)
    between(index.PAGE, lambda: [manager.rebind(session, **{**MOVE, "provider": "openai"}) for session in made[::2]])
    page = manager.filter(provider="openai").page()
    assert sorted(ids([entry.session for entry in page.entries])) == sorted(ids(made))
    assert {entry.session.model for entry in page.entries} == {"gpt-4", "large"}
    between(index.PAGE, lambda: manager.rebind(manager.get("conv-1"), **MOVE))
    assert "conv-1" not in [entry.session.id for entry in manager.filter(provider="openai").page().entries]


@on_real
def test_page_repairs_the_index_when_another_program_has_moved_sessions(call, manager, raw):
    fill(manager, 6)
    for number in range(0, 6, 2):
        write_raw(raw, f"conv-{number}", model="gpt-5")
    assert {*ids(walk(pager(call), limit=2, provider="openai"))} == {f"conv-{n}" for n in range(6)}
    assert call("count", model="gpt-5") == 3
    assert sorted(ids(walk(pager(call), limit=2, provider="openai"))) == [f"conv-{n}" for n in range(6)]


@on_real
def test_page_has_a_session_once_when_it_has_an_entry_in_a_wrong_place(call, manager, raw):
    fill(manager, 6)
    raw.zadd(keys.index_routes(), {keys.route_name("openai", "gpt-5"): 4e9})
    raw.zadd(keys.route("openai", "gpt-5"), {"conv-0": 4e9})
    raw.zadd(ALL, {"conv-0": 4e9})
    page = call("page", provider="openai")
    assert sorted(entry.session.id for entry in page.entries) == [f"conv-{n}" for n in range(6)]
    assert not raw.exists(keys.route("openai", "gpt-5"))
    assert sorted(ids(walk(pager(call), limit=2, provider="openai"))) == [f"conv-{n}" for n in range(6)]


@on_real
def test_page_is_short_but_has_a_next_one_when_few_of_many_match(manager, monkeypatch):
    monkeypatch.setattr(index_reader, "BATCH_SIZE", 2)
    manager.create("sought", "openai", "gpt-4", "user-456")
    for number in range(60):
        manager.create(f"other-{number}", "openai", "gpt-4", "another-owner")
        manager.create(f"else-{number}", "mistral", "large", "user-456")
    first = manager.filter(provider="openai", owner="user-456").page(limit=50)
    assert len(first.entries) <= 1
    assert first.next_cursor
    assert ids(walk(manager.filter(provider="openai", owner="user-456").page)) == ["sought"]
    assert manager.filter(provider="openai", owner="user-456").count() == 1


@on_real
@pytest.mark.parametrize("limit", [1, 2, 3, 50])
def test_pages_end_at_their_limit_when_an_owner_has_sessions_of_several_providers(manager, limit):
    for number in range(6):
        manager.create(f"conv-{number}", "openai", "gpt-4", "user-456")
        manager.create(f"other-{number}", "mistral", "large", "user-456")
    shown = walk(manager.filter(provider="openai", owner="user-456").page, limit=limit)
    assert sorted(ids(shown)) == [f"conv-{n}" for n in range(6)]


@on_real
def test_entry_stays_when_its_session_is_created_again_after_it_was_read(manager, raw, between):
    fill(manager, 2)
    raw.delete(keys.session("conv-1"))
    raw.zincrby(ALL, -1, "conv-1")
    between(index.READ, lambda: manager.create("conv-1", **PROPOSAL))
    manager.all().page()
    assert raw.zscore(ALL, "conv-1")
    assert manager.all().count() == 2
