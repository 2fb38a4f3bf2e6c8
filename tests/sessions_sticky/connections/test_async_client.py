from __future__ import annotations

import asyncio
import errno
import gc
import os
import socketserver
import sys
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from unittest.mock import AsyncMock, Mock

import pytest
from asgiref.sync import async_to_sync
from django.core.cache import caches
from django_redis.pool import ConnectionFactory
from redis.asyncio import ConnectionPool
from redis.exceptions import ConnectionError as RedisConnectionError

from sessions_sticky import Outcome, SessionManager, SessionStoreUnavailable, cache_config, sessions
from sessions_sticky.connections import async_client
from sessions_sticky.connections.breaker import RETRY_SECONDS
from tests.conftest import STALL_SECONDS, patient_config
from tests.servers import VALKEY, serve, start_server
from tests.sessions_sticky.calls import MOVE, PROPOSAL, sample
from tests.waiting import stopwatch, wait_until

IDS = [f"conv-{n}" for n in range(500)]


@pytest.fixture
def server():
    with start_server() as server:
        yield server


@pytest.fixture
def own(server, settings):
    """The default cache on a server of this test's own; its redis-py client."""
    settings.CACHES = {"default": patient_config(server.url)}
    with server.client() as client:
        yield client


def run_as_asgiref_does(coroutine):
    async def main():
        return await coroutine

    return async_to_sync(main)()


def runners():
    yield pytest.param(asyncio.run, id="asyncio")
    yield pytest.param(run_as_asgiref_does, id="asgiref")
    try:
        import uvloop
    except ImportError:
        return
    yield pytest.param(uvloop.run, id="uvloop")


def connections(client):
    return len(client.client_list())


async def resolve(conversation_id="conv-123"):
    return await sessions.aresolve(conversation_id, **PROPOSAL)


async def staggered():
    """Resolve all of IDS at once, yet not in one tick, so that several pipelines are on their way."""
    tasks = []
    for conversation_id in IDS:
        tasks.append(asyncio.create_task(resolve(conversation_id)))
        await asyncio.sleep(0)
    return await asyncio.gather(*tasks)


@pytest.mark.parametrize("run", [*runners()])
@pytest.mark.parametrize("loops", [50, pytest.param(300, marks=pytest.mark.slow)])
def test_loops_leave_no_connection_and_no_descriptor_behind(own, run, loops):
    run(resolve())
    gc.collect()
    wait_until(lambda: connections(own) == 1)
    descriptors = len(os.listdir("/dev/fd"))
    for _ in range(loops):
        assert run(resolve()).outcome is Outcome.HIT
    wait_until(lambda: connections(own) == 1)
    gc.collect()  # a socket left open would warn here, and warnings are errors
    assert len(os.listdir("/dev/fd")) <= descriptors


@pytest.mark.slow
def test_loop_ends_in_peace_when_a_task_still_waits_for_the_store(own, server):
    async def main():
        await resolve()
        server.stop()
        waiting = asyncio.create_task(resolve())
        await asyncio.sleep(0.02)
        assert not waiting.done()

    asyncio.run(main())
    server.cont()
    gc.collect()
    wait_until(lambda: connections(own) == 1)
    assert asyncio.run(resolve()).outcome is Outcome.HIT


async def test_connection_is_reused_within_a_loop(own):
    for conversation_id in IDS[:50]:
        await resolve(conversation_id)
    assert connections(own) == 2  # and the one that asks


@pytest.mark.parametrize("options", [{}, {"CONNECTION_POOL_KWARGS": {}}])  # the latter: without a `Retry` of redis-py
async def test_connection_that_the_server_closed_is_replaced(own, settings, options):
    settings.CACHES["default"]["OPTIONS"] |= options
    await resolve()
    own.client_kill_filter(_type="normal", skipme=True)
    assert (await resolve()).outcome is Outcome.HIT


