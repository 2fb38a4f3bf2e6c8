from __future__ import annotations

import asyncio
import re
import socketserver
import time
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import pytest
from django.core.cache import cache
from django.core.cache.backends.locmem import LocMemCache

from sessions_sticky import (
    InvalidSession,
    Outcome,
    SessionConflict,
    SessionManager,
    SessionOwnerMismatch,
    SessionStoreUnavailable,
    cache_config,
    sessions,
)
from sessions_sticky.connections import breaker
from sessions_sticky.connections.cache_config import SOCKET_TIMEOUT_SECONDS
from tests.conftest import STALL_SECONDS, patient_config
from tests.servers import VALKEY, free_port, serve, start_server
from tests.sessions_sticky.calls import METHODS, MOVE, OTHER, PROPOSAL, arguments, sample
from tests.waiting import stopwatch, wait_until

BOUND_SECONDS = 3 * SOCKET_TIMEOUT_SECONDS
"""Connecting, asking, and the pauses of a busy machine."""


@pytest.fixture(
    scope="module",
    params=["closed port", *(pytest.param(how, marks=pytest.mark.slow) for how in ("killed", "stalled", "no socket"))],
)
def dead_url(request, tmp_path_factory):
    """The address of a store that is not there, or does not answer."""
    if request.param == "closed port":
        yield f"redis://127.0.0.1:{free_port()}/0"
    elif request.param == "no socket":
        yield "unix:///nowhere/at/all.sock?db=0"
    else:
        with start_server(VALKEY, tcp=request.param == "killed") as server:
            server.kill() if request.param == "killed" else server.stop()
            yield server.url


@pytest.fixture
def manager(settings):
    """Takes the place of the fixture that `call` uses, which has a live store."""
    return SessionManager()


@pytest.fixture
def down(dead_url, settings):
    settings.CACHES = {"default": cache_config(dead_url)}


@pytest.fixture
def server(program, settings):
    """A server that the test may kill, as the default cache."""
    with start_server(program, tcp=program != VALKEY) as server:
        settings.CACHES = {"default": patient_config(server.url, STALL_SECONDS)}
        yield server


def timed(call, *args, within=BOUND_SECONDS, **kwargs):
    took = stopwatch()
    try:
        return call(*args, **kwargs)
    finally:
        assert took() < within


@pytest.mark.parametrize("method", METHODS)
def test_every_method_raises_in_time_when_the_store_is_down(down, call, settings, method):
    settings.SESSIONS_STICKY = {"ON_STORE_ERROR": "raise"}
    args, kwargs = arguments(method, sample())
    for _ in range(2):  # the breaker refuses the second
        with pytest.raises(SessionStoreUnavailable):
            timed(call, method, *args, **kwargs)


