"""Sessions in Redis."""

from __future__ import annotations

import hashlib
from importlib import resources
from typing import TYPE_CHECKING, Any, ClassVar

from redis.exceptions import NoScriptError, RedisError, ResponseError

from sessions_sticky import metrics
from sessions_sticky.async_redis import AsyncRedis, Command
from sessions_sticky.breaker import Breaker
from sessions_sticky.exceptions import SessionStoreUnavailable
from sessions_sticky.last_seen import LastSeen

if TYPE_CHECKING:
    import redis
    from django_redis.cache import RedisCache

WRONG_TYPE = b""
"""What reading a key of another Redis type gives: an empty value, which is no session either."""


class Script:
    """A Lua script over one session key, called by its SHA-1, under which Redis caches it."""

    sources: ClassVar[dict[str, str]] = {}

    def __init__(self, name: str) -> None:
        source = resources.files(__package__).joinpath("scripts", f"{name}.lua").read_text()
        self.sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
        self.sources[self.sha] = source

    def call(self, key: str, *args: Any) -> Command:
        return Command(("EVALSHA", self.sha, 1, key, *args))

    @classmethod
    def with_source(cls, call: Command, exc: NoScriptError) -> Command:
        """The same call for a Redis that has not seen the script yet, or was restarted since.

        Raises `exc` when the command called no script: then the reply was not meant for it.
        """
        if call.args[0] != "EVALSHA":
            raise exc
        return Command(("EVAL", cls.sources[call.args[1]], *call.args[2:]))


HEAL = Script("heal")
REPLACE = Script("replace")


class RedisStore:
    """Sessions in Redis through django-redis's native clients; see `Store`."""

    def __init__(self, cache: RedisCache) -> None:
        self.last_seen = LastSeen()
        self._client: redis.Redis = cache.client.get_client(write=True)
        self._async_client = AsyncRedis(cache)
        self._breaker = Breaker()

    def read(self, key: str) -> Command:
        return Command(("GET", key))

    def read_and_touch(self, key: str, ttl: int) -> Command:
        return Command(("GETEX", key, "EX", ttl))

    def add(self, key: str, value: bytes, ttl: int) -> Command:
        return Command(("SET", key, value, "EX", ttl, "NX", "GET"), {"get": True})

    def write(self, key: str, value: bytes, ttl: int) -> Command:
        return Command(("SET", key, value, "EX", ttl))

    def touch(self, key: str, ttl: int) -> Command:
        return Command(("EXPIRE", key, ttl))

    def delete(self, key: str) -> Command:
        return Command(("DEL", key))

    def heal(self, key: str, unreadable: bytes, value: bytes, ttl: int) -> Command:
        return HEAL.call(key, unreadable, value, ttl)

    def replace(self, key: str, expected: bytes, value: bytes, ttl: int) -> Command:
        return REPLACE.call(key, expected, value, ttl)

    def expiry(self, key: str) -> Command:
        return Command(("PTTL", key))

    def send(self, request: Command) -> Any:
        self._admit()
        try:
            try:
                reply = self._client.execute_command(*request.args, **request.options)
            except NoScriptError as exc:
                reply = self._client.execute_command(*Script.with_source(request, exc).args)
        except (RedisError, OSError) as exc:
            return self._read_error(exc)
        self._breaker.answered()
        return reply

    async def asend(self, request: Command) -> Any:
        self._admit()
        try:
            try:
                reply = await self._async_client.execute(request)
            except NoScriptError as exc:
                reply = await self._async_client.execute(Script.with_source(request, exc))
        except (RedisError, OSError) as exc:
            return self._read_error(exc)
        self._breaker.answered()
        return reply

    def _admit(self) -> None:
        if not self._breaker.admit():
            raise SessionStoreUnavailable("The session store did not answer a moment ago; not tried again yet")

    def _read_error(self, exc: Exception) -> bytes:
        """Tell a poisoned key, which is an answer, from a store that gives none."""
        if isinstance(exc, ResponseError):
            self._breaker.answered()  # refusing costs no time: the next caller may ask
            if str(exc).startswith("WRONGTYPE"):
                return WRONG_TYPE
        else:
            self._breaker.failed()
        metrics.store_failed(type(exc).__name__)
        raise SessionStoreUnavailable.because(exc) from exc
