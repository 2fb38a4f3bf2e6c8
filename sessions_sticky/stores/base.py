"""Where sessions are kept: what a store must do, and which one a cache gets.

A store turns an operation into a *request* (pure) and sends it, blocking (`send`) or on the event loop (`asend`);
what the reply means is the business of operations.py. Values are the wire format's bytes. Every store error leaves as
`SessionStoreUnavailable`; a store never says "missing" when it does not know.
"""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from django.core.cache import caches
from django.core.cache.backends.base import BaseCache
from django.core.signals import setting_changed

from sessions_sticky.connections.cache_config import is_on_redis
from sessions_sticky.stores.index import Refreshed
from sessions_sticky.stores.local_cache import LastSeen
from sessions_sticky.stores.portable import PortableStore

if TYPE_CHECKING:
    from sessions_sticky.session import Session

RequestT = TypeVar("RequestT")

NO_KEY = -2
"""What `expiry` tells of a key that does not exist; Redis's PTTL."""


class Store(Protocol[RequestT]):
    """What the manager needs of a store.

    Keys are whole keys, `ttl` is in whole seconds, `actor` and `reason` are for the history. On Redis a change of a
    session, its history and its index are one atomic step; other caches keep neither history nor index.
    """

    last_seen: LastSeen
    quiet_until: dict[type, float]
    """Until when this process warns of a kind of error no more, by `time.monotonic()`."""

    @property
    def refreshed(self) -> Refreshed | None:
        """When this process refreshed index entries; None where there is no index."""

    def read(self, key: str) -> RequestT:
        """The value, or None."""

    def read_and_touch(self, key: str, ttl: int) -> RequestT:
        """The value, its expiry set to `ttl`; or None."""

    def bind(self, session: Session, unreadable: bytes | None, ttl: int, *, reason: str, actor: str) -> RequestT:
        """None when there was nothing, or the value `unreadable`, and `session` was stored; else what is there.

        One of many wins.
        """

    def put(self, session: Session, ttl: int, *, actor: str) -> RequestT:
        """Store `session`, whatever was there: that value, or None when there was nothing or it is not known."""

    def replace(self, before: Session, raw: bytes, after: Session, ttl: int, *, reason: str, actor: str) -> RequestT:
        """Put `after` in the place of the value `raw`, which is `before`; keep the expiry: `[done, value found]`."""

    def remove(self, conversation_id: str, before: Session | None, raw: bytes, ttl: int, *, actor: str) -> RequestT:
        """Remove the value `raw`, which is `before`, or unreadable, and mark it deleted: `[done, the value found]`."""

    def mark_deleted(self, conversation_id: str, ttl: int) -> RequestT:
        """Say that the session was deleted, and not lost."""

    def expiry(self, key: str) -> RequestT:
        """Milliseconds until the key expires, `NO_KEY`; another negative number or None: not known."""

    def send(self, request: RequestT) -> Any:
        """Send and wait."""

    async def asend(self, request: RequestT) -> Any:
        """Send without blocking the event loop."""


def for_cache(cache: BaseCache) -> Store[Any]:
    """Return the store on one cache object."""
    return _redis_store(cache) or PortableStore(lambda: cache)


@cache
def for_alias(alias: str) -> Store[Any]:
    """Return the store on a cache of `CACHES`; one for each alias and process, whatever the thread."""
    return _redis_store(caches[alias]) or PortableStore(partial(caches.__getitem__, alias))


def _redis_store(cache: BaseCache) -> Store[Any] | None:
    if not is_on_redis(cache):
        return None
    from sessions_sticky.stores.redis import RedisStore

    return RedisStore(cache)


def _forget_stores(*, setting: str, **kwargs: Any) -> None:
    if setting == "CACHES":
        for_alias.cache_clear()


setting_changed.connect(_forget_stores)
