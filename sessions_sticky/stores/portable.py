"""Sessions in any Django cache."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from asgiref.sync import sync_to_async
from django.core.cache.backends.base import BaseCache

from sessions_sticky import keys, metrics
from sessions_sticky.connections.commands import ReplyT, Request
from sessions_sticky.exceptions import InvalidSession, SessionError, SessionNotSupported, SessionStoreUnavailable
from sessions_sticky.session import Session, session_of
from sessions_sticky.stores.base import Replaced, deletion_time, restorable_from
from sessions_sticky.stores.index import RefreshTracker
from sessions_sticky.stores.local_cache import LastSeen, LossDetector, OutageLog

ADD_ATTEMPTS = 10
"""Maximum retries of `add` if the key is gone when read; a silently failing cache would loop forever."""


@dataclass(slots=True)
class Call(Request[ReplyT]):
    """A function that calls the cache."""

    function: Callable[[], ReplyT]


class PortableStore:
    """Sessions in any Django cache (LocMem, database, Memcached); see `Store`.

    The first writer wins if the cache's `add` is atomic, as in Django's own caches. There is no compare-and-set and no
    expiry: `replace` raises `SessionNotSupported`, `expiry` is None, `remove` deletes any value, and `bind` may
    overwrite a value written just after it found an unreadable one. There is no index, no history, no trail and no
    usage.
    """

    has_index = False

    def __init__(self, get_cache: Callable[[], BaseCache]) -> None:
        self.last_seen = LastSeen()
        self.loss_detector = LossDetector()
        self.outages = OutageLog()
        self.refresh_tracker = RefreshTracker()
        # Called for each request: Django has one cache object for each thread.
        self._get_cache = get_cache

    @property
    def operators(self) -> PortableStore:
        return self

    def read(self, key: str) -> Call[bytes | None]:
        return Call(lambda: self._get_cache().get(cache_key(key)))

    def read_and_touch(self, key: str, ttl: int) -> Call[bytes | None]:
        def call() -> bytes | None:
            cache, name = self._get_cache(), cache_key(key)
            value: bytes | None = cache.get(name)
            if value is not None:
                cache.touch(name, ttl)
            return value

        return Call(call)

    def bind(
        self, session: Session, unreadable: bytes | None, ttl: int, *, reason: str, actor: str
    ) -> Call[bytes | None]:
        name, value = cache_key(keys.session(session.id)), session.to_json()

        def call() -> bytes | None:
            cache = self._get_cache()
            if unreadable is not None and _is_unreadable(cache.get(name), session.id):  # otherwise it was replaced
                cache.delete(name)
            for _ in range(ADD_ATTEMPTS):
                if cache.add(name, value, ttl):
                    return None
                if (found := cache.get(name)) is not None:
                    return found  # type: ignore[no-any-return]
            raise SessionStoreUnavailable(f"{type(cache).__name__} stored no session and returned none")

        return Call(call)

    def put(self, session: Session, ttl: int, *, actor: str) -> Call[bytes | None]:
        return Call(lambda: self._get_cache().set(cache_key(keys.session(session.id)), session.to_json(), ttl))

    def replace(
        self, before: Session, raw: bytes, after: Session, ttl: int, *, reason: str, actor: str
    ) -> Call[Replaced]:
        raise SessionNotSupported(
            f"{type(self._get_cache()).__name__} cannot replace a binding atomically; django-redis can"
        )

    def remove(
        self, conversation_id: str, before: Session | None, raw: bytes, ttl: int, *, actor: str
    ) -> Call[Replaced]:
        created_at = deletion_time(before)

        def call() -> Replaced:
            # First, so that no process sees a missing session without the marker.
            self._mark_deleted(conversation_id, created_at, ttl)
            return self._get_cache().delete(cache_key(keys.session(conversation_id))), None

        return Call(call)

    def mark_deleted(self, conversation_id: str, ttl: int) -> Call[None]:
        return Call(lambda: self._mark_deleted(conversation_id, deletion_time(None), ttl))

    def _mark_deleted(self, conversation_id: str, created_at: int, ttl: int) -> None:
        cache, name = self._get_cache(), cache_key(keys.deleted(conversation_id))
        is_later = restorable_from(cache.get(name)) >= created_at
        if not (is_later and cache.touch(name, ttl)):
            cache.set(name, b"%d" % created_at, ttl)

    def expiry(self, key: str) -> Call[int | None]:
        return Call(lambda: None)

    def send(self, request: Request[ReplyT]) -> ReplyT:
        try:
            return cast("Call[ReplyT]", request).function()
        except SessionError:
            raise
        except Exception as exc:  # cache backends raise different errors
            metrics.store_failed(type(exc).__name__)
            raise SessionStoreUnavailable.because(exc) from exc

    async def asend(self, request: Request[ReplyT]) -> ReplyT:
        return await sync_to_async(self.send)(request)


def _is_unreadable(value: Any, conversation_id: str) -> bool:
    """Not compared with the value found before: unpickled values may not compare equal."""
    try:
        session_of(conversation_id, value)
    except InvalidSession:
        return value is not None
    return False


def cache_key(key: str) -> str:
    """Return a key that Memcached and database caches accept: the SHA-256 of keys that they might refuse.

    Django's limit is 250 characters without spaces and controls; 180 leaves room for a KEY_PREFIX.
    No other key has `sha256:` behind the prefix, so the two forms cannot meet.
    """
    if len(key) <= 180 and key.isascii() and key.isprintable() and " " not in key:
        return key
    return keys.prefixed(f"sha256:{hashlib.sha256(key.encode()).hexdigest()}")
