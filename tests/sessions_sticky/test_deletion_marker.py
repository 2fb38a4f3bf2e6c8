"""What was deleted, and what was only proposed, is not restored; what was bound later is."""

from __future__ import annotations

import math
import time

import pytest
from django.core.cache import cache

from sessions_sticky import Outcome, SessionOwnerMismatch, SessionStoreUnavailable, keys
from sessions_sticky.stores.base import restorable_from
from sessions_sticky.testing import store_down
from tests.conftest import PORTABLE_STORES
from tests.sessions_sticky.calls import MOVE, OTHER, PROPOSAL
from tests.sessions_sticky.indexed import fill, on_real

THIRD = {**PROPOSAL, "provider": "google"}


@pytest.fixture
def clock(monkeypatch):
    """Set the clock of `created_at`, in seconds from now."""
    now = time.time()
    return lambda seconds: monkeypatch.setattr(time, "time", lambda: now + seconds)


@pytest.fixture
def lose(manager):
    """Lose a session, and nothing else, as a failover may."""
    return lambda conversation_id: cache.delete(keys.session(conversation_id))


def marker(manager, conversation_id="conv-123"):
    return restorable_from(manager._store.send(manager._store.read(keys.deleted(conversation_id))))


def test_binding_made_after_a_deletion_is_restored_when_it_is_lost(call, clock, lose):
    clock(-20)
    call("resolve", "conv-123", **PROPOSAL)
    call("delete", "conv-123")
    clock(-10)
    second = call("resolve", "conv-123", **OTHER).session
    lose("conv-123")
    assert call("resolve", "conv-123", **THIRD) == (second, Outcome.CREATED)


@pytest.mark.parametrize("delete", ["delete", "delete_unchanged"])
def test_binding_that_was_deleted_elsewhere_is_not_restored(call, manager, clock, delete):
    clock(-20)
    session = call("resolve", "conv-123", **PROPOSAL).session
    call(delete, session if delete == "delete_unchanged" else "conv-123")
    manager._store.last_seen.remember(session, time.monotonic(), 60, 10)  # as a process that did not delete it
    assert call("resolve", "conv-123", **OTHER).session.provider == OTHER["provider"]
    assert marker(manager) == session.created_at


def test_binding_that_was_deleted_elsewhere_does_not_answer_when_the_bind_fails(call, manager, clock, monkeypatch):
    clock(-20)
    session = call("resolve", "conv-123", **PROPOSAL).session
    call("delete", "conv-123")
    manager._store.last_seen.remember(session, time.monotonic(), 60, 10)  # as a process that did not delete it

    def refuse(*args, **kwargs):
        raise SessionStoreUnavailable("gone after the read of the marker")

    monkeypatch.setattr(manager._store, "bind", refuse)
    degraded = call("resolve", "conv-123", **OTHER)
    assert (degraded.session.provider, degraded.outcome) == (OTHER["provider"], Outcome.DEGRADED)


def test_later_marker_never_lowers_an_earlier_one(call, manager, clock):
    clock(100)  # of another machine
    late = call("create", "conv-123", **PROPOSAL)
    call("delete", "conv-123")
    clock(0)
    call("create", "conv-123", **PROPOSAL)
    call("delete", "conv-123")
    assert marker(manager) == late.created_at
    call("delete", "conv-123")  # nothing is there
    assert marker(manager) == late.created_at


def test_deleting_nothing_marks_the_time(call, manager):
    before = int(time.time())
    call("delete", "conv-123")
    assert before <= marker(manager) <= time.time()


@on_real
@pytest.mark.parametrize("many", ["delete", "rebind and delete"])
def test_bulk_deletion_marks_created_at(manager, raw, clock, many):
    clock(-20)
    (session,) = fill(manager, 1)
    if many != "delete":
        manager.rebind(session, **MOVE)
    clock(0)
    assert manager.all().delete() == 1
    assert raw.get(keys.deleted(session.id)) == b"%d" % session.created_at
    assert 0 < raw.ttl(keys.deleted(session.id)) <= manager.ttl_seconds


