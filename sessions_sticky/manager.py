"""`SessionManager`: keeps a conversation on its provider.

policy.py has what the methods of single sessions do; their `a`-prefixed async forms run natively on the event loop (on
Redis; other caches go through a thread). `queries` has what the others do; their async forms run in a thread.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Sequence
from copy import copy
from functools import partial, wraps
from typing import Any, ParamSpec, Self, TypeVar, Unpack

from asgiref.sync import sync_to_async
from django.core.cache.backends.base import BaseCache
from django.db import connections
from django.utils.connection import ConnectionProxy

from sessions_sticky import metrics, stores
from sessions_sticky.conf import check_ttl_seconds, conf
from sessions_sticky.connections.commands import run
from sessions_sticky.policy import AsyncIO, BlockingIO, Policy
from sessions_sticky.queries.bulk import Bulk, Move, Progress
from sessions_sticky.queries.filters import FilterFields, Filters, HourStats, Page, Stats, check_limit
from sessions_sticky.queries.reads import Reads, history, recent
from sessions_sticky.queries.reindex import Reindex
from sessions_sticky.queries.search import Search
from sessions_sticky.queries.usage import UsageReport, read_usage
from sessions_sticky.session import Entry, Resolution, Session
from sessions_sticky.signals import send_signal
from sessions_sticky.stores.base import Store
from sessions_sticky.stores.history import Event
from sessions_sticky.turns import Trail, Turn

P = ParamSpec("P")
T = TypeVar("T")


def _in_thread(method: Callable[P, T]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Return the async form of a blocking method.

    Each call has a thread of its own: in asgiref's one thread for all, calls would wait for each other's timeouts.
    """

    def call_and_close(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(*args, **kwargs)
        finally:
            connections.close_all()  # of this thread: receivers of signals may have used the database

    @wraps(method)
    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return await sync_to_async(call_and_close, thread_sensitive=False)(*args, **kwargs)

    call.__name__, call.__doc__ = f"a{method.__name__}", f"Async form of `{method.__name__}`."
    return call


class SessionManager:
    """Sessions in one Django cache. Safe to share between threads, tasks and event loops.

    `cache` is a Django cache or an alias; None takes `SESSIONS_STICKY["CACHE"]`. `ttl_seconds` is the idle time after
    which a session is gone; None takes `SESSION_TTL_SECONDS`. Settings are read at each call; nothing is opened
    before the first. Raises `ValueError` for a `cache` of another kind, and a `ttl_seconds` that is not a whole number
    from 1 up.

    Every method raises `InvalidConversationId` for an id that cannot name a conversation, and, except where it says
    otherwise, `SessionStoreUnavailable` when the store does not answer within the cache's timeout.

    `provider`, `model` and `external_id` of the methods of many sessions are filters: a session matches when it equals
    all that are given. These methods raise `SessionNotSupported` on a cache other than django-redis and without the
    setting they need (`INDEX`, `HISTORY_LENGTH`), `ValueError` for a filter that is not a string. None of them makes
    other clients of Redis wait for more than some milliseconds at a time.
    """

    def __init__(self, cache: BaseCache | str | None = None, ttl_seconds: int | None = None) -> None:
        if isinstance(cache, ConnectionProxy):  # `django.core.cache.cache`
            cache = str(cache._alias)
        if not isinstance(cache, BaseCache | str | None):
            raise ValueError(f"Invalid cache: {cache!r}; allowed is a Django cache, or an alias in CACHES")
        self._alias = cache if isinstance(cache, str) else None
        self._fixed_store = stores.for_cache(cache) if isinstance(cache, BaseCache) else None
        self._ttl_seconds = None if ttl_seconds is None else check_ttl_seconds(ttl_seconds)
        self._actor = metrics.GATEWAY

    @property
    def ttl_seconds(self) -> int:
        """The idle time of a session in seconds."""
        return conf.ttl_seconds if self._ttl_seconds is None else self._ttl_seconds

    def acting_as(self, actor: str) -> Self:
        """Return this manager with another author of changes in the history than `gateway`."""
        manager = copy(self)
        manager._actor = actor
        return manager

    def get(self, conversation_id: str) -> Session | None:
        """Return the session without extending it; None when it is missing, expired or unreadable."""
        return run(self._blocking.get(conversation_id))

    async def aget(self, conversation_id: str) -> Session | None:
        """Async form of `get`."""
        return await self._async.get(conversation_id)

    def inspect(self, conversation_id: str) -> Entry | None:
        """Return the session with its remaining idle time, without extending it; None as in `get`."""
        return run(self._blocking.inspect(conversation_id))

    async def ainspect(self, conversation_id: str) -> Entry | None:
        """Async form of `inspect`."""
        return await self._async.inspect(conversation_id)

    def create(self, conversation_id: str, provider: str, model: str, external_id: str) -> Session:
        """Bind unconditionally, with the full idle time, replacing any session there is.

        Raises `InvalidSession` when a value does not fit the wire format. Chats call `resolve` instead.
        """
        return run(self._blocking.create(conversation_id, provider, model, external_id))

    async def acreate(self, conversation_id: str, provider: str, model: str, external_id: str) -> Session:
        """Async form of `create`."""
        return await self._async.create(conversation_id, provider, model, external_id)

    def touch(self, conversation_id: str) -> bool:
        """Set the idle time back to full; False if there was no session. Never revives a deleted one."""
        return run(self._blocking.touch(conversation_id))

    async def atouch(self, conversation_id: str) -> bool:
        """Async form of `touch`."""
        return await self._async.touch(conversation_id)

    def resolve(self, conversation_id: str, *, provider: str, model: str, external_id: str) -> Resolution:
        """Return the bound session and extend it (HIT), or bind the proposed provider and model (CREATED).

        Atomic: of many callers the first binds and all get its session. One round trip to Redis on a hit, two on a
        first bind. An unreadable value counts as no session and is replaced.

        Losing the store moves no conversation. While it is unreachable the answer, within the cache's timeout once a
        second and at once otherwise, is the session this process last saw, else the proposal, unstored (DEGRADED);
        or `SessionStoreUnavailable`, with `ON_STORE_ERROR` set to `"raise"`. A session that was seen within its idle
        time, that nobody deleted and that the store has lost is bound again as it was (CREATED; one round trip more).

        Raises `SessionOwnerMismatch` for another owner's conversation (whose idle time the attempt extends: checking
        first would cost every hit a round trip), `InvalidSession` as `create` does.
        """
        return run(self._blocking.resolve(conversation_id, provider, model, external_id))

    async def aresolve(self, conversation_id: str, *, provider: str, model: str, external_id: str) -> Resolution:
        """Async form of `resolve`."""
        return await self._async.resolve(conversation_id, provider, model, external_id)

    def rebind(self, session: Session, *, provider: str, model: str, reason: str) -> Session:
        """Move a conversation to another provider or model, if it still is bound as in `session`.

        Compare-and-set, atomic. Keeps id, owner, `created_at` and what is left of the idle time. `reason` is for
        operators. Raises `SessionConflict` with the current binding when it has moved or is gone, `InvalidSession`,
        and `SessionNotSupported` on a cache other than django-redis.
        """
        return run(self._blocking.rebind(session, provider, model, reason))

    async def arebind(self, session: Session, *, provider: str, model: str, reason: str) -> Session:
        """Async form of `rebind`."""
        return await self._async.rebind(session, provider, model, reason)

    def delete(self, conversation_id: str) -> bool:
        """Unbind; False if there was nothing. Two round trips: a marker keeps other processes from making it again."""
        return run(self._blocking.delete(conversation_id))

    async def adelete(self, conversation_id: str) -> bool:
        """Async form of `delete`."""
        return await self._async.delete(conversation_id)

    def delete_unchanged(self, session: Session) -> None:
        """Unbind a conversation if it is still bound as in `session`.

        Compare-and-delete, atomic; on a cache other than django-redis as far as it can. Raises `SessionConflict` with
        the current binding when it has moved or is gone.
        """
        run(self._blocking.delete_unchanged(session))

    async def adelete_unchanged(self, session: Session) -> None:
        """Async form of `delete_unchanged`."""
        await self._async.delete_unchanged(session)

    def get_raw(self, conversation_id: str) -> bytes | None:
        """Return the stored value as it is, readable or not, without extending it; None when there is none."""
        return run(self._blocking.get_raw(conversation_id))

    async def aget_raw(self, conversation_id: str) -> bytes | None:
        """Async form of `get_raw`."""
        return await self._async.get_raw(conversation_id)

    def trail(self, conversation_id: str) -> Trail:
        """Return the last turns of a session, its totals, and what the providers' prompt caches should hold of it.

        Empty where no turn was recorded. A trail ends with its session, begins anew with a new one, and stays when the
        session is rebound. Its expiry is the session's at the time of the last turn.
        """
        return run(self._blocking.trail(conversation_id))

    async def atrail(self, conversation_id: str) -> Trail:
        """Async form of `trail`."""
        return await self._async.trail(conversation_id)

    def record_turn(self, turn: Turn) -> bool:
        """Add a turn to its session's trail, to the sums by minute and hour, and to the metrics.

        False if no trail keeps it: there is no session, or `TRAIL_LENGTH` is 0. Call it after the answer, not before:
        it takes two round trips. Raises `InvalidSession` for a turn that cannot be stored. On a cache other than
        django-redis there are no sums.
        """
        return run(self._blocking.record_turns([turn])) != [None]

    async def arecord_turn(self, turn: Turn) -> bool:
        """Async form of `record_turn`."""
        return await self._async.record_turns([turn]) != [None]

    async def arecord_turns(self, turns: Sequence[Turn]) -> None:
        """Record many turns, in two round trips for all."""
        await self._async.record_turns(turns)

    def usage(self, minutes: int = 24 * 60) -> UsageReport:
        """Return what the turns of the last minutes used, by provider, model and outcome, and by owner.

        `minutes` is 1 to 1,440, else `ValueError`; above 60 it is rounded up to hours. The current minute or hour is
        one of them. Owners are always summed by hour.
        """
        return read_usage(self._store, minutes)

    ausage = _in_thread(usage)

    def page(self, *, cursor: str | None = None, limit: int = 50, **filters: Unpack[FilterFields]) -> Page:
        """Return sessions with their idle time left, most recently active first, to the minute.

        `limit` is 1 to 1,000. `cursor` is the last page's `next_cursor`, with the same filters; None begins. A session
        that is used or moved while the pages are read may be missing or on two of them; `scan` misses none. A page may
        be short, even empty, and yet have a next one, where few sessions of an owner match a provider or model.
        Raises `InvalidCursor`, and `ValueError` for another limit.
        """
        return self._reads.page(Filters.checked(filters), cursor, check_limit(limit))

    apage = _in_thread(page)

    def search(self, text: str, *, cursor: str | None = None, limit: int = 50) -> Page:
        """Return the session with this id, else the sessions of this owner, else those whose id contains the text.

        The last finds a client's own id within that of an observed session, also where only its hash is stored.
        Capitals count. `limit` and `cursor` are as in `page`; a page of ids that contain the text is in no order, and
        may be short, even empty, and yet have a next one: each looks through 50,000 sessions at most. Raises
        `InvalidCursor`, and `ValueError` for an empty text.
        """
        return Search(self._store, self.ttl_seconds).page(text, cursor, check_limit(limit))

    asearch = _in_thread(search)

    def scan(self, **filters: Unpack[FilterFields]) -> Iterator[Entry]:
        """Yield every session once, in no order: those that exist throughout, and do not move to another route."""
        return self._reads.scan(Filters.checked(filters))

    def count(self, **filters: Unpack[FilterFields]) -> int:
        """Return how many sessions there are, by the index.

        It may count sessions that other programs have deleted or moved, until a page or `reindex` finds them.
        """
        return self._reads.count(Filters.checked(filters))

    acount = _in_thread(count)

    def stats(self) -> Stats:
        """Return how many sessions each provider and model has, and how many were created lately."""
        return self._reads.stats()

    astats = _in_thread(stats)

    def created_per_hour(self) -> list[HourStats]:
        """Return how many sessions were created in each hour of the last day, the 24th being this one."""
        return self._reads.created_per_hour()

    acreated_per_hour = _in_thread(created_per_hour)

    def history(self, conversation_id: str) -> list[Event]:
        """Return the events of a conversation that the history still has, oldest first."""
        return history(self._store, conversation_id)

    ahistory = _in_thread(history)

    def recent(self, *, after: str | None = None, limit: int = 100) -> list[Event]:
        """Return the last events of all conversations, or the first after the `position` of one, oldest first."""
        return recent(self._store, after, check_limit(limit))

    arecent = _in_thread(recent)

    def delete_all(
        self, *, everything: bool = False, progress: Progress | None = None, **filters: Unpack[FilterFields]
    ) -> int:
        """Delete sessions; return how many. Needs a filter, or `everything=True`, else raises `ValueError`.

        Each is deleted by compare-and-delete: sessions that no longer match are skipped. May be stopped at any time
        (`progress` raises, Ctrl-C, kill) and called again: it continues with the rest. Sessions that are created
        meanwhile may be left. `progress(done, expected)` is called after each batch of 500.
        """
        return self._bulk.delete_all(Filters.checked(filters, everything=everything), progress)

    adelete_all = _in_thread(delete_all)

    def rebind_all(
        self,
        *,
        to_provider: str,
        reason: str,
        to_model: str | None = None,
        everything: bool = False,
        progress: Progress | None = None,
        **filters: Unpack[FilterFields],
    ) -> int:
        """Move sessions to another provider, and to `to_model` unless that is None; return how many moved.

        By compare-and-set, and may be stopped and called again, as `delete_all`. Raises `InvalidSession` for a name
        that does not fit the wire format.
        """
        move = Move(to_provider, to_model, reason)
        return self._bulk.rebind_all(Filters.checked(filters, everything=everything), move, progress)

    arebind_all = _in_thread(rebind_all)

    def reindex(self, progress: Progress | None = None) -> int:
        """Rebuild the index, by reading every key of the database; return the number of sessions.

        Finds sessions that other programs wrote, drops entries without a session; online, repeatable, may be stopped at
        any time. `progress(done, expected)` counts keys.
        """
        return Reindex(self._store, self.ttl_seconds).reindex(progress)

    areindex = _in_thread(reindex)

    @property
    def _store(self) -> Store:
        return self._fixed_store or stores.for_alias(self._alias or conf.cache)

    @property
    def _blocking(self) -> Policy:
        return Policy(self._store, BlockingIO(self._store, type(self)), self.ttl_seconds, self._actor)

    @property
    def _async(self) -> Policy:
        return Policy(self._store, AsyncIO(self._store, type(self)), self.ttl_seconds, self._actor)

    @property
    def _reads(self) -> Reads:
        return Reads(self._store, self.ttl_seconds)

    @property
    def _bulk(self) -> Bulk:
        return Bulk(self._store, self.ttl_seconds, self._actor, partial(send_signal, sender=type(self)))


sessions = SessionManager()
"""The manager of the configured cache; what most projects need."""
