"""The index follows the sessions: what each method of the manager writes there, how often, and what it never breaks."""

from __future__ import annotations

import time

import pytest

from sessions_sticky import Outcome, SessionManager, SessionStoreUnavailable, keys
from sessions_sticky.stores import index
from sessions_sticky.stores.index import RefreshTracker
from tests.sessions_sticky.calls import MOVE, OTHER, PROPOSAL, sample
from tests.sessions_sticky.indexed import (
    check,
    entries,
    fill,
    forget_refreshes,
    index_keys,
    lose_index,
    on_real,
    places,
    write_raw,
)
from tests.sessions_sticky.marks import on_redis

KEY = "sentinel:session:conv-123"
WRITES = {
    "create": lambda call: call("create", "conv-123", **PROPOSAL),
    "resolve": lambda call: call("resolve", "conv-123", **PROPOSAL).session,
    "rebind": lambda call: call("rebind", call("create", "conv-123", **PROPOSAL), **MOVE),
    "create over": lambda call: (
        call("create", "conv-123", **PROPOSAL),
        call("create", "conv-123", "p", "m", "o", replace=True),
    )[1],
    "touch": lambda call: call("create", "conv-123", **PROPOSAL) if not call("touch", "conv-123") else None,
}


@on_redis
@pytest.mark.parametrize("write", WRITES)
def test_index_has_the_session_in_its_places_when_it_is_written(call, raw, write):
    session = WRITES[write](call)
    check(raw, [session])
    assert raw.zscore(keys.index_all(), "conv-123") == pytest.approx(time.time() + 86_400, abs=5)
    assert len({raw.zscore(place, "conv-123") for place in places(session)}) == 1
    assert call("delete", "conv-123")
    check(raw, [])


@on_real
@pytest.mark.parametrize("method", ["touch", "resolve"])
def test_using_a_session_enters_what_another_program_has_written(call, raw, method):
    session = write_raw(raw, "conv-123")
    call(method, "conv-123", **(PROPOSAL if method == "resolve" else {}))
    check(raw, [session])


@on_real
def test_index_is_refreshed_once_a_minute_when_a_session_is_used(call, manager, raw, monkeypatch):
    (session,) = fill(manager, 1)
    forget_refreshes(manager)
    for place in places(session):
        raw.zincrby(place, -30, session.id)
    score = raw.zscore(keys.index_all(), session.id)
    for moment, is_new in ((100.0, True), (101.0, False), (159.0, False), (160.0, True), (219.0, False), (900.0, True)):
        monkeypatch.setattr(time, "monotonic", lambda moment=moment: moment)
        for place in places(session):
            raw.zadd(place, {session.id: score})
        for _ in range(3):
            call("touch", session.id)
        assert (raw.zscore(keys.index_all(), session.id) > score) is is_new


def test_refreshes_are_forgotten_after_two_minutes_at_most():
    tracker = RefreshTracker()
    for second in range(1_000, 4_600, 10):
        tracker.mark(f"conv-{second}", float(second))
        assert not tracker.needs_refresh(f"conv-{second}", second + 59.9)
        assert tracker.needs_refresh(f"conv-{second}", second + 60.0)
    assert len(tracker._young) + len(tracker._old) <= 12
    assert tracker.needs_refresh("conv-1000", 4_600.0)


@on_real
def test_refresh_keeps_the_index_when_the_session_has_changed(call, manager, raw, monkeypatch):
    """Between the chat's read and its refresh another process may delete the session, or move it."""
    other = SessionManager()
    for change in (lambda session: other.delete(session.id), lambda session: other.rebind(session, **MOVE)):
        session = manager.create("conv-123", **PROPOSAL)
        forget_refreshes(manager)
        refresh, done = index.refresh, []

        def change_first(*args, change=change, session=session, refresh=refresh, done=done, **kwargs):
            if not done:
                done.append(change(session))
            return refresh(*args, **kwargs)

        monkeypatch.setattr(index, "refresh", change_first)
        assert call("resolve", "conv-123", **PROPOSAL).outcome is Outcome.HIT
        monkeypatch.setattr(index, "refresh", refresh)
        assert done
        now = manager.get("conv-123")
        check(raw, [now] if now else [])


