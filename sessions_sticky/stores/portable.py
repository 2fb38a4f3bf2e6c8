"""Sessions in any Django cache."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import msgspec
from asgiref.sync import sync_to_async

from sessions_sticky import keys, metrics
from sessions_sticky.connections.commands import ReplyT, Request
from sessions_sticky.exceptions import InvalidSession, SessionError, SessionNotSupported, SessionStoreUnavailable
from sessions_sticky.session import session_of
from sessions_sticky.stores.base import Replaced, deletion_time, restorable_from
from sessions_sticky.stores.index import RefreshTracker
from sessions_sticky.stores.local_cache import LastSeen, LossDetector, OutageLog
from sessions_sticky.turns import (
    MAX_SPILL_OVERS,
    SPILLED,
    PromptCache,
    RecordedTurn,
    SpillOver,
    Trail,
    TurnTotals,
    Usage,
)

if TYPE_CHECKING:
    from django.core.cache.backends.base import BaseCache

    from sessions_sticky.session import Session
    from sessions_sticky.stores.trail import Recorded
    from sessions_sticky.stores.usage import UsageSums
    from sessions_sticky.turns import Turn

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
    overwrite a value written just after it found an unreadable one. There is no index, no history and no usage, and of
    concurrently recorded turns of one session one may be lost.
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
        trail = cache_key(keys.trail(session.id))

        def call() -> bytes | None:
            cache = self._get_cache()
            if unreadable is not None and _is_unreadable(cache.get(name), session.id):  # otherwise it was replaced
                cache.delete(name)
            for _ in range(ADD_ATTEMPTS):
                if cache.add(name, value, ttl):
                    cache.delete(trail)
                    return None
                if (found := cache.get(name)) is not None:
                    return found  # type: ignore[no-any-return]
            raise SessionStoreUnavailable(f"{type(cache).__name__} stored no session and returned none")

        return Call(call)

    def put(self, session: Session, ttl: int, *, actor: str) -> Call[bytes | None]:
        def call() -> None:
            cache = self._get_cache()
            cache.set(cache_key(keys.session(session.id)), session.to_json(), ttl)
            cache.delete(cache_key(keys.trail(session.id)))

        return Call(call)

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
            cache = self._get_cache()
            done = cache.delete(cache_key(keys.session(conversation_id)))
            cache.delete(cache_key(keys.trail(conversation_id)))
            return done, None

        return Call(call)

    def mark_deleted(self, conversation_id: str, ttl: int) -> Call[None]:
        return Call(lambda: self._mark_deleted(conversation_id, deletion_time(None), ttl))

    def _mark_deleted(self, conversation_id: str, created_at: int, ttl: int) -> None:
        cache, name = self._get_cache(), cache_key(keys.deleted(conversation_id))
        latest = restorable_from(cache.get(name))
        cache.set(name, b"%d" % (max(latest, created_at) if math.isfinite(latest) else created_at), ttl)

    def expiry(self, key: str) -> Call[int | None]:
        return Call(lambda: None)

    def record_turns(self, turns: Sequence[Turn], ttl: int, length: int) -> Call[list[Recorded]]:
        def record(turn: Turn) -> Recorded:
            cache, conversation_id = self._get_cache(), str(turn.conversation_id)
            if cache.get(cache_key(keys.session(conversation_id))) is None:
                return None
            name = cache_key(keys.trail(conversation_id))
            trail, found = _with_turn(self.decode_trail(cache.get(name)), turn, length)
            cache.set(name, msgspec.json.encode(trail), ttl)
            return found

        return Call(lambda: [record(turn) for turn in turns])

    def add_usage(self, sums: UsageSums) -> None:
        return None

    def read_trail(self, conversation_id: str) -> Call[Any]:
        return Call(lambda: self._get_cache().get(cache_key(keys.trail(conversation_id))))

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
        except Exception as exc:  # cache backends raise different errors
            metrics.store_failed(type(exc).__name__)
            raise SessionStoreUnavailable.because(exc) from exc

    async def asend(self, request: Request[ReplyT]) -> ReplyT:
        return await sync_to_async(self.send)(request)


_TRAIL = msgspec.json.Decoder(Trail)


def _with_turn(trail: Trail, turn: Turn, length: int) -> tuple[Trail, tuple[int, int]]:
    """Return a trail with one more turn, of `length` in all, and the tokens expected and lost; see trail.lua."""
    usage, last, read = turn.usage, trail.last_provider, turn.usage.read if turn.usage else None
    own = trail.caches.get(turn.provider)
    former = trail.caches[last] if last is not None and last != turn.provider else None
    expected = own.tokens if read is not None and own and int(turn.at) < own.expires_at else 0
    lost = max(0, former.tokens - read) if read is not None and former and int(turn.at) < former.expires_at else 0
    caches = trail.caches
    if turn.cache_expires_at is not None:
        last, tokens = turn.provider, usage.warm if usage else own.tokens if own else 0
        caches = caches | {last: PromptCache(turn.cache_expires_at, tokens)}
    lost_money = int(lost * turn.price.discount + 0.5) if turn.price else 0
    added = (*turn.sums, expected, lost, lost_money)
    totals = TurnTotals(*(a + b for a, b in zip(msgspec.structs.astuple(trail.totals), added, strict=True)))
    recorded = RecordedTurn(
        at=datetime.fromtimestamp(int(turn.at), UTC),
        provider=turn.provider,
        model=turn.model,
        outcome=turn.outcome,
        bound_provider=turn.bound_provider,
        source=turn.source,
        reason=turn.reason,
        status=turn.status,
        attempts=turn.attempts,
        first_byte_ms=turn.first_byte_ms,
        usage=usage and Usage(usage.input, usage.read, usage.written, usage.output),
        expected=expected,
        lost=lost,
        saved=turn.saved,
    )
    turns = [*trail.turns, recorded][-length:]
    return Trail(turns, totals, caches, last, _with_spill_over(trail, recorded)), (expected, lost)


def _with_spill_over(trail: Trail, turn: RecordedTurn) -> list[SpillOver]:
    if turn.outcome != SPILLED:
        return trail.spill_overs
    if trail.spill_overs and trail.turns and _answered(trail.turns[-1]) == _answered(turn):
        *former, last = trail.spill_overs
        return [*former, last._replace(last_at=turn.at, turns=last.turns + 1)]
    added = SpillOver(turn.provider, turn.bound_provider, turn.at, turn.at, 1, turn.reason)
    return [*trail.spill_overs, added][-MAX_SPILL_OVERS:]


def _answered(turn: RecordedTurn) -> tuple[str, str, str]:
    """Return who answered instead of whom, and the outcome."""
    return turn.provider, turn.bound_provider, turn.outcome


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
