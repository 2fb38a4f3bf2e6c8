"""Fixtures for all tests: real stores, each test with an empty one."""

from __future__ import annotations

import asyncio
import shutil
import threading
from contextvars import copy_context
from functools import cache as cached
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
from _pytest import runner
from asgiref.sync import async_to_sync
from django.conf import settings
from django.core.cache import cache
from django.core.management import call_command
from django.core.signals import request_started

from sessions_sticky import SessionManager, cache_config, metrics, stores
from sessions_sticky.apps import WATCH_JOBS
from sessions_sticky.jobs.service import Jobs
from sessions_sticky.restoration import RESTORER
from sessions_sticky.stores.local_cache import LastSeen, LossDetector
from sessions_sticky.stores.portable import cache_key
from tests import clusters, sentinels
from tests.missing import skip_or_fail
from tests.selection import (  # noqa: F401 - hooks
    pytest_collection_finish,
    pytest_collection_modifyitems,
    pytest_configure,
    pytest_ignore_collect,
    pytest_xdist_auto_num_workers,
)
from tests.servers import VALKEY, FakeServer, program_version, start_server
from tests.sessions_sticky.calls import method_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import redis
    from pytest_django import Settings

# No test asserts how long an example takes. For a longer search: `pytest --hypothesis-profile long --timeout 0 FILE`.
PATIENT = hypothesis.settings(deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.register_profile("default", PATIENT)
hypothesis.settings.register_profile("long", PATIENT, max_examples=500)

REAL_STORES = ("valkey", "redis")
SHARDED_STORES = (*REAL_STORES, "cluster")
"""Where keys and commands may behave differently; a Sentinel's primary behaves like any other server."""
REDIS_STORES = ("fakeredis", *SHARDED_STORES, "sentinel")
# A transaction around the test would hide the rows from the threads that async methods hop to. By mark, not by
# `getfixturevalue`: pytest-django makes the test database only when it sees at collection that a test wants one.
# The app has no table, so that nothing is emptied after the test: to empty all tables, and then to write the
# permissions of all apps again, takes twice as long as the test. `manager` empties the table of the cache.
ON_DATABASE = pytest.mark.django_db(transaction=True, available_apps=["sessions_sticky"])
PORTABLE_STORES = ("locmem", pytest.param("database", marks=ON_DATABASE))
STORES = (*PORTABLE_STORES, *REDIS_STORES)
COMPARING_STORES = REDIS_STORES
"""Stores with compare-and-set, and thus with `rebind`."""
EXPIRY_STORES = REDIS_STORES
"""Stores that know when a session expires."""


@pytest.fixture(scope="session", autouse=True)
def any_provider() -> None:
    """Let tests move sessions to providers that the gateway does not have; test_known_providers.py says when not."""
    settings.SESSIONS_STICKY.pop("PROVIDERS", None)


@pytest.fixture(scope="session", autouse=True)
def quick_passwords() -> None:
    """Hash passwords in microseconds: Django's default takes a quarter of a second for each user with a password."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture(scope="session", autouse=True)
def no_watch() -> Iterator[None]:
    """Keep test clients and the gateway's lifespan from starting the watch of jobs, which continues in later tests."""
    request_started.disconnect(dispatch_uid=WATCH_JOBS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Jobs, "watch", lambda self: None)
        yield


@pytest.fixture(autouse=True)
def no_labels_seen() -> None:
    """Forget the labels of earlier tests: a process exports a limited number of them."""
    metrics._seen.clear()


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    """A real Valkey from the wheel, on a unix socket."""
    with start_server() as server:
        server.calm()
        yield server.url


@pytest.fixture(scope="session")
def redis_program() -> str:
    """The redis-server on PATH, 7 or newer; it may be missing, but not in CI."""
    program = shutil.which("redis-server")
    if program and program_version(program) >= (7,):
        return program
    skip_or_fail("no redis-server 7 or newer on PATH")


@pytest.fixture(params=REAL_STORES)
def program(request: pytest.FixtureRequest) -> str:
    """The program of a real store."""
    return VALKEY if request.param == "valkey" else str(request.getfixturevalue("redis_program"))


@pytest.fixture(scope="session")
def postgres_programs() -> Path:
    """The folder of PostgreSQL's programs; they may be missing, but not in CI."""
    from tests.postgres import find_programs  # loads psycopg, which few tests need

    if (folder := find_programs()) is not None:
        return folder
    skip_or_fail("no PostgreSQL server installed")


@pytest.fixture(scope="session")
def redis_url(redis_program: str) -> Iterator[str]:
    """A real Redis, on a loopback port."""
    with start_server(redis_program, tcp=True) as server:
        server.calm()
        yield server.url


@pytest.fixture(scope="session")
def sentinel_url() -> Iterator[str]:
    """A real Valkey with two replicas, watched by three Sentinels."""
    with sentinels.Sentinels(down_after_ms=sentinels.CALM_MS) as servers:
        for each in (*servers.servers, *servers.watchers):
            each.calm()
        yield servers.url


@pytest.fixture(scope="session")
def cluster_url() -> Iterator[str]:
    """A real Valkey Cluster: three primaries, each with a replica."""
    with clusters.Cluster(timeout_ms=clusters.CALM_MS) as servers:
        for node in servers.nodes:
            node.calm()
        yield servers.url


@pytest.fixture(scope="session")
def fakeredis_url() -> Iterator[str]:
    """fakeredis behind a loopback port."""
    with FakeServer() as server:
        yield server.url


@pytest.fixture
def session_cache(valkey_url: str, settings: Settings) -> redis.Redis:
    """`CACHES["default"]` on an empty Valkey; the redis-py client of that cache."""
    return use_redis(valkey_url, settings)


@pytest.fixture(params=STORES)
def store_name(request: pytest.FixtureRequest) -> str:
    """The store under test; narrow it with `@pytest.mark.parametrize("store_name", REAL_STORES, indirect=True)`."""
    return str(request.param)


@pytest.fixture
def manager(store_name: str, request: pytest.FixtureRequest, settings: Settings) -> SessionManager:
    """A manager of `CACHES["default"]`, which is an empty store of the kind `store_name`."""
    if store_name == "locmem":
        settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    elif store_name == "database":
        settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "kept"}}
        call_command("createcachetable", verbosity=0)
    else:
        use_redis(request.getfixturevalue(f"{store_name}_url"), settings)
    cache.clear()
    return SessionManager()


