"""Deleting and moving many sessions: compare-and-set, stopping, repeating and progress."""

from __future__ import annotations

import time

import pytest

from sessions_sticky import InvalidSession, Outcome, SessionManager, keys
from sessions_sticky.connections.commands import Batch
from sessions_sticky.queries import bulk, index_reader
from sessions_sticky.queries.filters import Filters
from sessions_sticky.stores.redis import REMOVE, REPLACE
from tests.sessions_sticky.calls import OTHER, PROPOSAL
from tests.sessions_sticky.indexed import (
    check,
    fill,
    forget_refreshes,
    ids,
    on_real,
    on_valkey,
    places,
    walk,
    write_raw,
)
from tests.sessions_sticky.marks import on_redis
from tests.sessions_sticky.queries.writer import writer

MOVE_ALL = {"provider": "openai", "to_provider": "mistral", "reason": "maintenance"}


@pytest.fixture
def small_batches(monkeypatch):
    monkeypatch.setattr(index_reader, "BATCH_SIZE", 5)


@pytest.fixture
def before_changes(manager, monkeypatch):
    """Run a function before a batch of changes is sent, to interfere between reading and changing."""

    def arrange(function, times=1):
        store, left = manager._store.operators, [times]
        send, asend = store.send, store.asend

        def come_between(request):
            if isinstance(request, Batch) and left[0] and is_change(request):
                left[0] -= 1
                function()

        def send_after(request):
            come_between(request)
            return send(request)

        async def asend_after(request):
            come_between(request)
            return await asend(request)

        monkeypatch.setattr(store, "send", send_after)
        monkeypatch.setattr(store, "asend", asend_after)

    return arrange


def is_change(batch):
    return any(command.args[1] in (REMOVE.sha, REPLACE.sha) for command in batch.commands)


@on_redis
def test_delete_all_deletes_only_what_matches_the_filter(call, manager, raw, small_batches):
    fill(manager, 12)
    kept = [
        manager.create(f"kept-{n}", *fields) for n, fields in enumerate([("openai", "gpt-5", "o"), ("p", "m", "o")])
    ]
    reported = []
    number = call("delete_all", provider="openai", model="gpt-4", progress=lambda *p: reported.append(p))
    assert number == 12
    assert [done for done, _ in reported] == sorted(done for done, _ in reported)
    assert reported[-1][0] == 12
    assert {expected for _, expected in reported} == {12}
    check(raw, kept)
    assert sorted(raw.scan_iter("sentinel:session:*")) == [keys.session(session.id).encode() for session in kept]
    for conversation_id in ("conv-0", "conv-11"):
        assert 0 < raw.ttl(keys.deleted(conversation_id)) <= 86_400


@on_redis
def test_rebind_all_moves_only_what_matches_the_filter(call, manager, raw, small_batches):
    made = fill(manager, 12)
    kept = [manager.create("kept-1", "mistral", "gpt-4", "o"), manager.create("kept-2", "xai", "grok", "o")]
    raw.pexpire(keys.session("conv-3"), 500_500)
    for place in places(made[5]):
        raw.zincrby(place, -30, "conv-5")  # it lags behind
    score = raw.zscore(keys.index_all(), "conv-5")
    assert call("rebind_all", **MOVE_ALL) == 12
    moved = [manager.get(session.id) for session in made]
    assert [(s.id, s.external_id, s.created_at) for s in moved] == [(s.id, s.external_id, s.created_at) for s in made]
    assert {(s.provider, s.model) for s in moved} == {("mistral", "gpt-4")}
    assert 499_000 < raw.pttl(keys.session("conv-3")) <= 500_500
    assert {raw.zscore(place, "conv-5") for place in places(moved[5])} == {score}
    check(raw, moved + kept)
    assert call("count", provider="openai") == 0
    assert call("rebind_all", **MOVE_ALL) == 0


@on_redis
def test_rebind_all_moves_to_another_model_of_the_same_provider(call, manager, small_batches):
    fill(manager, 12)
    manager.create("already", "openai", "gpt-5", "o")
    reported = []
    move = {**MOVE_ALL, "to_provider": "openai", "to_model": "gpt-5"}
    assert call("rebind_all", **move, progress=lambda *p: reported.append(p)) == 12
    assert reported[-1] == (12, 13)
    assert call("rebind_all", **move) == 0
    assert call("count", provider="openai", model="gpt-5") == 13