async def test_connection_to_a_server_that_has_become_a_replica_is_replaced(own, monkeypatch):
    monkeypatch.setattr(async_client, "KEEP_SECONDS", 60.0)
    await resolve()
    own.replicaof("127.0.0.1", 1)
    assert (await resolve("conv-2")).outcome is Outcome.DEGRADED
    clients = {each["id"] for each in own.client_list()}
    own.replicaof("NO", "ONE")
    await asyncio.sleep(RETRY_SECONDS)
    assert (await resolve("conv-2")).outcome is Outcome.CREATED
    assert {each["id"] for each in own.client_list()} - clients


async def test_command_is_sent_when_a_kept_connection_cannot_be_authenticated_again(own, monkeypatch):
    monkeypatch.setattr(async_client, "KEEP_SECONDS", 0.0)
    await resolve()
    release = ConnectionPool.release

    async def fail(pool, connection):
        await release(pool, connection)
        raise RedisConnectionError("Connection closed by server.")

    monkeypatch.setattr(ConnectionPool, "release", fail)
    assert (await resolve()).outcome is Outcome.HIT


async def test_all_connections_are_replaced_when_one_gets_no_answer(own, server, settings, monkeypatch):
    monkeypatch.setattr(async_client, "KEEP_SECONDS", 60.0)
    settings.CACHES = {"default": patient_config(server.url, STALL_SECONDS)}
    await sessions.aget("conv-123")
    (pipeline,) = sessions._store._servers._async_client._loop_pipelines.values()
    pipeline._kept += [await pipeline._take() for _ in range(2)]  # as after two pipelines at the same time
    clients = {each["id"] for each in own.client_list()} - {str(own.client_id())}
    server.stop()
    with pytest.raises(SessionStoreUnavailable):
        await sessions.aget("conv-123")
    server.cont()
    await asyncio.sleep(RETRY_SECONDS)
    for conversation_id in IDS[:3]:
        await sessions.aget(conversation_id)
    assert not clients & {each["id"] for each in own.client_list()}


@pytest.mark.slow
async def test_many_at_once_share_a_few_connections_and_get_each_their_own_answer(own):
    for expected in (Outcome.CREATED, Outcome.HIT):
        answers = await staggered()
        assert [session.id for session, _ in answers] == IDS
        assert {outcome for _, outcome in answers} == {expected}
    assert 2 < connections(own) <= 4  # at most two pipelines, a lone command, and the one that asks


@pytest.mark.slow
async def test_many_at_once_take_few_round_trips(own):
    await asyncio.gather(*map(resolve, IDS))
    before = own.info("stats")["total_reads_processed"]
    await asyncio.gather(*map(resolve, IDS))
    assert own.info("stats")["total_reads_processed"] - before < len(IDS) / 10


async def test_others_get_their_answers_when_one_caller_is_cancelled(own, server):
    await asyncio.gather(*map(resolve, IDS[:20]))
    server.stop()  # so that all are on their way when some are cancelled
    tasks = [asyncio.create_task(sessions.aget(conversation_id)) for conversation_id in IDS[:20]]
    await asyncio.sleep(0.03)
    for task in tasks[::3]:
        task.cancel()
    server.cont()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    for n, answer in enumerate(answers):
        assert isinstance(answer, asyncio.CancelledError) if n % 3 == 0 else answer.id == IDS[n]
    assert (await sessions.aget(IDS[0])).id == IDS[0]


async def test_others_get_the_error_when_one_caller_is_cancelled(own, server):
    await asyncio.gather(*map(resolve, IDS[:20]))
    server.stop()
    tasks = [asyncio.create_task(sessions.aget(conversation_id)) for conversation_id in IDS[:20]]
    await asyncio.sleep(0.03)
    for task in tasks[::3]:
        task.cancel()
    server.kill()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    for n, answer in enumerate(answers):
        assert isinstance(answer, asyncio.CancelledError if n % 3 == 0 else SessionStoreUnavailable)


