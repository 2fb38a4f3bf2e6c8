"""Where sessions are kept: what a store must do, and which one a cache gets.

A store turns an operation into a *request* (pure) and sends it, blocking (`send`) or on the event loop (`asend`);
what the reply means is the business of operations.py. Values are the wire format's bytes. Every store error leaves as
`SessionStoreUnavailable`; a store never says "missing" when it does not know.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any, Protocol, TypeVar

from django.core.cache import caches
from django.core.cache.backends.base import BaseCache
from django.core.signals import setting_changed
from django_redis.cache import RedisCache

from sessions_sticky.last_seen import LastSeen
from sessions_sticky.portable_store import PortableStore
from sessions_sticky.redis_store import RedisStore

RequestT = TypeVar("RequestT")

NO_KEY = -2
"""What `expiry` tells of a key that does not exist; Redis's PTTL."""


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