@on_real
def test_bulk_changes_all_when_everything_is_requested(call, manager, raw):
    fill(manager, 3)
    manager.create("other", "p", "m", "o")
    assert call("rebind_all", to_provider="mistral", to_model="large", reason="a test") == 4
    assert call("delete_all") == 4
    assert not [*raw.scan_iter("sentinel:session:*")]
    reported = []
    assert call("delete_all", progress=lambda *p: reported.append(p)) == 0
    assert reported == []


@on_valkey
@pytest.mark.parametrize("name", ["\ud800", 5, None, "", " "])
@pytest.mark.parametrize("field", ["to_provider", "to_model", "reason"])
def test_rebind_all_refuses_invalid_values_even_without_sessions(call, raw, field, name):
    if (field, name) == ("to_model", None):
        assert call("rebind_all", **{**MOVE_ALL, field: name}) == 0
        return
    with pytest.raises(InvalidSession):
        call("rebind_all", **{**MOVE_ALL, field: name})


@on_real
@pytest.mark.parametrize("method", ["delete_all", "rebind_all"])
def test_bulk_skips_sessions_that_another_process_changed(call, manager, raw, before_changes, method):
    fill(manager, 6)
    other = SessionManager()

    def meddle():
        other.rebind(other.get("conv-0"), provider="xai", model="grok", reason="a test")
        other.delete("conv-1")
        other.create("conv-2", "deepseek", "chat", "another-owner", replace=True)
        raw.set(keys.session("conv-3"), "junk", keepttl=True)

    before_changes(meddle)
    number = call(method, **(MOVE_ALL if method == "rebind_all" else {"provider": "openai"}))
    assert number == 2
    assert manager.get("conv-0").provider == "xai"
    assert not raw.exists(keys.session("conv-1"))
    assert manager.get("conv-2").external_id == "another-owner"
    assert raw.get(keys.session("conv-3")) == b"junk"
    left = manager.get("conv-4")
    assert left is None if method == "delete_all" else left.provider == "mistral"


@on_real
def test_bulk_includes_a_session_that_began_to_match_during_the_pass(call, manager, before_changes, small_batches):
    """A second look finds what had been elsewhere when the first came by."""
    fill(manager, 6)
    late = manager.create("late", "xai", "gpt-4", "user-456")
    other = SessionManager()
    before_changes(lambda: other.rebind(late, provider="openai", model="gpt-4", reason="a test"))
    assert call("rebind_all", **MOVE_ALL) == 7
    assert call("count", provider="mistral") == 7


@on_real
def test_bulk_does_not_run_after_sessions_that_are_only_being_made(call, manager, before_changes, monkeypatch):
    fill(manager, 6)
    other, made = SessionManager(), []

    def create_in_a_while():
        later = time.time() + 10
        monkeypatch.setattr(time, "time", lambda: later)
        made.append(other.create(f"new-{len(made)}", **PROPOSAL))

    before_changes(create_in_a_while, times=1_000)
    assert 6 <= call("delete_all", provider="openai") <= 8
    assert len(made) < 5


@on_real
def test_bulk_gives_up_when_another_process_moves_the_sessions_back(call, manager):
    fill(manager, 2)
    other = SessionManager()

    def move_back():
        for n in range(2):
            if (session := other.get(f"conv-{n}")).provider == "mistral":
                other.rebind(session, provider="openai", model="gpt-4", reason="no, back")

    reported = []

    def progress(done, expected):
        reported.append(done)
        move_back()

    assert call("rebind_all", **MOVE_ALL, progress=progress) == 2 * bulk.MAX_PASSES
    assert len(reported) == 1 + bulk.MAX_PASSES


@on_real
@pytest.mark.parametrize("method", ["delete_all", "rebind_all"])
def test_bulk_finishes_when_it_is_stopped_and_called_again(call, manager, raw, small_batches, method):
    class Stop(Exception):
        pass

    def stop(done, expected):
        if done >= 10:
            raise Stop

    made = fill(manager, 23)
    keywords = MOVE_ALL if method == "rebind_all" else {"provider": "openai"}
    with pytest.raises(Stop):
        call(method, **keywords, progress=stop)
    assert call("count", provider="openai") == 13
    check(raw, [session for session in (manager.get(session.id) for session in made) if session])
    assert call(method, **keywords) == 13
    assert call("count", provider="openai") == 0


