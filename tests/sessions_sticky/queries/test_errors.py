"""Operators' methods when they cannot work: other caches, a store that is down or refuses commands."""

from __future__ import annotations

import asyncio
from unittest.mock import AsyncMock

import pytest

from sessions_sticky import (
    Outcome,
    SessionError,
    SessionNotSupported,
    SessionStoreUnavailable,
    cache_config,
    keys,
    sessions,
)
from sessions_sticky.stores import redis as redis_store
from tests.conftest import PORTABLE_STORES, patient_config
from tests.servers import VALKEY, free_port, start_server
from tests.sessions_sticky.calls import MOVE, PROPOSAL, method_of
from tests.sessions_sticky.indexed import fill, forget_refreshes, on_real, on_valkey, walk
from tests.waiting import stopwatch

METHODS = {
    "page": {},
    "count": {"provider": "openai"},
    "stats": {},
    "history": {"conversation_id": "conv-1"},
    "recent": {},
    "delete_all": {"provider": "openai"},
    "rebind_all": {"provider": "openai", "to_provider": "p", "reason": "a test"},
    "reindex": {},
}
NEED_INDEX = [method for method in METHODS if method not in ("history", "recent")]


@pytest.mark.parametrize("store_name", PORTABLE_STORES, indirect=True)
def test_operators_methods_are_not_supported_on_a_portable_cache(call, manager):
    for method, arguments in METHODS.items():
        with pytest.raises(SessionNotSupported, match="django-redis"):
            call(method, **arguments)
    session, outcome = call("resolve", "conv-1", **PROPOSAL)
    assert outcome is Outcome.CREATED
    assert call("get", "conv-1") == session
    assert call("touch", "conv-1")
    assert call("resolve", "conv-1", **PROPOSAL) == (session, Outcome.HIT)
    assert call("create", "conv-1", **PROPOSAL, replace=True) == call("get", "conv-1")
    assert call("delete", "conv-1")
    with pytest.raises(SessionNotSupported):
        call("rebind", session, **MOVE)


@on_valkey
@pytest.mark.parametrize("method", NEED_INDEX)
def test_operators_methods_are_not_supported_without_an_index(call, settings, method):
    settings.SESSIONS_STICKY = {"INDEX": False}
    with pytest.raises(SessionNotSupported, match="INDEX"):
        call(method, **METHODS[method])


@pytest.fixture(params=["sync", "async"])
def ask(request, settings):
    """Call a method of the default manager, or its twin, on the store that the test makes the default."""
    if request.param == "sync":
        return lambda method, *args, **kwargs: method_of(sessions, method)(*args, **kwargs)

    def ask(method, *args, **kwargs):
        async def run():
            return await method_of(sessions, f"a{method}")(*args, **kwargs)

        return asyncio.run(run())

    return ask


@pytest.mark.parametrize("failure", ["closed port", "killed", "stalled"])
def test_operators_methods_raise_in_time_when_the_store_is_down(ask, settings, failure, monkeypatch):
    monkeypatch.setattr(redis_store, "OPERATOR_REPLY_SECONDS", 0.5)
    if failure == "closed port":
        settings.CACHES = {"default": cache_config(f"redis://127.0.0.1:{free_port()}/0")}
        refuse_all(ask)
        return
    with start_server(VALKEY, tcp=failure == "killed") as server:
        settings.CACHES = {"default": patient_config(server.url, 0.5)}
        fill(sessions, 2)
        server.kill() if failure == "killed" else server.stop()
        refuse_all(ask)


def refuse_all(ask):
    for method, arguments in METHODS.items():
        took = stopwatch()
        with pytest.raises(SessionStoreUnavailable):
            ask(method, **arguments)
        assert took() < 1.5


@pytest.mark.slow
def test_operators_wait_longer_than_chats_for_a_reply(ask, settings):
    with start_server(VALKEY) as server, server.client() as client:
        settings.CACHES = {"default": cache_config(server.url)}
        fill(sessions, 2)
        client.client_pause(600)
        assert ask("stats").sessions == 2