@pytest.mark.slow
async def test_answers_are_not_mixed_up_when_the_store_answers_too_late(server, settings):
    settings.CACHES = {"default": patient_config(server.url, STALL_SECONDS)}
    await asyncio.gather(*map(resolve, IDS[:20]))
    server.stop()
    late = await asyncio.gather(*map(sessions.aget, IDS[:10]), return_exceptions=True)
    server.cont()
    assert {type(answer) for answer in late} == {SessionStoreUnavailable}
    await asyncio.sleep(RETRY_SECONDS)
    assert (await sessions.aget(IDS[0])).id == IDS[0]  # alone, after which the others may ask again
    assert [session.id for session in await asyncio.gather(*map(sessions.aget, IDS[:20]))] == IDS[:20]


class TricklingRedis(socketserver.BaseRequestHandler):
    """Answers the first command of a pipeline at once, and each further one after 150 ms."""

    def handle(self):
        with suppress(OSError):  # the client has left
            while data := self.request.recv(65_536):
                for at in range(data.count(b"*")):
                    time.sleep(0.15 * (at > 0))
                    self.request.sendall(b"$-1\r\n" if b"GET" in data else b"+OK\r\n")


@pytest.mark.slow
async def test_all_callers_get_the_error_in_time_when_replies_trickle(settings):
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), TricklingRedis) as listener:
        listener.daemon_threads = True
        end = serve(listener)
        try:
            settings.CACHES = {"default": cache_config(f"redis://127.0.0.1:{listener.server_address[1]}")}
            assert await sessions.aget(IDS[0]) is None
            took = stopwatch()
            answers = await asyncio.gather(*map(sessions.aget, IDS[:10]), return_exceptions=True)
            assert took() < 0.6
            assert {type(answer) for answer in answers[1:]} == {SessionStoreUnavailable}
        finally:
            end()


async def test_session_is_not_missing_when_tcp_gives_up_and_the_cache_has_no_timeout(server, settings, monkeypatch):
    settings.CACHES = {"default": cache_config(server.url)}
    settings.CACHES["default"]["OPTIONS"]["CONNECTION_POOL_KWARGS"]["socket_timeout"] = None
    await resolve()

    async def give_up(reader, size):
        raise TimeoutError(errno.ETIMEDOUT, "Connection timed out")

    monkeypatch.setattr(asyncio.StreamReader, "read", give_up)
    with pytest.raises(SessionStoreUnavailable):
        await sessions.aget("conv-123")


async def test_others_get_their_answers_when_one_key_is_of_another_type(own):
    await asyncio.gather(*map(resolve, IDS[:20]))
    own.delete("sentinel:session:conv-7")
    own.rpush("sentinel:session:conv-7", "x")
    answers = await asyncio.gather(*map(sessions.aget, IDS[:20]))
    assert [answer and answer.id for answer in answers] == [*IDS[:7], None, *IDS[8:20]]


async def test_scripts_are_sent_again_when_the_server_has_forgotten_them(own):
    made = await asyncio.gather(*(sessions.acreate(conversation_id, **PROPOSAL) for conversation_id in IDS[:10]))
    own.script_flush()
    moved = await asyncio.gather(*(sessions.arebind(session, **MOVE) for session in made))
    assert {session.provider for session in moved} == {MOVE["provider"]}
    own.script_flush()
    assert sessions.rebind(moved[0], **{**MOVE, "provider": "xai"}).provider == "xai"
    own.script_flush()
    own.set("sentinel:session:conv-0", "poison")
    assert (await resolve("conv-0")).outcome is Outcome.CREATED


@pytest.mark.slow
def test_loops_in_many_threads_do_not_disturb_each_other(own, request):
    request.addfinalizer(partial(sys.setswitchinterval, sys.getswitchinterval()))
    sys.setswitchinterval(1e-6)  # threads change over between any two steps

    def work(thread):
        for n in range(30):
            session, _ = asyncio.run(resolve(f"conv-{thread}-{n % 3}"))
            assert session.id == f"conv-{thread}-{n % 3}"

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    wait_until(lambda: connections(own) == 1)


