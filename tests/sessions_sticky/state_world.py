"""Two processes on a real store, its clock and its faults: what test_state_machine.py holds against the model."""

from __future__ import annotations

import asyncio
import time
from math import inf
from threading import Thread
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn

from asgiref.sync import async_to_sync
from django.core.cache import caches

from sessions_sticky import SessionError, SessionManager, keys, policy, restoration
from sessions_sticky.connections import breaker
from sessions_sticky.stores import local_cache
from tests.sessions_sticky.calls import method_of
from tests.sessions_sticky.state_model import TTL_SECONDS

if TYPE_CHECKING:
    import pytest
    import redis

    from tests.gateway.proxy import Proxy


PASS_TIME = """
for _, key in ipairs(redis.call('KEYS', 'sentinel:*')) do
  if key:sub(1, 17) == 'sentinel:{index}:' and redis.call('TYPE', key).ok == 'zset' then
    for _, member in ipairs(redis.call('ZRANGE', key, 0, -1)) do
      redis.call('ZINCRBY', key, -ARGV[1], member)
    end
  end
  local left = redis.call('PTTL', key)
  if left >= 0 then
    redis.call('PEXPIRE', key, left - ARGV[1] * 1000)
  end
end
"""
"""Moves all expiries, and the scores of the index, which are expiries as well."""


class Waiting(Thread):
    """A thread that has ended when `start` returns."""

    def start(self) -> None:
        super().start()
        self.join()


def restore_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each `resolve` check whether sessions are lost, and return when they are restored."""
    monkeypatch.setattr(local_cache, "CHECK_SECONDS", 0)
    monkeypatch.setattr(restoration, "PAUSE_SECONDS", 0)
    monkeypatch.setattr(restoration, "Thread", Waiting)


class World:
    """Two managers with memories of their own on the cache `default`."""

    can_fail = True

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._ahead = self._retried = 0.0
        restore_at_once(monkeypatch)
        clock = SimpleNamespace(
            time=time.time, monotonic=lambda: time.monotonic() + self._ahead, sleep=lambda seconds: None
        )
        breakers = SimpleNamespace(monotonic=lambda: clock.monotonic() + self._retried)
        monkeypatch.setattr(policy, "time", clock)
        monkeypatch.setattr(restoration, "time", clock)
        monkeypatch.setattr(breaker, "time", breakers)
        self.managers: list[SessionManager] = []
        self.asked: set[tuple[str, bool]] = set()

    def begin(self) -> None:
        """Empty the store and restart both processes."""
        self.come_up()
        self.lose_everything()
        self.managers = [SessionManager(caches["default"], ttl_seconds=TTL_SECONDS) for _ in range(2)]

    def ask(self, who: int, native: bool, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method, or its twin; return what it returns, or the error of the app that it raises."""
        self.asked.add((method, native))
        manager = self.managers[who]
        try:
            if native:
                return self.wait_for(method_of(manager, f"a{method}"), *args, **kwargs)
            answer = method_of(manager, method)(*args, **kwargs)
            return list(answer) if method == "scan" else answer
        except SessionError as exc:
            return exc

    def wait_for(self, method: Any, *args: Any, **kwargs: Any) -> Any:
        """Run an async method to its end; thread hops come back to this thread, and its database connection."""
        return async_to_sync(method)(*args, **kwargs)

    def pass_time(self, seconds: int, left: dict[str, float]) -> None:
        """Let time pass for the processes; `left` is what the store's keys have left then, by conversation id."""
        self._ahead += seconds

    def go_down(self) -> None:
        """Make the store unreachable."""
        raise NotImplementedError

    def come_up(self) -> None:
        """Make it reachable again, and let the processes try at once."""
        raise NotImplementedError

    def lose_everything(self) -> None:
        """Empty the store."""
        caches["default"].clear()


class Portable(World):
    """A Django cache other than Redis."""

    def go_down(self) -> None:
        for manager in self.managers:
            manager._store._get_cache = Dead

    def come_up(self) -> None:
        for manager in self.managers:
            manager._store._get_cache = lambda: caches["default"]

    def pass_time(self, seconds: int, left: dict[str, float]) -> None:
        super().pass_time(seconds, left)
        for key, remaining in left.items():
            if remaining <= 0:
                caches["default"].delete(key)
            elif remaining < inf:
                caches["default"].touch(key, remaining)

    def read(self, conversation_id: str) -> bytes | None:
        """Return the value under a session's key."""
        found: bytes | None = caches["default"].get(keys.session(conversation_id))
        return found

    def write(self, conversation_id: str, value: bytes, ttl: int | None) -> None:
        """Write as another program does."""
        caches["default"].set(keys.session(conversation_id), value, ttl)

    def remove(self, conversation_id: str) -> None:
        """Delete as another program does."""
        caches["default"].delete(keys.session(conversation_id))

    def check_expiry(self, conversation_id: str, left: float) -> None:
        """A portable cache does not tell."""


class Dead:
    """A cache whose server is gone."""

    def _fail(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise ConnectionError("gone")

    get = set = add = touch = delete = _fail


class Redis(World):
    """A Redis; with a `proxy` in front of it, it can fail. `raw` is a client of its own, which takes no proxy."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, raw: redis.Redis, proxy: Proxy | None = None, nowhere: int = 0
    ) -> None:
        super().__init__(monkeypatch)
        self.raw, self.proxy, self._nowhere = raw, proxy, nowhere
        self.can_fail, self._port = proxy is not None, proxy.target if proxy else 0
        self._loop = asyncio.Runner()

    def begin(self) -> None:
        self.close()  # with the connections of the managers of before
        self._loop = asyncio.Runner()
        super().begin()

    def wait_for(self, method: Any, *args: Any, **kwargs: Any) -> Any:
        """Run an async method on the one event loop that keeps the connections."""
        return self._loop.run(method(*args, **kwargs))

    def close(self) -> None:
        """Close the connections of the event loop."""
        self._loop.close()

    def go_down(self) -> None:
        assert self.proxy
        self.proxy.switch(self._nowhere)

    def come_up(self) -> None:
        if self.proxy:
            self.proxy.switch(self._port)
        self._retried += breaker.RETRY_SECONDS

    def lose_everything(self) -> None:
        self.raw.flushdb()

    def pass_time(self, seconds: int, left: dict[str, float]) -> None:
        """Move all expiries, and the scores of the index, which are expiries."""
        super().pass_time(seconds, left)
        self.raw.eval(PASS_TIME, 0, seconds)

    def read(self, conversation_id: str) -> bytes | None:
        """Return the value under a session's key; an empty one for another type."""
        key = keys.session(conversation_id)
        kind = self.raw.type(key)
        return self.raw.get(key) if kind == b"string" else None if kind == b"none" else b""

    def write(self, conversation_id: str, value: bytes, ttl: int | None) -> None:
        """Write as another program does; an empty value leaves a LIST."""
        key = keys.session(conversation_id)
        if value:
            self.raw.set(key, value, ex=ttl)
        else:
            self.raw.delete(key)
            self.raw.rpush(key, "junk")

    def remove(self, conversation_id: str) -> None:
        """Delete as another program does."""
        self.raw.delete(keys.session(conversation_id))

    def check_expiry(self, conversation_id: str, left: float) -> None:
        """Assert that a key expires when it should, give or take some seconds for a busy machine."""
        remaining = self.raw.pttl(keys.session(conversation_id)) / 1000
        assert 0 <= remaining <= TTL_SECONDS, remaining
        assert abs(remaining - left) < 5, (remaining, left)
