"""Signals: sent after each change by this process, whatever its receivers are and do."""

from __future__ import annotations

import asyncio
from unittest.mock import Mock

import pytest
from django.dispatch import Signal

from sessions_sticky import Session, SessionConflict, SessionManager, keys, sessions
from sessions_sticky.signals import session_created, session_deleted, session_rebound
from tests.sessions_sticky.calls import MOVE, OTHER, PROPOSAL
from tests.sessions_sticky.indexed import fill, on_real, on_valkey
from tests.sessions_sticky.marks import on_redis

SIGNALS = {"created": session_created, "rebound": session_rebound, "deleted": session_deleted}


@pytest.fixture(params=["function", "coroutine function"])
def heard(request):
    """The calls of receivers of all signals: `(name, arguments)`."""
    received, receivers = [], []
    for name, signal in SIGNALS.items():

        def receive(name=name, **kwargs):
            received.append((name, kwargs))

        async def areceive(name=name, **kwargs):
            await asyncio.sleep(0)
            received.append((name, kwargs))

        receivers.append((signal, receive if request.param == "function" else areceive))
    for signal, receiver in receivers:
        signal.connect(receiver)
    yield received
    for signal, receiver in receivers:
        assert signal.disconnect(receiver)


def received(heard):
    """Without what Django adds."""
    return [(name, {key: value for key, value in kwargs.items() if key != "signal"}) for name, kwargs in heard]


@on_redis
def test_signals_have_the_change_and_its_actor(call, manager, heard):
    session = call("resolve", "conv-123", **PROPOSAL).session
    call("resolve", "conv-123", **PROPOSAL)
    call("touch", "conv-123")
    moved = call("rebind", session, **MOVE)
    call("delete", "conv-123")
    call("delete", "conv-123")
    made = call("create", "conv-123", **OTHER)
    common = {"sender": SessionManager, "manager": manager, "actor": "gateway"}
    assert received(heard) == [
        ("created", {"session": session, **common}),
        ("rebound", {"session": moved, "previous": session, "reason": MOVE["reason"], **common}),
        ("deleted", {"conversation_id": "conv-123", "session": moved, **common}),
        ("created", {"session": made, **common}),
    ]


@on_real
def test_signals_are_sent_for_each_session_of_a_bulk_change(call, manager, heard):
    made = fill(manager, 3)
    heard.clear()
    call("rebind_all", provider="openai", to_provider="mistral", reason="maintenance")
    call("delete_all")
    moved = [Session(s.id, "mistral", s.model, s.external_id, s.created_at) for s in made]
    common = {"sender": SessionManager, "manager": manager, "actor": "gateway"}
    expected = [
        ("rebound", {"session": m, "previous": s, "reason": "maintenance", **common})
        for s, m in zip(made, moved, strict=True)
    ]
    expected += [("deleted", {"conversation_id": m.id, "session": m, **common}) for m in moved]
    assert sorted(received(heard), key=repr) == sorted(expected, key=repr)


@on_real
def test_signals_name_the_actor(manager, heard):
    acting = manager.acting_as("ada")
    acting.rebind(acting.create("conv-123", **PROPOSAL), **MOVE)
    acting.delete("conv-123")
    assert [kwargs["actor"] for _, kwargs in heard] == ["ada"] * 3
    manager.create("conv-123", **PROPOSAL)
    assert heard[-1][1]["actor"] == "gateway"


@pytest.mark.parametrize("actor", [None, 5, b"ada", Session("ada", "p", "m", "o", 1)])
def test_acting_as_refuses_an_actor_that_is_not_a_string(actor):
    with pytest.raises(ValueError, match="actor must be a string, not"):
        sessions.acting_as(actor)


@on_real
def test_signal_has_no_session_when_it_was_unreadable(call, raw, heard):
    raw.set(keys.session("conv-123"), "junk", ex=60)
    call("delete", "conv-123")
    assert [(name, kwargs["conversation_id"], kwargs["session"]) for name, kwargs in heard] == [
        ("deleted", "conv-123", None)
    ]


@on_real
def test_no_signal_is_sent_when_nothing_was_changed(call, manager, heard):
    (session,) = fill(manager, 1)
    manager.rebind(session, **MOVE)
    heard.clear()
    with pytest.raises(SessionConflict):
        call("rebind", session, **MOVE)
    call("rebind_all", provider="openai", to_provider="p", reason="a test")
    call("delete", "missing")
    call("reindex")
    assert not heard


class Failure(Exception):
    pass


@on_real
@pytest.mark.parametrize("kind", ["function", "coroutine function"])
def test_change_is_made_and_other_receivers_run_when_one_raises(call, manager, heard, caplog, kind):
    def fail(**kwargs):
        raise Failure

    async def afail(**kwargs):
        raise Failure

    receiver = fail if kind == "function" else afail
    for signal in SIGNALS.values():
        signal.connect(receiver)
    try:
        session = call("resolve", "conv-123", **PROPOSAL).session
        moved = call("rebind", session, **MOVE)
        assert call("get", "conv-123") == moved
        assert call("rebind_all", provider=moved.provider, to_provider="p", reason="a test") == 1
        assert call("delete_all") == 1
    finally:
        for signal in SIGNALS.values():
            signal.disconnect(receiver)
    assert [name for name, _ in heard] == ["created", "rebound", "rebound", "deleted"]
    assert [record.name for record in caplog.records if record.exc_info].count("django.dispatch") == 4


@on_valkey
def test_receiver_of_one_sender_is_called(call):
    heard = []

    def receive(**kwargs):
        heard.append(kwargs["session"])

    session_created.connect(receive, sender=SessionManager)
    try:
        session = call("create", "conv-123", **PROPOSAL)
    finally:
        session_created.disconnect(receive, sender=SessionManager)
    assert heard == [session]


@on_valkey
async def test_change_is_made_when_a_blocking_method_is_called_on_the_event_loop(manager, caplog):
    """Django cannot run a coroutine function from there."""
    heard = []

    async def receive(**kwargs):
        heard.append(kwargs["session"])

    session_created.connect(receive)
    try:
        session = manager.create("conv-123", **PROPOSAL)
    finally:
        session_created.disconnect(receive)
    assert await manager.aget("conv-123") == session
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert (record.name, heard) == ("sessions_sticky", [])


@on_valkey
def test_receiver_may_use_the_manager(call, manager):
    def undo(session, previous, **kwargs):
        if session.provider == "mistral":
            manager.rebind(session, provider=previous.provider, model=previous.model, reason="never there")

    session_rebound.connect(undo)
    try:
        call("rebind", call("create", "conv-123", **PROPOSAL), **MOVE)
    finally:
        session_rebound.disconnect(undo)
    assert manager.get("conv-123").provider == "openai"


@on_valkey
def test_no_signal_is_sent_when_there_are_no_receivers(call, manager, monkeypatch):
    sent = Mock()
    with monkeypatch.context() as patches:
        patches.setattr(Signal, "send_robust", sent)
        patches.setattr(Signal, "asend_robust", sent)
        call("create", "conv-123", **PROPOSAL)
        call("rebind", manager.get("conv-123"), **MOVE)
        call("delete_all")
    assert not sent.called


@on_real
def test_signal_names_the_manager_that_made_the_change(manager, heard):
    other = SessionManager("default", ttl_seconds=60)
    manager.create("conv-1", **PROPOSAL)
    other.create("conv-2", **PROPOSAL)
    other.all().delete()
    assert [kwargs["manager"] for _, kwargs in heard] == [manager, other, other, other]
    assert repr(other) == "<SessionManager on the cache 'default', idle time 60 s>"
