"""Where sessions are kept: the only module that talks to Redis or to a Django cache.

A store turns an operation into a *request* (pure) and sends it, blocking (`send`) or on the event loop (`asend`);
what the reply means is the manager's business. Values are the wire format's bytes. Every store error leaves as
`SessionStoreUnavailable`; a store never says "missing" when it does not know.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache, partial
from importlib import resources
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Protocol, TypeVar

from asgiref.sync import sync_to_async
from django.core.cache import caches
from django.core.cache.backends.base import BaseCache
from django.core.signals import setting_changed
from django_redis.cache import RedisCache
from redis.exceptions import NoScriptError, RedisError, ResponseError

from sessions_sticky import metrics
from sessions_sticky.async_redis import AsyncRedis, Command
from sessions_sticky.breaker import Breaker
from sessions_sticky.exceptions import SessionError, SessionNotSupported, SessionStoreUnavailable
from sessions_sticky.last_seen import LastSeen

if TYPE_CHECKING:
    import redis

RequestT = TypeVar("RequestT")

WRONG_TYPE = b""
"""What reading a key of another Redis type gives: an empty value, which is no session either."""

ADD_ATTEMPTS = 10
"""How often `add` may meet a key that is gone when read; a cache that fails in silence looks the same for ever."""

NO_KEY = -2
"""Redis's PTTL of a key that does not exist."""


class Store(Protocol[RequestT]):
    """What the manager needs of a store. Keys are whole keys, `ttl` is in whole seconds."""

    last_seen: LastSeen

    def read(self, key: str) -> RequestT:
        """The value, or None."""

    def read_and_touch(self, key: str, ttl: int) -> RequestT:
        """The value, its expiry set to `ttl`; or None."""

    def add(self, key: str, value: bytes, ttl: int) -> RequestT:
        """None when there was nothing and `value` was stored; else what is there. Atomic: one of many wins."""

    def write(self, key: str, value: bytes, ttl: int) -> RequestT:
        """Store `value`, whatever was there."""

    def touch(self, key: str, ttl: int) -> RequestT:
        """Set the expiry; whether there was anything. Never brings a deleted key back."""

    def delete(self, key: str) -> RequestT:
        """Remove; whether there was anything."""

    def heal(self, key: str, unreadable: bytes, value: bytes, ttl: int) -> RequestT:
        """As `add`, over a value that is no session. Atomic on Redis."""

    def replace(self, key: str, expected: bytes, value: bytes, ttl: int) -> RequestT:
        """Put `value` in the place of `expected`, keeping the expiry: `[done, the value found]`. Atomic."""

    def expiry(self, key: str) -> RequestT:
        """Milliseconds until the key expires, `NO_KEY`; another negative number or None: not known."""

    def send(self, request: RequestT) -> Any:
        """Send and wait."""

    async def asend(self, request: RequestT) -> Any:
        """Send without blocking the event loop."""


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
    def with_source(cls, call: Command) -> Command:
        """The same call for a Redis that has not seen the script yet, or was restarted since."""
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
            except NoScriptError:
                reply = self._client.execute_command(*Script.with_source(request).args)
        except (RedisError, OSError) as exc:
            return self._read_error(exc)
        self._breaker.answered()
        return reply

    async def asend(self, request: Command) -> Any:
        self._admit()
        try:
            try:
                reply = await self._async_client.execute(request)
            except NoScriptError:
                reply = await self._async_client.execute(Script.with_source(request))
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
        raise _unavailable(exc) from exc


def _unavailable(exc: Exception) -> SessionStoreUnavailable:
    metrics.store_failed(type(exc).__name__)
    # Redis repeats the arguments, which hold the owner, of a command that it does not know (renamed, or a proxy's).
    reason = str(exc).partition(", with args beginning with")[0]
    return SessionStoreUnavailable(f"The session store did not answer: {type(exc).__name__}: {reason}")


class PortableStore:
    """Sessions in any Django cache (LocMem, database, Memcached); see `Store`.

    First writer wins as far as the cache's `add` is atomic (it is in Django's own). A portable cache has no
    compare-and-set and does not tell expiries: `replace` raises `SessionNotSupported`, `expiry` is None.
    """

    def __init__(self, get_cache: Callable[[], BaseCache]) -> None:
        self.last_seen = LastSeen()
        # Looked up for each request: Django keeps one cache object for each thread.
        self._get_cache = get_cache

    def read(self, key: str) -> Callable[[], Any]:
        return lambda: self._get_cache().get(_portable(key))

    def read_and_touch(self, key: str, ttl: int) -> Callable[[], Any]:
        def request() -> Any:
            cache, name = self._get_cache(), _portable(key)
            value = cache.get(name)
            if value is not None:
                cache.touch(name, ttl)
            return value

        return request

    def add(self, key: str, value: bytes, ttl: int) -> Callable[[], Any]:
        def request() -> Any:
            cache, name = self._get_cache(), _portable(key)
            for _ in range(ADD_ATTEMPTS):
                if cache.add(name, value, ttl):
                    return None
                if (found := cache.get(name)) is not None:
                    return found
            raise SessionStoreUnavailable(f"{type(cache).__name__} neither took a session nor had one")

        return request

    def write(self, key: str, value: bytes, ttl: int) -> Callable[[], Any]:
        return lambda: self._get_cache().set(_portable(key), value, ttl)

    def touch(self, key: str, ttl: int) -> Callable[[], Any]:
        return lambda: self._get_cache().touch(_portable(key), ttl)

    def delete(self, key: str) -> Callable[[], Any]:
        return lambda: self._get_cache().delete(_portable(key))

    def replace(self, key: str, expected: bytes, value: bytes, ttl: int) -> NoReturn:
        raise SessionNotSupported(
            f"{type(self._get_cache()).__name__} cannot replace a binding atomically; django-redis can"
        )

    def heal(self, key: str, unreadable: bytes, value: bytes, ttl: int) -> Callable[[], Any]:
        add = self.add(key, value, ttl)

        def request() -> Any:
            self._get_cache().delete(_portable(key))
            return add()

        return request

    def expiry(self, key: str) -> Callable[[], None]:
        return lambda: None

    def send(self, request: Callable[[], Any]) -> Any:
        try:
            return request()
        except SessionError:
            raise
        except Exception as exc:  # each cache backend has errors of its own
            raise _unavailable(exc) from exc

    async def asend(self, request: Callable[[], Any]) -> Any:
        return await sync_to_async(self.send)(request)


def _portable(key: str) -> str:
    """A key that Memcached and a database column take: keys they might refuse go by their SHA-256.

    Django's limit is 250 characters without spaces and controls; 180 leaves room for a KEY_PREFIX.
    No session key starts with `sentinel:sha256:`, so the two forms cannot meet.
    """
    if len(key) <= 180 and key.isascii() and key.isprintable() and " " not in key:
        return key
    return f"sentinel:sha256:{hashlib.sha256(key.encode()).hexdigest()}"


def for_cache(cache: BaseCache) -> Store[Any]:
    """Return the store on one cache object."""
    return RedisStore(cache) if isinstance(cache, RedisCache) else PortableStore(lambda: cache)


@cache
def for_alias(alias: str) -> Store[Any]:
    """Return the store on a cache of `CACHES`; one for each alias and process, whatever the thread."""
    held = caches[alias]
    return RedisStore(held) if isinstance(held, RedisCache) else PortableStore(partial(caches.__getitem__, alias))


def _forget_stores(*, setting: str, **kwargs: Any) -> None:
    if setting == "CACHES":
        for_alias.cache_clear()


setting_changed.connect(_forget_stores)
