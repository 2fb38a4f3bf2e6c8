"""The history: what happened to a conversation, when, why and by whom; capped, and never in the way."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest

from sessions_sticky import SessionConflict, SessionNotSupported, SessionStoreUnavailable, keys
from sessions_sticky.queries import index_reader
from sessions_sticky.stores import index
from sessions_sticky.stores.history import Event, PlannedChange, read_event
from tests.sessions_sticky.calls import MOVE, OTHER, PROPOSAL, sample
from tests.sessions_sticky.indexed import HOSTILE, fill, forget_refreshes, on_real, on_valkey, write_raw
from tests.sessions_sticky.marks import on_redis


@on_redis
def test_history_has_kind_time_reason_and_actor(call, manager):
    started = time.time()
    session = call("resolve", "conv-123", **PROPOSAL).session
    call("resolve", "conv-123", **OTHER)
    call("touch", "conv-123")
    moved = call("rebind", session, **MOVE)
    manager.acting_as("ada").delete("conv-123")
    manager.create("another", **PROPOSAL)
    created, rebound, deleted = call("history", "conv-123")
    assert (created.kind, created.provider, created.model, created.actor) == ("created", "openai", "gpt-4", "gateway")
    assert (created.from_provider, created.from_model, created.reason) == (None, None, "")
    assert (rebound.kind, rebound.provider, rebound.model) == ("rebound", moved.provider, moved.model)
    assert (rebound.from_provider, rebound.from_model, rebound.reason) == ("openai", "gpt-4", MOVE["reason"])
    assert (deleted.kind, deleted.provider, deleted.model) == ("deleted", moved.provider, moved.model)
    assert (deleted.from_provider, deleted.from_model, deleted.actor) == (None, None, "ada")
    for event in (created, rebound, deleted):
        assert event.conversation_id == "conv-123"
        assert event.at.tzinfo is UTC
        assert started - 1 < event.at.timestamp() < time.time() + 1
    assert call("history", "missing") == []


@on_real
def test_history_has_the_reason_of_a_restored_session(call, raw):
    call("resolve", "conv-123", **PROPOSAL)
    raw.delete(keys.session("conv-123"))
    call("resolve", "conv-123", **OTHER)
    assert [(event.kind, event.provider, event.reason) for event in call("history", "conv-123")] == [
        ("created", "openai", ""),
        ("created", "openai", "lost by the store"),
    ]


@on_real
def test_history_has_no_event_for_calls_without_effect(call, manager):
    (session,) = fill(manager, 1)
    manager.rebind(session, **MOVE)
    with pytest.raises(SessionConflict):
        call("rebind", session, **MOVE | {"provider": "xai"})
    call("delete", "missing")
    assert [event.kind for event in call("recent")] == ["created", "rebound"]


@on_real
def test_history_has_bulk_operations(call, manager):
    fill(manager, 3)
    acting = manager.acting_as("ada")
    acting.filter(provider="openai").rebind(to_provider="mistral", reason="maintenance")
    acting.all().delete()
    for number in range(3):
        _, rebound, deleted = call("history", f"conv-{number}")
        assert rebound[3:9] == ("mistral", "gpt-4", "openai", "gpt-4", "maintenance", "ada")
        assert (deleted.kind, deleted.provider, deleted.actor) == ("deleted", "mistral", "ada")


@on_valkey
def test_history_has_hostile_names(call, manager):
    for name in HOSTILE:
        session = manager.acting_as(name).create(name, name, name, name)
        manager.acting_as(name).rebind(session, provider="p", model=name, reason=name)
    for name in HOSTILE:
        created, rebound = call("history", name)
        assert (created.conversation_id, created.provider, created.model, created.actor) == (name,) * 4
        assert (rebound.from_provider, rebound.reason, rebound.actor) == (name,) * 3


@on_real
def test_history_has_the_deletion_of_an_unreadable_session(call, raw):
    raw.set(keys.session("conv-123"), "junk", ex=60)
    assert call("delete", "conv-123")
    (deleted,) = call("history", "conv-123")
    assert (deleted.kind, deleted.provider, deleted.model) == ("deleted", "", "")


@on_valkey
def test_reason_and_actor_are_kept_as_far_as_possible_when_they_have_no_utf8_form(call, manager):
    (session,) = fill(manager, 1)
    manager.acting_as("a\ud800").rebind(session, provider="p", model="m", reason="r\udfff")
    assert [(event.reason, event.actor) for event in call("history", session.id)[1:]] == [("r?", "a?")]


@on_redis
@pytest.mark.parametrize("length", [1, 7])
def test_recent_keeps_as_many_events_as_the_setting_says(call, manager, raw, settings, length):
    settings.SESSIONS_STICKY = {"HISTORY_LENGTH": length}
    fill(manager, 20)
    assert raw.xlen(keys.history()) == length
    assert [event.conversation_id for event in call("recent")] == [f"conv-{n}" for n in range(20 - length, 20)]
    assert [event.kind for event in call("history", "conv-0")] == ["created"]
    settings.SESSIONS_STICKY = {"HISTORY_LENGTH": 1}
    manager.delete("conv-19")
    assert raw.xlen(keys.history()) == 1


@on_real
def test_history_of_one_conversation_stays_when_others_fill_the_stream(call, manager, settings):
    settings.SESSIONS_STICKY = {"HISTORY_LENGTH": 5}
    vip = manager.create("vip", **PROPOSAL)
    manager.rebind(vip, **MOVE)
    fill(manager, 40)
    manager.filter(provider="openai").rebind(to_provider="google", reason="drain")
    manager.filter(provider="google").delete()
    created, rebound = call("history", "vip")
    assert (created.kind, created.provider, created.at.timestamp()) == ("created", "openai", vip.created_at)
    assert (rebound.kind, rebound.reason) == ("rebound", MOVE["reason"])


@on_real
def test_recent_has_a_bulk_operation_as_one_event(call, manager):
    fill(manager, 12)
    acting = manager.acting_as("ada")
    acting.filter(provider="openai", owner=PROPOSAL["owner"]).rebind(to_provider="google", reason="drain")
    acting.all().rebind(to_provider="google", to_model="gemini", reason="another")
    acting.filter(model="gemini").delete()
    assert manager.filter(provider="nowhere").delete() == 0
    events = call("recent")[12:]
    assert [(event.conversation_id, event.sessions, event.actor) for event in events] == [("", 12, "ada")] * 3
    assert [event[3:8] for event in events] == [
        ("google", "", "openai", None, "drain"),
        ("google", "gemini", None, None, "another"),
        ("", "gemini", None, None, ""),
    ]


@on_real
def test_recent_has_what_a_stopped_bulk_operation_did(call, manager, monkeypatch):
    monkeypatch.setattr(index_reader, "BATCH_SIZE", 2)
    fill(manager, 6)

    def stop(done, expected):
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        manager.all().rebind(to_provider="google", reason="drain", progress=stop)
    moved = manager.filter(provider="google").count()
    assert 0 < moved < 6
    assert call("recent")[-1].sessions == moved


@on_real
def test_bulk_operation_stands_when_its_event_cannot_be_written(manager, monkeypatch, caplog):
    fill(manager, 2)
    store = manager._store.operators
    send = store.send

    def refuse(request):
        if getattr(request, "args", [""])[0] == "XADD":
            raise SessionStoreUnavailable("full")
        return send(request)

    monkeypatch.setattr(store, "send", refuse)
    assert manager.all().delete() == 2
    assert "not among the recent events: full" in caplog.text


@on_real
def test_history_lives_as_long_as_its_session(manager, raw, settings):
    for is_index in (True, False):
        settings.SESSIONS_STICKY = {"INDEX": is_index}
        session = manager.create("conv-1", **PROPOSAL, replace=True)
        manager.rebind(session, **MOVE)
        key = keys.history_of("conv-1")
        raw.pexpire(key, 5_000)
        forget_refreshes(manager)
        manager.touch("conv-1")
        assert manager.ttl_seconds * 1000 < raw.pttl(key) <= (manager.ttl_seconds + 120) * 1000
    manager.delete("conv-1")
    assert manager.ttl_seconds * 1000 < raw.pttl(key) <= (manager.ttl_seconds + 120) * 1000


@on_real
def test_history_writes_nothing_for_a_chat_that_binds(manager, raw):
    manager.resolve("conv-1", **PROPOSAL)
    manager.touch("conv-1")
    assert not raw.exists(keys.history_of("conv-1"))


@on_real
def test_history_keeps_the_last_events_of_a_conversation(call, manager, monkeypatch):
    monkeypatch.setattr(index, "MAX_EVENTS", 3)
    session = manager.create("conv-1", **PROPOSAL)
    for number in range(5):
        session = manager.rebind(session, provider=f"p{number}", model="m", reason="a test")
    assert [event.provider for event in call("history", "conv-1")] == ["p1", "p2", "p3", "p4"]


@on_real
def test_history_shows_each_time_that_a_conversation_was_bound(call, manager, monkeypatch):
    now = time.time()
    for age in (30, 20):
        monkeypatch.setattr(time, "time", lambda age=age: now - age)
        session = manager.resolve("conv-1", **PROPOSAL).session
        manager.rebind(session, **MOVE)
        manager.delete("conv-1")
    monkeypatch.setattr(time, "time", lambda: now - 10)
    manager.acting_as("ada").create("conv-1", **OTHER)
    expected = [("created", "gateway"), ("rebound", "gateway"), ("deleted", "gateway")] * 2 + [("created", "ada")]
    events = call("history", "conv-1")
    assert [(event.kind, event.actor) for event in events] == expected
    assert [event.at for event in events] == sorted(event.at for event in events)


@on_real
def test_history_shows_no_time_of_binding_that_is_no_date(call, manager, raw):
    for created_at in (-5, 2**62):
        write_raw(raw, f"conv{created_at}", created_at=created_at)
        assert call("history", f"conv{created_at}") == []


@on_redis
def test_recent_continues_without_gaps_and_repeats(call, manager):
    fill(manager, 30)
    last = call("recent", limit=10)
    assert [event.conversation_id for event in last] == [f"conv-{n}" for n in range(20, 30)]
    assert call("recent", after=last[-1].position) == []
    assert call("recent", after=last[0].position) == last[1:]
    events = call("recent", after="0-0", limit=7)
    while more := call("recent", after=events[-1].position, limit=7):
        assert len(more) <= 7
        events += more
    assert [event.conversation_id for event in events] == [f"conv-{n}" for n in range(30)]
    fill(manager, 1)
    (event,) = call("recent", after=events[-1].position)
    assert event.conversation_id == "conv-0"


@on_valkey
@pytest.mark.parametrize(
    "after", ["", "-", "+", "$", "junk", "1", "1-", "-1", "1-1-1", "(1-1", "1-1\n", f"{2**64}-0", "٣-1", 5]
)
def test_recent_refuses_an_invalid_position(call, manager, after):
    fill(manager, 1)
    with pytest.raises(ValueError, match="after must be the position of an event"):
        call("recent", after=after)


@on_valkey
@pytest.mark.parametrize("limit", [0, 1001, True, "5"])
def test_recent_refuses_a_limit_out_of_range(call, limit):
    with pytest.raises(ValueError, match="limit must be a whole number"):
        call("recent", limit=limit)


@on_real
def test_history_skips_what_other_programs_have_written(call, manager, raw):
    fill(manager, 1)
    for fields in (
        {"a": "b"},
        {"id": "conv-0", "event": "junk"},
        {"id": "conv-0", "event": "{}"},
        {"id": "conv-0", "event": '{"kind":"exploded"}'},
        {"id": "conv-0", "event": '{"kind":"created","provider":5}'},
        {"id": "conv-0", "event": b"\xff"},
        {"id": b"\xff", "event": "{}"},
        {"id": "conv-0", "event": '{"kind":"created"}', "more": "x"},
    ):
        raw.xadd(keys.history(), fields)
    raw.xadd(keys.history(), {"id": b"\xff", "event": '{"kind":"created"}'})
    assert [event.conversation_id for event in call("recent")] == ["conv-0", "\ufffd"]
    for junk in (
        b"",
        b"junk",
        b"5",
        b"5 {}",
        b'x {"kind":"deleted"}',
        b'99999999999999999999 {"kind":"deleted"}',
        b"\xff",
    ):
        raw.rpush(keys.history_of("conv-0"), junk)
    raw.rpush(keys.history_of("conv-0"), b'1700000000000 {"kind":"deleted"}')
    assert [event.kind for event in call("history", "conv-0")] == ["deleted", "created"]
    raw.delete(keys.history_of("conv-0"))
    raw.set(keys.history_of("conv-0"), "junk")
    raw.set(keys.history(), "junk")
    assert [event.kind for event in call("history", "conv-0")] == ["created"]
    assert call("recent") == []


@on_real
def test_history_is_not_supported_and_not_written_when_it_is_off(call, manager, raw, settings):
    settings.SESSIONS_STICKY = {"HISTORY_LENGTH": 0}
    (session,) = fill(manager, 1)
    manager.filter(provider="openai").rebind(to_provider="p", reason="a test")
    manager.delete(session.id)
    assert not raw.exists(keys.history())
    assert not raw.exists(keys.history_of("conv-0"))
    for method, args in (("history", ("conv-0",)), ("recent", ())):
        with pytest.raises(SessionNotSupported, match="HISTORY_LENGTH"):
            call(method, *args)


@on_valkey
def test_history_refuses_an_id_that_names_no_conversation(call):
    for conversation_id in ("", "a\x00", "a" * 257):
        with pytest.raises(ValueError, match="conversation id"):
            call("history", conversation_id)


def test_event_is_read_as_it_was_written():
    encoded = PlannedChange("rebound", sample(), sample(provider="p", model="m"), "why", "ada").to_json()
    at = datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC)
    position = f"{int(at.timestamp() * 1000)}-7"
    assert read_event(position.encode(), b"conv-123", encoded) == Event(
        "rebound", "conv-123", at, "p", "m", "openai", "gpt-4", "why", "ada", position
    )


@pytest.mark.parametrize("position", [b"junk", b"99999999999999999999-0", b"253402300799999-0", b"-"])
def test_event_is_none_when_its_position_is_not_a_time(position):
    assert read_event(position, b"conv-123", b'{"kind":"created"}') is None