def test_chats_continue_when_the_breaker_of_operators_is_open(ask, settings, monkeypatch):
    with start_server(VALKEY) as server:
        settings.CACHES = {"default": patient_config(server.url)}
        (session,) = fill(sessions, 1)
        servers = sessions._store.operators._servers
        monkeypatch.setattr(servers, "_exchange", AsyncMock(side_effect=TimeoutError))
        for _ in range(2):
            with pytest.raises(SessionStoreUnavailable):
                ask("stats")
        assert servers._breaker._open_until is not None
        assert ask("resolve", session.id, **PROPOSAL).outcome is Outcome.HIT


def test_chats_and_reads_continue_when_the_store_is_read_only(ask, settings, program):
    """A replica, or a master that has lost its own: it reads."""
    with start_server(program) as server, server.client() as client:
        settings.CACHES = {"default": patient_config(server.url)}
        settings.SESSIONS_STICKY = {"ON_STORE_ERROR": "raise"}
        fill(sessions, 3)
        ask("page", limit=1)
        client.replicaof("127.0.0.1", free_port())
        client.config_set("replica-serve-stale-data", "yes")
        assert ask("count", provider="openai") == 3
        assert ask("stats").sessions == 3
        assert len(walk(lambda **kwargs: ask("page", **kwargs), limit=2)) == 3
        assert len(ask("recent")) == 3
        for method in ("delete_all", "rebind_all"):
            with pytest.raises(SessionStoreUnavailable, match=r"(?i)readonly|read only"):
                ask(method, **METHODS[method])


def test_chats_continue_when_the_store_is_full(ask, settings, program):
    with start_server(program, "--maxmemory-policy", "noeviction") as server, server.client() as client:
        settings.CACHES = {"default": patient_config(server.url)}
        fill(sessions, 3)
        client.config_set("maxmemory", "1")
        for _ in range(3):
            forget_refreshes(sessions)
            assert ask("resolve", "conv-0", **PROPOSAL).outcome is Outcome.HIT
        assert ask("resolve", "conv-new", **PROPOSAL).outcome is Outcome.DEGRADED
        assert ask("count") == 3
        assert len(walk(lambda **kwargs: ask("page", **kwargs), limit=2)) == 3
        with pytest.raises(SessionStoreUnavailable, match="maxmemory"):
            ask("rebind_all", **METHODS["rebind_all"])
        assert ask("delete", "conv-0") is True
        assert ask("delete_all", provider="openai") == 2


@on_real
def test_operators_methods_continue_when_the_server_forgets_its_scripts(call, manager, raw):
    fill(manager, 3)
    raw.delete(keys.session("conv-1"))
    for method, arguments in METHODS.items():
        raw.script_flush()
        call(method, **arguments)
    fill(manager, 3)
    for _ in range(2):  # a batch whose scripts the process believes to be known
        raw.script_flush()
        assert call("rebind_all", provider="openai", to_provider="p", reason="a test") in (3, 0)
    assert call("count", provider="p") == 3


@on_valkey
def test_nothing_but_errors_of_the_app_comes_out_when_names_are_odd(call, manager):
    fill(manager, 1)
    for odd in ("\ud800", "", "\x00", "a" * 100_000, "{}", "*", 'a"]'):
        for method in ("page", "count", "delete_all"):
            for name in ("provider", "model", "external_id"):
                assert call(method, **{name: odd}) in (0, ([], None))
        try:
            call("rebind_all", model="unknown", to_provider=odd, reason=odd)
            call("history", odd)
        except SessionError:
            pass


@on_valkey
@pytest.mark.parametrize("wrong", ["index", "history"])
def test_both_test_runners_report_a_missing_setting(manager, settings, wrong):
    settings.SESSIONS_STICKY = {"INDEX": False} if wrong == "index" else {"HISTORY_LENGTH": 0}
    for method in NEED_INDEX if wrong == "index" else ("history", "recent"):
        with pytest.raises(SessionNotSupported) as blocking:
            method_of(manager, method)(**METHODS[method])
        with pytest.raises(SessionNotSupported) as native:
            asyncio.run(method_of(manager, f"a{method}")(**METHODS[method]))
        assert str(blocking.value) == str(native.value)