@on_real
@pytest.mark.parametrize("written", [b"1", b"0", b"", b"yes", b"1.5", b"-7"])
def test_marker_of_another_program_is_for_all_bindings(call, raw, lose, written):
    call("resolve", "conv-123", **PROPOSAL)
    raw.set(keys.deleted("conv-123"), written, ex=60)
    lose("conv-123")
    assert call("resolve", "conv-123", **OTHER).session.provider == OTHER["provider"]


@on_real
def test_marker_of_another_type_is_for_all_bindings(call, raw, lose):
    call("resolve", "conv-123", **PROPOSAL)
    raw.rpush(keys.deleted("conv-123"), "x")
    lose("conv-123")
    assert call("resolve", "conv-123", **OTHER).session.provider == OTHER["provider"]


@on_real
@pytest.mark.parametrize("written", [b"1", b"1.5", b"1e9", b"0x10", b"nan", b"-5", b"x"])
def test_deletion_keeps_a_marker_that_is_for_all_bindings(call, raw, written):
    assert restorable_from(written) == math.inf
    call("resolve", "conv-123", **PROPOSAL)
    raw.set(keys.deleted("conv-123"), written)
    call("delete", "conv-123")
    assert raw.get(keys.deleted("conv-123")) == written


@on_real
@pytest.mark.parametrize("written", [b"5", b"+5", b" 5\n"])
def test_deletion_replaces_a_marker_of_an_earlier_binding(call, raw, written):
    assert restorable_from(written) == 5
    session = call("resolve", "conv-123", **PROPOSAL).session
    raw.set(keys.deleted("conv-123"), written)
    call("delete", "conv-123")
    assert raw.get(keys.deleted("conv-123")) == b"%d" % session.created_at


@pytest.mark.parametrize("delete", ["delete", "delete_unchanged"])
def test_deletion_does_not_narrow_the_marker_of_another_program(call, manager, clock, delete):
    deleted = call("resolve", "conv-123", **PROPOSAL).session
    cache.set(keys.deleted("conv-123"), 1, 60)
    cache.delete(keys.session("conv-123"))
    clock(-20)  # of another machine
    session = call("resolve", "conv-123", **OTHER).session
    call(delete, session if delete == "delete_unchanged" else "conv-123")
    manager._store.last_seen.remember(deleted, time.monotonic(), 60, 10)  # as a process that has not seen the marker
    assert call("resolve", "conv-123", **THIRD).session.provider == THIRD["provider"]
    inspected = cache.ttl(keys.deleted("conv-123")) if hasattr(cache, "ttl") else manager.ttl_seconds
    assert 60 < inspected <= manager.ttl_seconds


@pytest.mark.parametrize("store_name", [*PORTABLE_STORES, "valkey"], indirect=True)
def test_proposal_of_an_outage_answers_its_owner_and_is_never_restored(call):
    with store_down():
        degraded = call("resolve", "conv-123", **PROPOSAL)
        assert degraded.outcome is Outcome.DEGRADED
        assert call("resolve", "conv-123", **OTHER) == degraded
    third = {**THIRD, "owner": "user-789"}
    assert call("resolve", "conv-123", **third).outcome is Outcome.CREATED
    with pytest.raises(SessionOwnerMismatch):
        call("resolve", "conv-123", **PROPOSAL)


@pytest.mark.parametrize("store_name", [*PORTABLE_STORES, "valkey"], indirect=True)
def test_proposal_of_an_outage_is_not_for_another_owner(call):
    with store_down():
        call("resolve", "conv-123", **PROPOSAL)
        session, outcome = call("resolve", "conv-123", **{**OTHER, "owner": "user-789"})
    assert (session.provider, session.external_id, outcome) == (OTHER["provider"], "user-789", Outcome.DEGRADED)


@pytest.mark.parametrize("store_name", [*PORTABLE_STORES, "valkey"], indirect=True)
def test_stored_binding_is_restored_although_it_answered_in_an_outage(call, lose):
    bound = call("resolve", "conv-123", **PROPOSAL).session
    with store_down():
        assert call("resolve", "conv-123", **OTHER) == (bound, Outcome.DEGRADED)
    lose("conv-123")
    assert call("resolve", "conv-123", **OTHER) == (bound, Outcome.CREATED)
