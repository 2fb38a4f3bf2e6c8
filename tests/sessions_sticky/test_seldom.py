"""Rare events: another process between two steps, a dead loop, a missing package, an endless answer."""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import AsyncMock, Mock

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.core.exceptions import ImproperlyConfigured
from fakeredis import FakeRedisConnection
from redis import UnixDomainSocketConnection
from redis.exceptions import NoScriptError

import sessions_sticky
from sessions_sticky import Outcome, SessionStoreUnavailable, cache_config, sessions
from sessions_sticky.conf import acheck_target, conf
from sessions_sticky.connections.async_client import AsyncRedis
from sessions_sticky.connections.commands import Batch, Command, run
from sessions_sticky.jobs.job import Job
from sessions_sticky.jobs.records import Records
from sessions_sticky.jobs.runner import JobRunner
from sessions_sticky.management.commands.sessions import Command as SessionsCommand
from sessions_sticky.policy import Policy
from sessions_sticky.queries import reads
from sessions_sticky.queries.doctor import SAMPLE_STEPS, _sampled
from sessions_sticky.stores import index
from sessions_sticky.stores.base import NO_KEY
from sessions_sticky.stores.redis import _checked
from tests.conftest import patient_config
from tests.servers import start_server
from tests.sessions_sticky.calls import OTHER, PROPOSAL, sample
from tests.sessions_sticky.jobs.calls import MOVE_ALL

ROOT = Path(sessions_sticky.__file__).parents[1]


@pytest.fixture
def server(settings):
    """A separate server, as the default cache."""
    with start_server() as started:
        settings.CACHES = {"default": patient_config(started.url)}
        yield started


def policy(*replies):
    """Return the policy of the configured store, which gives or raises these replies and sends no signals."""
    left = iter(replies)
    sessions._store.loss_detector.is_due(time.monotonic())  # not again within this second

    async def send(request):
        reply = next(left)
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def send_signal(signal, **arguments):
        pass

    return Policy(sessions._store, send, send_signal, Mock(), acheck_target, ttl_seconds=3_600, actor="gateway")


def test_inspect_returns_none_when_the_session_expires_between_its_steps(session_cache):
    assert run(policy(sample().to_json(), NO_KEY).inspect("conv-123")) is None


def test_create_stands_and_is_remembered_when_only_the_index_is_unavailable(session_cache):
    """On a Cluster it is on another server."""
    replaced = sample().to_json()  # on another route
    failing = policy(replaced, SessionStoreUnavailable("the server of the index"))
    created = run(failing.create("conv-123", **OTHER, replace=True))
    assert created.provider == OTHER["provider"]
    assert sessions._store.last_seen.recall("conv-123", 0.0) == created


def test_hits_warn_once_when_only_the_index_is_unavailable(session_cache, caplog):
    """A line for each chat would be thousands a second until its server is replaced."""
    refused = SessionStoreUnavailable("the server of the index")
    refused.__cause__ = TimeoutError()
    for error in refused, refused, SessionStoreUnavailable("circuit breaker is open"):
        sessions._store.refresh_tracker = index.RefreshTracker()  # as if each were another conversation
        resolution = run(policy(sample(**PROPOSAL).to_json(), error).resolve("conv-123", **PROPOSAL))
        assert resolution.outcome is Outcome.HIT
    assert [record.levelname for record in caplog.records if "index" in record.getMessage()].count("WARNING") == 1


def test_resolve_degrades_when_the_store_has_only_unreadable_values(session_cache):
    assert run(policy(*[b"junk"] * 20).resolve("conv-123", **PROPOSAL)).outcome is Outcome.DEGRADED


def test_run_refuses_a_coroutine_that_suspends():
    coroutine = asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="must not suspend"):
        run(coroutine)
    coroutine.close()


def test_count_answers_when_there_are_ever_more_entries_to_look_at(session_cache, monkeypatch):
    for n in range(3):
        sessions.create(f"conv-{n}", **PROPOSAL)
    monkeypatch.setattr(reads, "MAX_STEPS", 1)
    monkeypatch.setattr(index, "MAX_DUE", 0)
    assert sessions.all().count() == 3


def test_doctor_gives_up_sampling_when_no_session_turns_up():
    assert _sampled(Mock(send=Mock(side_effect=[(b"7", [])] * SAMPLE_STEPS))) == []


def test_metrics_name_the_package_when_prometheus_is_missing(settings, monkeypatch):
    monkeypatch.setattr("sessions_sticky.conf.find_spec", lambda name: None)
    settings.SESSIONS_STICKY = {"METRICS": True}
    with pytest.raises(ImproperlyConfigured, match=r"pip install 'sessions_sticky\[metrics\]'"):
        _ = conf.metrics