@on_real
def test_resolve_hits_and_warns_once_when_only_the_refresh_fails(call, manager, monkeypatch, caplog):
    fill(manager, 1)
    forget_refreshes(manager)
    store = manager._store
    asked = []

    def failing(send):
        def refuse(request):
            if index.REFRESH.sha in getattr(request, "args", ())[1:2]:
                asked.append(request)
                raise SessionStoreUnavailable("refused") from ConnectionError()
            return send(request)

        return refuse

    def failing_async(send):
        refuse = failing(lambda request: request)

        async def arefuse(request):
            refuse(request)
            return await send(request)

        return arefuse

    monkeypatch.setattr(store, "asend", failing_async(store.asend))
    monkeypatch.setattr(store, "send", failing(store.send))
    for _ in range(5):
        assert call("resolve", "conv-0", **PROPOSAL).outcome is Outcome.HIT
        assert call("touch", "conv-0")
    assert len(asked) == 1
    assert [record.levelname for record in caplog.records if "index" in record.getMessage()] == ["WARNING"]


@on_real
@pytest.mark.parametrize(("is_index", "length"), [(False, 0), (False, 5), (True, 0)])
def test_nothing_but_what_is_wanted_is_written(call, raw, settings, is_index, length):
    settings.SESSIONS_STICKY = {"INDEX": is_index, "HISTORY_LENGTH": length}
    call("resolve", "conv-1", **PROPOSAL)
    call("create", "conv-1", **OTHER, replace=True)
    call("touch", "conv-1")
    call("rebind", call("get", "conv-1"), **MOVE)
    call("create", "conv-2", **PROPOSAL)
    call("delete", "conv-2")
    kinds = {key.decode().split(":")[1] for key in raw.scan_iter()}
    assert kinds == {"session", "deleted", "process"} | ({"{index}", "created"} if is_index else set()) | (
        {"history"} if length else set()
    )


@on_real
def test_session_is_in_the_index_again_when_it_is_used_after_the_index_was_lost(call, manager, raw):
    (session,) = fill(manager, 1)
    lose_index(raw)
    forget_refreshes(manager)
    call("resolve", session.id, **PROPOSAL)
    check(raw, [session])
    lose_index(raw)
    check(raw, [call("rebind", session, **MOVE)])
    lose_index(raw)
    assert call("delete", session.id)
    check(raw, [])


@on_real
def test_index_follows_when_sessions_are_healed_or_restored(call, manager, raw):
    raw.set(KEY, "junk", ex=60)
    session, _ = call("resolve", "conv-123", **PROPOSAL)
    check(raw, [session])
    raw.delete(KEY)
    assert call("resolve", "conv-123", **OTHER) == (session, Outcome.CREATED)  # as it was
    check(raw, [session])
    raw.set(KEY, "junk", ex=60)
    assert call("delete", "conv-123")
    assert manager.all().count() == 0


@on_real
def test_index_keys_live_as_long_as_the_longest_idle_time(manager, raw):
    for ttl in (10, 86_400, 100):
        session = SessionManager(ttl_seconds=ttl).create(f"conv-{ttl}", **PROPOSAL)
    for key in index_keys(raw):
        assert 86_400_000 < raw.pttl(key) <= (86_400 + 120) * 1000
    assert raw.zscore(keys.owner(session.external_id), "conv-100") < time.time() + 101


@on_redis
def test_index_keeps_entries_apart_when_names_run_into_each_other(call, raw):
    made = [
        call("create", "1", "a", "b:c", "o"),
        call("create", "2", "a:b", "c", "route:x"),
        call("create", "3", 'a","b', "c", "all"),
        call("create", "4", "a", 'b","c', ""),
        call("create", "5", "[]", "{}", "routes"),
    ]
    check(raw, made)
    for session in made:
        assert call("count", provider=session.provider, model=session.model) == 1
        assert call("count", external_id=session.external_id) == 1


def test_sample_has_three_places():
    assert index.zsets(sample()) == (
        "sentinel:{index}:all",
        "sentinel:{index}:owner:user-456",
        'sentinel:{index}:route:["openai","gpt-4"]',
    )


@on_real
def test_index_holds_its_entries_when_two_processes_have_seen_a_session_elsewhere(manager, raw):
    """What a process remembers of a session is old: acting on it must not drop the entries that are right."""
    manager.create("conv-123", **PROPOSAL)
    manager.resolve("conv-123", **PROPOSAL)
    moved = SessionManager().rebind(manager.get("conv-123"), **MOVE)
    write_raw(raw, "conv-123", provider="xai", model="grok")
    forget_refreshes(manager)
    session, _ = manager.resolve("conv-123", **PROPOSAL)
    assert session.provider == "xai"
    assert manager.filter(provider="xai").count() == 1
    assert all(b"conv-123" not in held for key, held in entries(raw).items() if "openai" in key)
    assert moved.provider not in [entry.session.provider for entry in manager.all().page().entries]