def test_resolve_degrades_to_the_proposal_in_time_when_the_store_is_down(down, call, caplog):
    session, outcome = timed(call, "resolve", "conv-123", **PROPOSAL)
    assert outcome is Outcome.DEGRADED
    assert session == sample(created_at=session.created_at)
    (record,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert (record.name, record.conversation_id) == ("sessions_sticky", "conv-123")


def test_resolve_degrades_for_all_at_once_within_the_bound_when_the_store_is_down(down):
    async def main():
        return await asyncio.gather(*(sessions.aresolve(f"conv-{n}", **PROPOSAL) for n in range(200)))

    answers = timed(asyncio.run, main())
    assert {outcome for _, outcome in answers} == {Outcome.DEGRADED}


def test_resolve_refuses_an_invalid_proposal_when_the_store_is_down(down, call):
    with pytest.raises(InvalidSession):
        call("resolve", "conv-123", **{**PROPOSAL, "model": None})


@pytest.mark.parametrize("failure", ["kill", "stop"])
def test_resolve_returns_the_session_last_seen_when_the_store_goes_down(server, call, failure):
    bound = call("resolve", "conv-123", **PROPOSAL).session
    getattr(server, failure)()
    assert timed(call, "resolve", "conv-123", **OTHER, within=3 * STALL_SECONDS) == (bound, Outcome.DEGRADED)
    with pytest.raises(SessionOwnerMismatch):
        call("resolve", "conv-123", **{**OTHER, "owner": "user-789"})


def test_resolve_binds_again_what_the_store_has_lost(server, call):
    bound = call("resolve", "conv-123", **PROPOSAL).session
    server.restart()  # empty
    assert call("resolve", "conv-123", **OTHER) == (bound, Outcome.CREATED)
    assert call("get", "conv-123") == bound


def test_resolve_binds_a_new_session_when_the_session_was_deleted_by_another_process(server, call):
    call("resolve", "conv-123", **PROPOSAL)
    with server.client() as client:
        SessionManager().delete("conv-123")
        call("create", "conv-123", **PROPOSAL)  # this process remembers it again
        client.set("sentinel:deleted:conv-123", 1, ex=60)  # and another one deletes it
        client.delete("sentinel:session:conv-123")
    session, outcome = call("resolve", "conv-123", **OTHER)
    assert (session.provider, outcome) == (OTHER["provider"], Outcome.CREATED)


def test_connections_cut_by_a_restart_heal_without_an_error(server):
    async def main():
        await sessions.acreate("conv-123", **PROPOSAL)
        server.restart()
        assert await sessions.aget("conv-123") is None
        server.restart()
        assert await asyncio.gather(*(sessions.aget("conv-123") for _ in range(20))) == [None] * 20

    asyncio.run(main())
    sessions.create("conv-123", **PROPOSAL)
    server.restart()
    assert sessions.get("conv-123") is None


def test_connections_to_a_demoted_primary_end_when_its_address_is_reused(settings):
    """Behind a proxy, a service name or a virtual IP nothing else closes them, and writes would be refused forever."""
    with start_server() as demoted, start_server() as promoted, demoted.client() as client, asyncio.Runner() as loop:
        address = Path(demoted.folder, "primary")
        address.symlink_to(Path(demoted.folder, "s"))
        settings.CACHES = {"default": patient_config(f"unix://{address}?db=0")}

        def resolve():
            return [sessions.resolve("conv-1", **PROPOSAL), loop.run(sessions.aresolve("conv-2", **PROPOSAL))]

        bound = [session for session, _ in resolve()]
        client.replicaof("127.0.0.1", free_port())
        address.unlink()
        address.symlink_to(Path(promoted.folder, "s"))
        assert resolve() == [(session, Outcome.DEGRADED) for session in bound]
        first, second = resolve()
        assert first == (bound[0], Outcome.CREATED)
        assert second.session == bound[1]
        assert second.outcome in (Outcome.CREATED, Outcome.HIT)  # restored since the first, in the background


@pytest.mark.slow
@pytest.mark.parametrize(("failure", "repair"), [("kill", "start"), ("stop", "cont")])
def test_every_method_works_again_within_the_retry_time_when_the_store_is_back(
    server, call, monkeypatch, failure, repair
):
    monkeypatch.setattr(breaker, "RETRY_SECONDS", 0.3)
    call("create", "conv-123", **PROPOSAL)
    getattr(server, failure)()
    with pytest.raises(SessionStoreUnavailable):
        call("get", "conv-123")
    getattr(server, repair)()
    took = stopwatch()
    while call("resolve", "conv-123", **PROPOSAL).outcome is Outcome.DEGRADED:
        assert took() < breaker.RETRY_SECONDS + 3 * STALL_SECONDS
        time.sleep(0.02)

    def works():
        with suppress(SessionStoreUnavailable):  # a busy machine was too slow once more
            session = call("create", "conv-123", **PROPOSAL, replace=True)
            assert call("get", "conv-123") == session
            assert call("touch", "conv-123")
            assert call("delete", "conv-123")
            with pytest.raises(SessionConflict):
                call("rebind", session, **MOVE)
            return True

    wait_until(works)


class SilentlyFailing(LocMemCache):
    """Fails as caches do that hide their errors (Memcached clients, the database cache): takes nothing, has nothing."""

    def add(self, *args, **kwargs):
        return False


def test_resolve_claims_no_binding_when_the_cache_takes_and_has_nothing(settings):
    settings.SESSIONS_STICKY = {"ON_STORE_ERROR": "raise"}
    manager = SessionManager(SilentlyFailing("silent", {}))
    with pytest.raises(SessionStoreUnavailable):
        manager.resolve("conv-123", **PROPOSAL)
    settings.SESSIONS_STICKY = {}
    assert manager.resolve("conv-123", **PROPOSAL).outcome is Outcome.DEGRADED


@pytest.mark.parametrize("store_name", ["locmem"], indirect=True)
def test_unavailable_is_said_when_a_cache_other_than_redis_fails(settings, tmp_path, call):
    folder = tmp_path / "kept"
    backend = "django.core.cache.backends.filebased.FileBasedCache"
    settings.CACHES = {"default": {"BACKEND": backend, "LOCATION": str(folder)}}
    assert cache.get("conv-123") is None  # without a cache here, each event loop makes one, which fails otherwise
    assert call("get", "conv-123") is None
    folder.rmdir()
    folder.touch()
    with pytest.raises(SessionStoreUnavailable, match="NotADirectoryError"):
        call("get", "conv-123")
    assert call("resolve", "conv-123", **PROPOSAL).outcome is Outcome.DEGRADED


def test_resolve_warns_once_of_each_reason_when_the_store_refuses(call, server, settings, caplog):
    settings.CACHES = {"default": patient_config(server.url)}
    with server.client() as client:
        client.replicaof("127.0.0.1", free_port())
        begun = time.monotonic()
        for number in range(20):
            assert call("resolve", f"conv-{number}", **PROPOSAL).outcome is Outcome.DEGRADED
        client.replicaof("NO", "ONE")
        client.config_set("maxmemory", 1)
        assert call("resolve", "conv-123", **PROPOSAL).outcome is Outcome.DEGRADED
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    of_each = [sum(reason in message for message in warned) for reason in ("ReadOnlyError", "Redis is full")]
    assert of_each[1] == 1
    assert 1 <= of_each[0] <= 1 + (time.monotonic() - begun)


def test_resolve_warns_once_when_many_conversations_are_degraded(call, down, caplog):
    """A line for each chat would be thousands a second for as long as the store is down."""
    for number in range(20):
        assert call("resolve", f"conv-{number}", **PROPOSAL).outcome is Outcome.DEGRADED
    warned = [record for record in caplog.records if record.levelname == "WARNING"]
    assert 1 <= len(warned) <= 3  # once a second


class Maintained(socketserver.BaseRequestHandler):
    """A server that answers once, and announces maintenance of a minute to clients that subscribe to it."""

    ANSWERS: ClassVar = {b"HELLO": b"%1\r\n+proto\r\n:3\r\n", b"CLIENT": b"+OK\r\n", b"GET": b"$-1\r\n"}

    def handle(self):
        answers = dict(self.ANSWERS)
        while data := self.request.recv(65_536):
            for name in re.findall(rb"\*\d+\r\n\$\d+\r\n(\w+)", data):
                self.request.sendall(answers.get(name, b""))
                if name == b"GET":
                    answers.clear()
            if b"MAINT_NOTIFICATIONS" in data:
                self.request.sendall(b">3\r\n+MIGRATING\r\n:1\r\n:60\r\n")


@pytest.mark.slow
def test_timeouts_stay_when_the_server_announces_maintenance(settings, monkeypatch):
    monkeypatch.setattr(breaker, "RETRY_SECONDS", 0.0)
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Maintained) as server, asyncio.Runner() as loop:
        server.daemon_threads = True
        end = serve(server)
        settings.CACHES = {"default": cache_config(f"redis://127.0.0.1:{server.server_address[1]}/0")}
        for get in sessions.get, lambda id: loop.run(sessions.aget(id)):
            assert get("conv-123") is None
            with pytest.raises(SessionStoreUnavailable, match="Timeout"):
                timed(get, "conv-123")
        end()
