"""Fixtures for all tests: real stores, each test with an empty one."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import async_to_sync
from django.core.cache import cache
from django.core.management import call_command
from django.utils import translation

from sessions_sticky import SessionManager, cache_config
from tests.servers import FakeServer, program_version, start_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import redis
    from pytest_django import Settings

REAL_STORES = ("valkey", "redis")
REDIS_STORES = ("fakeredis", *REAL_STORES)
# A transaction around the test would hide the rows from the threads that async methods hop to. By mark, not by
# `getfixturevalue`: pytest-django makes the test database only when it sees at collection that a test wants one.
PORTABLE_STORES = ("locmem", pytest.param("database", marks=pytest.mark.django_db(transaction=True)))
STORES = (*PORTABLE_STORES, *REDIS_STORES)


@pytest.fixture(autouse=True)
def no_language() -> Iterator[None]:
    """Forget the language of the last request, which Django leaves to the thread."""
    yield
    translation.deactivate()


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    """A real Valkey from the wheel, on a unix socket."""
    with start_server() as server:
        yield server.url


@pytest.fixture(scope="session")
def redis_program() -> str:
    """The redis-server on PATH, 7 or newer; it may be missing, but not in CI."""
    program = shutil.which("redis-server")
    if program and program_version(program) >= (7,):
        return program
    reason = "no redis-server 7 or newer on PATH"
    return pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)


@pytest.fixture(scope="session")
def redis_url(redis_program: str) -> Iterator[str]:
    """A real Redis, on a loopback port."""
    with start_server(redis_program, tcp=True) as server:
        yield server.url


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


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest, manager: SessionManager) -> Callable[..., Any]:
    """Call a method of the manager by name, or its async twin on an event loop of its own.

    `async_to_sync` rather than `asyncio.run`: a database cache's thread hops come back to the test's connection.
    """
    if request.param == "sync":
        return lambda name, *args, **kwargs: getattr(manager, name)(*args, **kwargs)
    return lambda name, *args, **kwargs: async_to_sync(getattr(manager, f"a{name}"))(*args, **kwargs)


def patient_config(url: str) -> dict[str, Any]:
    """Return `cache_config(url)` for tests that are not about timeouts: a busy machine may take its time."""
    config = cache_config(url)
    config["OPTIONS"] |= {"SOCKET_TIMEOUT": 10, "SOCKET_CONNECT_TIMEOUT": 10}
    return config


def use_redis(url: str, settings: Settings) -> redis.Redis:
    """Make the server at `url`, one that the tests started, the empty default cache; return its client."""
    settings.CACHES = {"default": patient_config(url)}
    client: redis.Redis = cache.client.get_client()
    client.flushdb()
    return client


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave to the whole suite what runs on Redis, but on Valkey as well: the quick part is to stay quick."""
    for item in items:
        if isinstance(item, pytest.Function) and any(param == "redis" for param in _params(item)):
            item.add_marker("slow")


def _params(item: pytest.Function) -> list[object]:
    return list(item.callspec.params.values()) if hasattr(item, "callspec") else []
