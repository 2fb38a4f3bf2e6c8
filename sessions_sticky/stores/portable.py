"""Sessions in any Django cache."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, cast

import msgspec
from asgiref.sync import sync_to_async

from sessions_sticky import keys, metrics
from sessions_sticky.connections.commands import ReplyT, Request
from sessions_sticky.exceptions import InvalidSession, SessionError, SessionNotSupported, SessionStoreUnavailable
from sessions_sticky.session import session_of
from sessions_sticky.stores.base import Replaced
from sessions_sticky.stores.local_cache import LastSeen
from sessions_sticky.turns import Trail

if TYPE_CHECKING:
    from django.core.cache.backends.base import BaseCache

    from sessions_sticky.session import Session
    from sessions_sticky.stores.trail import Recorded
    from sessions_sticky.stores.usage import UsageSums
    from sessions_sticky.turns import Turn

ADD_ATTEMPTS = 10
"""How often `add` may meet a key that is gone when read; a cache that fails in silence looks the same for ever."""


@dataclass(slots=True)
class Call(Request[ReplyT]):
    """A function that asks the cache."""

    function: Callable[[], ReplyT]


class PortableStore:
    """Sessions in any Django cache (LocMem, database, Memcached); see `Store`.

    The first writer wins as far as the cache's `add` is atomic (it is in Django's own). A portable cache has no
    compare-and-set and does not report expiries: `replace` raises `SessionNotSupported`, `expiry` is None, `remove`
    deletes whatever is there, and `bind` whatever comes just after it has looked for the unreadable value. There is no
    index, no history and no sum of usage, and of turns of one session that are recorded at once one may be lost.
    """

    refresh_tracker: None = None

    def __init__(self, get_cache: Callable[[], BaseCache]) -> None:
        self.last_seen = LastSeen()
        self.next_warning_at: dict[type, float] = {}
        # Called for each request: Django keeps one cache object for each thread.
        self._get_cache = get_cache

    def read(self, key: str) -> Call[bytes | None]:
        return Call(lambda: self._get_cache().get(_portable(key)))

    def read_and_touch(self, key: str, ttl: int) -> Call[bytes | None]:
        def call() -> bytes | None:
            cache, name = self._get_cache(), _portable(key)
            value: bytes | None = cache.get(name)
            if value is not None:
                cache.touch(name, ttl)
            return value

        return Call(call)

    def bind(
        self, session: Session, unreadable: bytes | None, ttl: int, *, reason: str, actor: str
    ) -> Call[bytes | None]:
        name, value = _portable(keys.session(session.id)), session.to_json()
        trail = _portable(keys.trail(session.id))

        def call() -> bytes | None:
            cache = self._get_cache()
            if unreadable is not None and _is_unreadable(cache.get(name), session.id):  # else it was replaced
                cache.delete(name)
            for _ in range(ADD_ATTEMPTS):
                if cache.add(name, value, ttl):
                    cache.delete(trail)
                    return None
                if (found := cache.get(name)) is not None:
                    return found  # type: ignore[no-any-return]
            raise SessionStoreUnavailable(f"{type(cache).__name__} neither took a session nor had one")

        return Call(call)

    def put(self, session: Session, ttl: int, *, actor: str) -> Call[bytes | None]:
        def call() -> None:
            cache = self._get_cache()
            cache.set(_portable(keys.session(session.id)), session.to_json(), ttl)
            cache.delete(_portable(keys.trail(session.id)))

        return Call(call)

    def replace(self, before: Session, raw: bytes, after: Session, ttl: int, *, reason: str, actor: str) -> NoReturn:
        raise SessionNotSupported(
            f"{type(self._get_cache()).__name__} cannot replace a binding atomically; django-redis can"
        )

    def remove(
        self, conversation_id: str, before: Session | None, raw: bytes, ttl: int, *, actor: str
    ) -> Call[Replaced]:
        mark = self.mark_deleted(conversation_id, ttl)

        def call() -> Replaced:
            mark.function()  # first, so that no process finds the session gone without the marker
            cache = self._get_cache()
            done = cache.delete(_portable(keys.session(conversation_id)))
            cache.delete(_portable(keys.trail(conversation_id)))
            return done, None

        return Call(call)

    def mark_deleted(self, conversation_id: str, ttl: int) -> Call[None]:
        return Call(lambda: self._get_cache().set(_portable(keys.deleted(conversation_id)), b"1", ttl))

    def expiry(self, key: str) -> Call[int | None]:
        return Call(lambda: None)

    def record_turns(self, turns: Sequence[Turn], ttl: int, length: int) -> Call[list[Recorded]]:
        def record(turn: Turn) -> Recorded:
            cache, conversation_id = self._get_cache(), str(turn.conversation_id)
            if cache.get(_portable(keys.session(conversation_id))) is None:
                return None
            name = _portable(keys.trail(conversation_id))
            trail, found = self.decode_trail(cache.get(name)).with_turn(turn, length)
            cache.set(name, msgspec.json.encode(trail), ttl)
            return found

        return Call(lambda: [record(turn) for turn in turns])

    def add_usage(self, sums: UsageSums) -> None:
        return None

    def read_trail(self, conversation_id: str) -> Call[Any]:
        return Call(lambda: self._get_cache().get(_portable(keys.trail(conversation_id))))

    def decode_trail(self, reply: Any) -> Trail:
        try:
            return _TRAIL.decode(reply or b"{}")
        except (msgspec.MsgspecError, UnicodeError, TypeError, RecursionError):
            return Trail()

    def send(self, request: Request[ReplyT]) -> ReplyT:
        try:
            return cast("Call[ReplyT]", request).function()
        except SessionError:
            raise
        except Exception as exc:  # each cache backend has errors of its own
            metrics.store_failed(type(exc).__name__)
            raise SessionStoreUnavailable.because(exc) from exc

    async def asend(self, request: Request[ReplyT]) -> ReplyT:
        return await sync_to_async(self.send)(request)


_TRAIL = msgspec.json.Decoder(Trail)


def _is_unreadable(value: Any, conversation_id: str) -> bool:
    """Not compared with what was found before: what is unpickled anew may equal nothing."""
    try:
        session_of(conversation_id, value)
    except InvalidSession:
        return value is not None
    return False


def _portable(key: str) -> str:
    """A key that Memcached and a database column take: keys they might refuse go by their SHA-256.

    Django's limit is 250 characters without spaces and controls; 180 leaves room for a KEY_PREFIX.
    No other key has `sha256:` behind the prefix, so the two forms cannot meet.
    """
    if len(key) <= 180 and key.isascii() and key.isprintable() and " " not in key:
        return key
    return keys.prefixed(f"sha256:{hashlib.sha256(key.encode()).hexdigest()}")
