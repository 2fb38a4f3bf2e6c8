"""The history: what happened to a conversation, when, why and by whom; capped, and never in the way."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest

from sessions_sticky import SessionConflict, SessionNotSupported, keys
from sessions_sticky.stores import history
from sessions_sticky.stores.history import Change, Event, read_event
from tests.sessions_sticky.calls import MOVE, OTHER, PROPOSAL, sample
from tests.sessions_sticky.indexed import HOSTILE, fill, on_real, on_redis, on_valkey


@on_redis
def test_history_tells_what_happened_when_why_and_by_whom(call, manager):
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
    assert call("history", "nobody") == []


@on_real
def test_history_tells_why_a_lost_session_was_made_again(call, raw):
    call("resolve", "conv-123", **PROPOSAL)
    raw.delete(keys.session("conv-123"))
    call("resolve", "conv-123", **OTHER)
    assert [(event.kind, event.provider, event.reason) for event in call("history", "conv-123")] == [
        ("created", "openai", ""),
        ("created", "openai", "lost by the store"),
    ]


@on_real
def test_history_tells_nothing_of_what_did_not_happen(call, manager):
    (session,) = fill(manager, 1)
    manager.rebind(session, **MOVE)
    with pytest.raises(SessionConflict):
        call("rebind", session, **MOVE | {"provider": "xai"})
    call("delete", "nobody")
    assert [event.kind for event in call("recent")] == ["created", "rebound"]


@on_real
def test_history_tells_of_bulk_operations(call, manager):
    fill(manager, 3)
    acting = manager.acting_as("ada")
    acting.rebind_all(provider="openai", to_provider="mistral", reason="maintenance")
    acting.delete_all(everything=True)
    for number in range(3):
        _, rebound, deleted = call("history", f"conv-{number}")
        assert rebound[3:9] == ("mistral", "gpt-4", "openai", "gpt-4", "maintenance", "ada")
        assert (deleted.kind, deleted.provider, deleted.actor) == ("deleted", "mistral", "ada")


@on_valkey
def test_history_tells_of_hostile_names(call, manager):
    for name in HOSTILE:
        session = manager.acting_as(name).create(name, name, name, name)
        manager.acting_as(name).rebind(session, provider="p", model=name, reason=name)
    for name in HOSTILE:
        created, rebound = call("history", name)
        assert (created.conversation_id, created.provider, created.model, created.actor) == (name,) * 4
        assert (rebound.from_provider, rebound.reason, rebound.actor) == (name,) * 3


@on_real
def test_history_tells_of_a_deleted_session_that_was_unreadable(call, raw):
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
def test_history_keeps_as_many_events_as_it_is_told_to(call, manager, raw, settings, length):
    settings.SESSIONS_STICKY = {"HISTORY_LENGTH": length}
    fill(manager, 20)
    assert raw.xlen(keys.history()) == length
    assert [event.conversation_id for event in call("recent")] == [f"conv-{n}" for n in range(20 - length, 20)]
    assert call("history", "conv-0") == []
    settings.SESSIONS_STICKY = {"HISTORY_LENGTH": 1}
    manager.delete("conv-19")
    assert raw.xlen(keys.history()) == 1


@on_real
def test_history_is_found_when_it_takes_many_steps(call, manager, monkeypatch):
    monkeypatch.setattr(history, "STEP", 3)
    for number in range(20):
        manager.create(f"conv-{number % 4}", **PROPOSAL, replace=True)
    events = call("history", "conv-1")
    assert len(events) == 5
    assert [event.position for event in events] == sorted(event.position for event in events)


@on_redis
def test_recent_goes_on_without_gaps_and_repeats(call, manager):
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
    "after", ["", "-", "+", "$", "junk", "1", "1-", "-1", "1-1-1", "(1-1", "1-1\n", f"{2**64}-0", "٣-1"]
)
def test_recent_refuses_what_is_no_position(call, manager, after):
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
    assert len(call("history", "conv-0")) == 1


@on_real
def test_history_is_not_supported_and_not_written_when_it_is_off(call, manager, raw, settings):
    settings.SESSIONS_STICKY = {"HISTORY_LENGTH": 0}
    (session,) = fill(manager, 1)
    manager.rebind_all(provider="openai", to_provider="p", reason="a test")
    manager.delete(session.id)
    assert not raw.exists(keys.history())
    for method, args in (("history", ("conv-0",)), ("recent", ())):
        with pytest.raises(SessionNotSupported, match="HISTORY_LENGTH"):
            call(method, *args)


@on_valkey
def test_history_refuses_an_id_that_names_no_conversation(call):
    for conversation_id in ("", "a\x00", "a" * 257):
        with pytest.raises(ValueError, match="conversation id"):
            call("history", conversation_id)


def test_event_is_read_as_it_was_written():
    encoded = Change("rebound", sample(), sample(provider="p", model="m"), "why", "ada").to_json()
    at = datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC)
    position = f"{int(at.timestamp() * 1000)}-7"
    assert read_event(position.encode(), b"conv-123", encoded) == Event(
        "rebound", "conv-123", at, "p", "m", "openai", "gpt-4", "why", "ada", position
    )


@pytest.mark.parametrize("position", [b"junk", b"99999999999999999999-0", b"253402300799999-0", b"-"])
def test_event_is_none_when_its_position_is_no_time(position):
    assert read_event(position, b"conv-123", b'{"kind":"created"}') is None