@pytest.mark.parametrize("place", ["url", "options"])
async def test_async_connection_has_the_password_of_the_cache(settings, place):
    with start_server(VALKEY, "--requirepass", "hunter2") as server:
        config = patient_config(server.url)
        if place == "options":
            config["OPTIONS"]["PASSWORD"] = "hunter2"
        else:
            config["LOCATION"] = server.url.replace("unix://", "unix://:hunter2@")
        settings.CACHES = {"default": config}
        assert (await resolve()).outcome is Outcome.CREATED
        assert sessions.resolve("conv-123", **PROPOSAL).outcome is Outcome.HIT


@pytest.mark.slow
@pytest.mark.parametrize("pool", [{"max_connections": 2}, {"max_connections": 2, "timeout": 5}])
async def test_async_callers_are_served_when_the_blocking_pool_is_small(server, settings, pool):
    config = patient_config(server.url)
    config["OPTIONS"]["CONNECTION_POOL_KWARGS"].update(pool)
    if "timeout" in pool:
        config["OPTIONS"]["CONNECTION_POOL_CLASS"] = "redis.BlockingConnectionPool"
    settings.CACHES = {"default": config}
    assert sessions.resolve("conv-123", **PROPOSAL).outcome is Outcome.CREATED
    assert {outcome for _, outcome in await staggered()} <= {Outcome.CREATED, Outcome.HIT}


async def test_async_caller_gets_the_error_when_the_cache_is_wrongly_configured(server, settings):
    config = cache_config(server.url)
    config["OPTIONS"]["CONNECTION_POOL_KWARGS"]["nonsense"] = 1
    settings.CACHES = {"default": config}
    with pytest.raises(TypeError, match="nonsense"):
        sessions.get("conv-123")
    with pytest.raises(TypeError, match="nonsense"):
        await asyncio.wait_for(sessions.aget("conv-123"), 2)


async def test_async_twin_works_on_a_cache_object_and_on_an_alias(own):
    made = await SessionManager(caches["default"]).acreate("conv-123", **PROPOSAL)
    assert await SessionManager("default").aget("conv-123") == made
    assert made == sample(created_at=made.created_at)


@pytest.mark.slow
async def test_connections_close_at_once_when_a_manager_is_dropped_before_its_loop_ends(own, request):
    """No cycle keeps them until some garbage collection, not even after an error."""
    gc.collect()
    gc.disable()
    request.addfinalizer(gc.enable)
    own.script_flush()  # so that Redis refuses at first
    await SessionManager(caches["default"]).acreate("conv-123", **PROPOSAL)
    for _ in range(20):
        await asyncio.sleep(0)
    wait_until(lambda: connections(own) == 1)


@pytest.mark.parametrize("error", [asyncio.CancelledError, GeneratorExit])
async def test_all_connections_close_when_the_loop_ends_while_a_dropped_client_closes(error):
    pool = Mock(aclose=AsyncMock(side_effect=[error, None]))
    client = async_client.AsyncRedis(lambda: pool)
    lifetime = async_client._close_with(asyncio.get_running_loop(), pool, weakref.ref(client))
    await anext(lifetime)
    with suppress(asyncio.CancelledError):
        await lifetime.aclose()
    assert pool.aclose.await_count == 2


async def test_async_client_uses_tls_when_the_url_requires_it(server, settings):
    settings.CACHES = {"default": cache_config("rediss://127.0.0.1:1/0")}
    with pytest.raises(SessionStoreUnavailable):
        await sessions.aget("conv-123")


class ElsewhereFactory(ConnectionFactory):
    """A connection factory that finds the server itself, like django-redis's own for Sentinel."""

    url = ""

    def get_connection_pool(self, params):
        return super().get_connection_pool({**params, "url": self.url})


async def test_async_methods_use_the_servers_of_a_connection_factory_of_the_project(server, settings, monkeypatch):
    monkeypatch.setattr(ElsewhereFactory, "url", server.url)
    entry = patient_config("redis://mymaster/0")
    entry["OPTIONS"]["CONNECTION_FACTORY"] = f"{__name__}.{ElsewhereFactory.__name__}"
    settings.CACHES = {"default": entry}
    outcomes = [(await sessions.aresolve("conv-123", **PROPOSAL)).outcome for _ in range(2)]
    assert outcomes == [Outcome.CREATED, Outcome.HIT]