@on_real
@pytest.mark.slow
def test_bulk_finishes_when_its_process_was_killed_and_it_is_called_again(manager, raw, store_name, request):
    made = fill(manager, 2_000)
    url = request.getfixturevalue(f"{store_name}_url")
    with writer(url, "drain", "openai") as drain:
        while int(drain.stdout.readline()) < 100:
            pass
    moved = manager.filter(provider="elsewhere").count()
    assert 100 <= moved < 2_000
    check(raw, [manager.get(session.id) for session in made])
    assert manager.filter(provider="openai").rebind(to_provider="elsewhere", reason="again") == 2_000 - moved
    check(raw, [manager.get(session.id) for session in made])
    assert len(manager.recent(limit=1_000)) == 1_000
    assert len([e for session in made[:20] for e in manager.history(session.id) if e.kind == "rebound"]) == 20


@on_real
@pytest.mark.parametrize("process", ["same", "another"])
def test_session_stays_deleted_when_a_process_remembers_it(call, manager, raw, process):
    bound = call("resolve", "conv-123", **PROPOSAL).session
    other = SessionManager() if process == "same" else manager
    if process == "another":
        seen = manager._store.last_seen.recall("conv-123", 0)
        other.all().delete()
        manager._store.last_seen.remember(seen, time.monotonic(), 60, 10)  # as in the process that did not delete it
    else:
        assert call("delete_all") == 1
    session, outcome = call("resolve", "conv-123", **OTHER)
    assert outcome is Outcome.CREATED
    assert session.provider == OTHER["provider"] != bound.provider


@on_real
def test_process_keeps_to_the_new_provider_when_it_has_drained_the_old(call, manager, raw):
    call("resolve", "conv-123", **PROPOSAL)
    call("rebind_all", **MOVE_ALL)
    raw.delete(keys.session("conv-123"))  # lost by the store
    session, _ = call("resolve", "conv-123", **PROPOSAL)
    assert session.provider == "mistral"


@on_real
def test_bulk_takes_what_another_program_writes_in_its_own_way(call, manager, raw):
    write_raw(raw, "conv-1")
    value = b'{ "created_at": 1, "external_id": "o", "model": "m", "provider": "openai", "id": "conv-2", "more": [] }'
    raw.set(keys.session("conv-2"), value, ex=100)
    manager.reindex()
    assert call("rebind_all", **MOVE_ALL) == 2
    assert manager.get("conv-2").created_at == 1
    assert 0 < raw.ttl(keys.session("conv-2")) <= 100
    assert call("delete_all", provider="mistral") == 2


@pytest.mark.parametrize(
    ("filters", "text"),
    [
        (Filters(), "of all providers"),
        (Filters("north"), "of provider 'north'"),
        (Filters("north", "gpt-5", "ann"), "of provider 'north', model 'gpt-5', one owner"),
    ],
)
def test_bulk_log_describes_the_filters_that_are_set(filters, text):
    assert bulk._described(filters) == text


@on_valkey
def test_bulk_log_names_no_owner(call, manager, caplog):
    caplog.set_level("INFO")
    fill(manager, 1)
    call("rebind_all", external_id="user-456", to_provider="mistral", reason="a test")
    call("delete_all", external_id="user-456")
    lines = [record.getMessage() for record in caplog.records if record.name == "sessions_sticky"]
    assert "moved 1 sessions of one owner to 'mistral', by gateway: a test" in lines
    assert any(line.startswith("deleted 1 sessions of one owner, by ") for line in lines)
    assert not any("user-456" in line for line in lines)


@on_real
def test_bulk_changes_each_session_during_chats(call, manager, before_changes, small_batches):
    made = fill(manager, 30)

    def chat():
        for session in made[::3]:
            forget_refreshes(manager)
            SessionManager().touch(session.id)

    before_changes(chat, times=100)
    assert call("rebind_all", **MOVE_ALL) == 30
    assert sorted(ids(walk(manager.filter(provider="mistral").page))) == sorted(ids(made))


@on_real
def test_bulk_continues_when_the_server_forgets_its_scripts(call, manager, raw, before_changes, small_batches):
    fill(manager, 17)
    before_changes(raw.script_flush, times=100)
    assert call("rebind_all", **MOVE_ALL) == 17
    assert call("delete_all", provider="mistral") == 17
