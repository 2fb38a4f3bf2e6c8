"""Sentinel and Cluster by URL, with users, passwords and TLS."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager

import pytest
import redis
from asgiref.sync import async_to_sync
from django.core.cache import cache
from redis import RedisCluster

from sessions_sticky import Outcome, SessionManager, SessionStoreUnavailable, cache_config, keys
from sessions_sticky.queries import index_reader
from tests.access import Access, make_certificates
from tests.clusters import Cluster
from tests.conftest import patient_config
from tests.sentinels import Sentinels
from tests.servers import VALKEY
from tests.sessions_sticky.calls import MOVE, PROPOSAL
from tests.sessions_sticky.jobs import calls as job_calls
from tests.sessions_sticky.jobs.calls import fill, quick_ticks  # noqa: F401 - a fixture
from tests.waiting import wait_until

pytestmark = pytest.mark.slow
USER, PASSWORD, WATCHERS_PASSWORD = "app", "s3cret-of-the-servers", "s3cret-of-the-sentinels"


def start(topology: str, program: str, access: Access) -> AbstractContextManager[Sentinels | Cluster]:
    if topology == "sentinel":
        return Sentinels(program, access=access, watcher_password=WATCHERS_PASSWORD)
    return Cluster(program, access=access)


@pytest.fixture(scope="module", params=["sentinel", "cluster"])
def login_url(request) -> Iterator[str]:
    """The URL of servers that want a user and a password."""
    with start(request.param, VALKEY, Access(USER, PASSWORD)) as servers:
        yield servers.url


@pytest.fixture(scope="module", params=["sentinel", "cluster"])
def tls_url(request, redis_program: str, tmp_path_factory) -> Iterator[str]:
    """The URL of servers that speak TLS as well; the wheel's Valkey has none, Debian's Redis has."""
    certificates = make_certificates(tmp_path_factory.mktemp("certificates"))
    with start(request.param, redis_program, Access(USER, PASSWORD, certificates)) as servers:
        yield servers.url


def check_all(manager: SessionManager) -> None:
    """Use every part: the session, the index, the history, bulk changes, the reindex; sync and async."""
    session = manager.resolve("conv-123", **PROPOSAL).session
    assert async_to_sync(manager.aresolve)("conv-123", **PROPOSAL) == (session, Outcome.HIT)
    moved = async_to_sync(manager.arebind)(session, **MOVE)
    assert manager.get("conv-123") == moved
    assert [entry.session for entry in async_to_sync(manager.all().apage)().entries] == [moved]
    assert [event.kind for event in manager.history("conv-123")] == ["created", "rebound"]
    assert manager.filter(provider=MOVE["provider"]).rebind(to_provider="xai", reason="a test") == 1
    assert async_to_sync(manager.areindex)() == manager.filter(provider="xai").count() == 1
    assert manager.delete("conv-123")


def test_every_part_works_when_servers_want_a_user_and_a_password(login_url, settings):
    settings.CACHES = {"default": patient_config(login_url)}
    check_all(SessionManager())


def test_every_part_works_when_servers_speak_tls(tls_url, settings):
    settings.CACHES = {"default": patient_config(tls_url)}
    check_all(SessionManager())


@pytest.mark.parametrize("way", ["sync", "async"])
def test_error_reveals_no_password_when_it_is_wrong(login_url, settings, way, caplog):
    settings.CACHES = {"default": patient_config(login_url.replace(PASSWORD, "wr0ng-password"))}
    manager = SessionManager()
    get = manager.get if way == "sync" else async_to_sync(manager.aget)
    with pytest.raises(SessionStoreUnavailable) as caught:
        get("conv-123")
    logged = f"{caught.value} {caught.value.__cause__!r} {caplog.text}"
    assert "wr0ng" not in logged
    assert "s3cret" not in logged


@pytest.mark.parametrize("way", ["sync", "async"])
def test_nothing_is_sent_to_a_server_whose_certificate_is_not_trusted(tls_url, settings, way):
    base, _, query = tls_url.partition("?")
    kept = [each for each in query.split("&") if not each.startswith("ssl_ca_certs")]
    settings.CACHES = {"default": patient_config(f"{base}?{'&'.join(kept)}".rstrip("?"))}
    manager = SessionManager()
    get = manager.get if way == "sync" else async_to_sync(manager.aget)
    with pytest.raises(SessionStoreUnavailable, match=r"certificate|no reachable Sentinel"):
        get("conv-123")


@pytest.mark.parametrize("store_name", ["sentinel", "cluster"], indirect=True)
def test_late_answer_is_discarded(manager, call, settings, store_name, request):
    """redis-py's connections to a Sentinel's primary stay open after a timeout, the answer in them."""
    url = request.getfixturevalue(f"{store_name}_url")
    settings.CACHES = {"default": cache_config(url.replace("/0", "/1"))}  # or it shares the patient one's pool
    for number in range(20):
        manager.create(f"conv-{number}", **PROPOSAL, replace=True)
    call("touch", "conv-0")
    node = primary_of(keys.session("conv-0"))
    for _ in range(3):
        wait_until(lambda: node.client_pause(400, all=True) and not answers(call))  # the machine may pause, too
        wait_until(lambda: answers(call))
        assert [call("get", f"conv-{number}").id for number in range(20)] == [f"conv-{n}" for n in range(20)]


def primary_of(key: str) -> redis.Redis:
    client = cache.client.get_client()
    return client.get_redis_connection(client.get_node_from_key(key)) if isinstance(client, RedisCluster) else client


def answers(call) -> bool:
    try:
        return bool(call("get", "conv-0"))
    except SessionStoreUnavailable:
        return False


@pytest.mark.usefixtures("quick_ticks")
@pytest.mark.parametrize("store_name", ["sentinel", "cluster"], indirect=True)
def test_jobs_run_to_their_end_whether_stopped_or_abandoned(manager, monkeypatch):
    monkeypatch.setattr(index_reader, "BATCH_SIZE", 20)
    fill(250)
    key = job_calls.abandoned(job_calls.MOVE_ALL)
    assert [job.key for job in job_calls.jobs.recent()] == [key]
    assert job_calls.finished(key).state == "done"
    assert manager.filter(provider="mistral").count() == 250
    fill(250)
    with job_calls.gate(after=100) as gate:
        started = job_calls.start(job_calls.DELETE)
        assert gate.reached.wait(job_calls.SECONDS)
        job_calls.jobs.stop(started.key, within_seconds=0)
    assert job_calls.finished(started.key).state == "stopped"
    assert 0 < manager.all().count() < 250
    wait_until(job_calls.no_threads)
    job_calls.jobs.resume(started.key)
    assert job_calls.finished(started.key).state == "done"
    assert manager.all().count() == 0
    wait_until(job_calls.no_threads)


@pytest.mark.parametrize("store_name", ["sentinel", "cluster"], indirect=True)
def test_loops_leave_no_descriptor_behind(manager):
    def run():
        assert asyncio.run(manager.aresolve("conv-123", **PROPOSAL)).session.id == "conv-123"
        gc.collect()  # a socket left open would warn here, and warnings are errors

    run()
    before = len(os.listdir("/dev/fd"))
    for _ in range(20):
        run()
    assert len(os.listdir("/dev/fd")) <= before