@pytest.fixture
def raw(manager: SessionManager, store_name: str) -> redis.Redis:
    """The redis-py client of the manager's cache: what other programs see and do. Redis stores only."""
    assert store_name in REDIS_STORES
    return cache.client.get_client()


@pytest.fixture
def plant(manager: SessionManager, store_name: str) -> Callable[[str, bytes], None]:
    """Write the bytes of a key as another program does."""
    if store_name in REDIS_STORES:
        return lambda key, value: cache.client.get_client().set(key, value, ex=60)
    return lambda key, value: cache.set(cache_key(key), value, 60)


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest, manager: SessionManager, store_name: str) -> Callable[..., Any]:
    """Call a method of the manager by name, or its async twin on an event loop of its own.

    With `async_to_sync`, which starts threads, a database cache's thread hops come back to the test's connection.
    """
    if request.param == "sync":
        return lambda name, *args, **kwargs: method_of(manager, name)(*args, **kwargs)
    if store_name == "database":
        return lambda name, *args, **kwargs: async_to_sync(method_of(manager, f"a{name}"))(*args, **kwargs)
    return lambda name, *args, **kwargs: asyncio.run(method_of(manager, f"a{name}")(*args, **kwargs))


STALL_SECONDS = 1.0
"""Timeout for tests that stall a store which has answered before; a chat's 0.25 s a busy machine may take for that."""


def patient_config(url: str, seconds: float = 10) -> dict[str, Any]:
    """Return `cache_config(url)` for tests that are not about timeouts: a busy machine may take its time."""
    config = _cache_config(url)
    return {**config, "OPTIONS": {**config["OPTIONS"], "SOCKET_TIMEOUT": seconds, "SOCKET_CONNECT_TIMEOUT": seconds}}


_cache_config = cached(cache_config)  # which checks each parameter; most tests use one of five URLs


def use_redis(url: str, settings: Settings) -> redis.Redis:
    """Make the server at `url`, one that the tests started, the empty default cache; return its client."""
    settings.CACHES = {"default": patient_config(url)}
    client: redis.Redis = cache.client.get_client()
    begin_empty(client)
    return client


def begin_empty(client: redis.Redis) -> None:
    """Empty a store, and let this process remember nothing of it: what it misses it would restore, in a thread."""
    for thread in threading.enumerate():
        if thread.name == RESTORER:
            thread.join()
    client.flushdb()
    for store in stores._stores.values():
        store.last_seen, store.loss_detector = LastSeen(), LossDetector()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool:
    """Run each test in its own context.

    Django leaves the language of the last request in it, and each change of `CACHES` adds a variable, all of which
    each `async_to_sync` copies twice.
    """
    is_worker = hasattr(item.config, "workerinput") and item.config.option.durations is None
    return copy_context().run(_run_in_worker if is_worker else runner.pytest_runtest_protocol, item, nextitem)


def _run_in_worker(item: pytest.Item, nextitem: pytest.Item | None) -> bool:
    """Send the controller of the workers one message of a test that passes, not five: each takes 0.2 ms."""
    for report in runner.runtestprotocol(item, log=False, nextitem=nextitem):
        if report.when == "call" or not report.passed:
            item.ihook.pytest_runtest_logreport(report=report)
    return True