@pytest.mark.parametrize("way", ["send", "asend"])
def test_reply_about_a_script_is_raised_when_no_script_was_called(server, way, monkeypatch):
    """Such a reply belongs to another command."""
    store = sessions._store
    answer = NoScriptError("meant for another command")
    monkeypatch.setattr(store._servers, "_exchange", AsyncMock(return_value=[answer]))
    monkeypatch.setattr(AsyncRedis, "exchange", AsyncMock(return_value=[answer]))
    with pytest.raises(SessionStoreUnavailable, match="meant for another command"):
        async_to_sync(store.asend)(Command(("GET", "key"))) if way == "asend" else store.send(Command(("GET", "key")))


def test_batch_is_unavailable_when_one_of_its_parts_is():
    with pytest.raises(SessionStoreUnavailable, match="one node"):
        _checked(Batch([Command(("GET", "a")), Command(("GET", "b"))]), [b"1", SessionStoreUnavailable("one node")])


DISORDER = """
import asyncio, sys
from django.conf import settings
from sessions_sticky import cache_config, sessions
settings.configure(CACHES={"default": cache_config(sys.argv[1])})
for _ in range(3):
    loop = asyncio.new_event_loop()
    assert loop.run_until_complete(sessions.aget("conv-123")) is None
    loop.close()
print(len(sessions._store._servers._async_client._loop_pipelines), "loop remembered")
"""


@pytest.mark.slow
def test_async_methods_work_when_a_loop_before_was_closed_in_disorder(server):
    command = [sys.executable, "-c", DISORDER, server.url]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert ran.stdout == "1 loop remembered\n", ran.stderr


async def test_pipeline_heals_when_the_server_was_restarted(server):
    for _ in range(2):
        assert await asyncio.gather(*(sessions.aget(f"conv-{n}") for n in range(5))) == [None] * 5
        server.restart()


async def test_pipeline_is_sent_again_when_the_server_hangs_up_on_it(server):
    store = sessions._store
    (connection,) = await store.asend(Batch([Command(("CLIENT", "ID"))]))
    hang_up = Command(("CLIENT", "KILL", "ID", connection, "SKIPME", "no"))
    assert await store.asend(Batch([hang_up, Command(("GET", "a"))])) == [0, None]  # 0: no longer this connection


async def test_other_callers_fail_fast_when_a_batch_was_not_answered(server):
    await sessions.acreated_per_hour()
    server.kill()
    with pytest.raises(SessionStoreUnavailable, match="ConnectionError"):
        await sessions.acreated_per_hour()
    with pytest.raises(SessionStoreUnavailable, match="circuit breaker is open"):
        await sessions.astats()


async def test_each_caller_gets_the_error_when_the_server_refuses_the_connection(server, settings):
    settings.CACHES = {"default": cache_config(server.url.replace("db=0", "db=99"))}
    answers = await asyncio.gather(*(sessions.aget(f"conv-{n}") for n in range(5)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [SessionStoreUnavailable] * 5


def test_waiting_callers_end_when_their_loop_does(server):
    async def leave():
        await sessions.aget("conv-123")
        server.stop()
        waiting = [asyncio.ensure_future(sessions.aget(f"conv-{n}")) for n in range(3)]
        await asyncio.sleep(0.05)
        return waiting

    assert all(task.cancelled() for task in asyncio.run(leave()))
    server.cont()


async def test_async_twin_works_when_the_cache_has_no_options(server, settings):
    settings.CACHES = {"default": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": server.url}}
    assert await sessions.aget("conv-123") is None


async def test_async_client_connects_with_the_options_of_the_pool(server, settings):
    config = cache_config(server.url)
    config["OPTIONS"]["CONNECTION_POOL_KWARGS"]["connection_class"] = UnixDomainSocketConnection
    settings.CACHES = {"default": config}
    assert await sessions.aget("conv-123") is None


async def test_async_twin_shares_the_sessions_of_a_fakeredis_within_the_process(settings):
    config = cache_config("redis://in-this-process/0")
    config["OPTIONS"]["CONNECTION_POOL_KWARGS"]["connection_class"] = FakeRedisConnection
    settings.CACHES = {"default": config}
    session = await sync_to_async(sessions.create)("conv-123", **PROPOSAL)
    assert await asyncio.gather(*(sessions.aget("conv-123") for _ in range(3))) == [session] * 3


def test_job_ends_when_its_record_is_gone(session_cache):
    job = Job.begin("0" * 32, MOVE_ALL, actor="ada", expected=1)
    runner = JobRunner(sessions, job)
    runner._do()
    runner._update_expected()
    assert session_cache.keys("sentinel:job*") == []


def test_job_runner_starts_no_thread_when_another_worker_has_the_lease(session_cache):
    job = Job.begin("0" * 32, MOVE_ALL, actor="ada", expected=1)
    Records(sessions._store).lease(job.key, "another worker's token", 60)
    assert JobRunner(sessions, job).run() is False


def test_command_writes_to_streams_that_are_no_files(session_cache, monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    SessionsCommand().run_from_argv(["manage.py", "sessions", "list"])
    assert out.getvalue() != ""
