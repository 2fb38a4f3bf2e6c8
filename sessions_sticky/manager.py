"""`SessionManager`: the public interface of the app.

policy.py implements the methods for single sessions; their async forms run natively on the event loop on Redis, and in
a thread on other caches. queries/manager_methods.py has the methods for many sessions.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from copy import copy
from functools import partial
from typing import Self

from django.core.cache.backends.base import BaseCache
from django.core.exceptions import ImproperlyConfigured
from django.utils.connection import ConnectionProxy

from sessions_sticky import metrics, stores
from sessions_sticky.conf import acheck_target, check_target, conf
from sessions_sticky.connections.commands import Send, run, unsuspended
from sessions_sticky.deprecated import former_owner
from sessions_sticky.policy import Policy
from sessions_sticky.queries.manager_methods import ManagerMethods
from sessions_sticky.session import Entry, Resolution, Session
from sessions_sticky.setting_values import check_ttl_seconds
from sessions_sticky.signals import asend_signal, send_signal
from sessions_sticky.stores.base import Store
from sessions_sticky.turns import Trail, Turn


class SessionManager(ManagerMethods):
    """Sessions in one Django cache. Safe to share between threads, tasks and event loops.

    `cache` is a Django cache or an alias, by default `SESSIONS_STICKY["CACHE"]`. `ttl_seconds` is the idle time after
    which a session expires, by default `SESSION_TTL_SECONDS`. Settings are read at each call; the first call opens the
    connection. Raises `ValueError` if `cache` has another type or `ttl_seconds` is not a whole number of at least 1.

    Every method that accesses the store has an async form (`aget` of `get`) with the same arguments and errors. On
    Redis those for single sessions run on the event loop; all others run in a thread.

    Every method raises `InvalidConversationId` for an invalid id and, unless documented otherwise,
    `SessionStoreUnavailable` if the store does not answer within the cache's timeout.

    The methods for many sessions raise `SessionNotSupported` on caches other than django-redis and without their
    setting (`INDEX`, `HISTORY_LENGTH`). None of them blocks Redis for more than some milliseconds at a time.
    """

    def __init__(self, cache: BaseCache | str | None = None, ttl_seconds: int | None = None) -> None:
        if isinstance(cache, ConnectionProxy):  # `django.core.cache.cache`
            cache = str(cache._alias)
        if not isinstance(cache, BaseCache | str | None):
            raise ValueError(f"cache must be a Django cache or an alias in CACHES, not {cache!r}")
        self._alias = cache if isinstance(cache, str) else None
        self._fixed_store = stores.for_cache(cache) if isinstance(cache, BaseCache) else None
        self._ttl_seconds = None if ttl_seconds is None else check_ttl_seconds(ttl_seconds, "ttl_seconds")
        self._actor = metrics.GATEWAY

    @property
    def ttl_seconds(self) -> int:
        """The idle time of a session in seconds."""
        return conf.ttl_seconds if self._ttl_seconds is None else self._ttl_seconds

    def __repr__(self) -> str:
        try:
            alias, ttl_seconds = self._alias or conf.cache, self.ttl_seconds
        except ImproperlyConfigured:
            alias, ttl_seconds = self._alias or "not configured", self._ttl_seconds or 0
        cache = "a cache object" if self._fixed_store else f"the cache {alias!r}"
        return f"<{type(self).__name__} on {cache}, idle time {ttl_seconds} s>"

    def acting_as(self, actor: str) -> Self:
        """Return a manager that records `actor` as the author of changes instead of `gateway`.

        Raises `ValueError` for an actor that is not a string, such as a user object.
        """
        if not isinstance(actor, str):
            raise ValueError(f"actor must be a string, not {actor!r}")
        manager = copy(self)
        manager._actor = actor
        return manager

    def get(self, conversation_id: str) -> Session | None:
        """Return the session without extending it; None if it is missing, expired or unreadable."""
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

    @former_owner
    def create(self, conversation_id: str, provider: str, model: str, owner: str, *, replace: bool = False) -> Session:
        """Bind a new conversation with the full idle time; with `replace`, overwrite an existing session.

        Atomic; an unreadable value counts as no session. Raises `SessionConflict` with the current binding if there is
        one, `UnknownProvider` for a provider that is not in `PROVIDERS`, `InvalidSession` for a blank provider or model
        and for values that cannot be stored. For chats use `resolve`.
        """
        return run(self._blocking.create(conversation_id, provider, model, owner, replace=replace))

    @former_owner
    async def acreate(
        self, conversation_id: str, provider: str, model: str, owner: str, *, replace: bool = False
    ) -> Session:
        """Async form of `create`."""
        return await self._async.create(conversation_id, provider, model, owner, replace=replace)

    def touch(self, conversation_id: str) -> bool:
        """Reset the idle time; return False if there is no session. Never restores a deleted one."""
        return run(self._blocking.touch(conversation_id))

    async def atouch(self, conversation_id: str) -> bool:
        """Async form of `touch`."""
        return await self._async.touch(conversation_id)

    @former_owner
    def resolve(self, conversation_id: str, *, provider: str, model: str, owner: str) -> Resolution:
        """Return the bound session and extend it (HIT), or bind the proposed provider and model (CREATED).

        Atomic: of concurrent callers the first one binds, and all get its session. Takes two round trips on a first
        bind and one on a hit. Once a second in each process it takes one more, which checks whether the store lost
        writes, and once a minute a hit takes one that refreshes the index. An unreadable value counts as no session and
        is replaced.

        Losing the store moves no conversation. While it is unavailable, `resolve` returns the session that this process
        saw last, else the unstored proposal (DEGRADED), or raises `SessionStoreUnavailable` if `ON_STORE_ERROR` is
        `"raise"`. Once a second a call waits for the cache's timeout; others do not wait. A session that was seen
        within its idle time, was not deleted and was lost by the store is restored (CREATED; one round trip more). On
        Redis a process that notices a loss restores the others that it saw in the last hour in the background.

        Raises `SessionOwnerMismatch` for another owner's conversation (the attempt extends its idle time: checking
        first would cost every hit a round trip), and `InvalidSession` like `create`.
        """
        return run(self._blocking.resolve(conversation_id, provider, model, owner))

    @former_owner
    async def aresolve(self, conversation_id: str, *, provider: str, model: str, owner: str) -> Resolution:
        """Async form of `resolve`."""
        return await self._async.resolve(conversation_id, provider, model, owner)

    def rebind(self, session: Session, *, provider: str, model: str, reason: str) -> Session:
        """Move a conversation to another provider or model, if its binding still equals `session`.

        Atomic compare-and-set. Keeps id, owner, `created_at` and the remaining idle time. `reason` is stored in the
        history. Raises `SessionConflict` with the current binding if it has changed or is gone, `UnknownProvider` and
        `InvalidSession` like `create`, and `SessionNotSupported` on a cache other than django-redis.
        """
        return run(self._blocking.rebind(session, provider, model, reason))

    async def arebind(self, session: Session, *, provider: str, model: str, reason: str) -> Session:
        """Async form of `rebind`."""
        return await self._async.rebind(session, provider, model, reason)

    def delete(self, conversation_id: str) -> bool:
        """Delete a session; return False if there was none.

        Takes two round trips: one reads, one deletes what was read and marks it, so that no process restores it.
        """
        return run(self._blocking.delete(conversation_id))

    async def adelete(self, conversation_id: str) -> bool:
        """Async form of `delete`."""
        return await self._async.delete(conversation_id)

    def delete_unchanged(self, session: Session) -> None:
        """Delete a session if its binding still equals `session`.

        Atomic compare-and-delete, except on caches other than django-redis. Raises `SessionConflict` with the current
        binding if it has changed or is gone.
        """
        run(self._blocking.delete_unchanged(session))

    async def adelete_unchanged(self, session: Session) -> None:
        """Async form of `delete_unchanged`."""
        await self._async.delete_unchanged(session)

    def get_raw(self, conversation_id: str) -> bytes | None:
        """Return the stored bytes, readable or not, without extending the session; None if there are none."""
        return run(self._blocking.get_raw(conversation_id))

    async def aget_raw(self, conversation_id: str) -> bytes | None:
        """Async form of `get_raw`."""
        return await self._async.get_raw(conversation_id)

    def trail(self, conversation_id: str) -> Trail:
        """Return the last turns of a session, its totals, and what the providers' prompt caches should hold of it.

        Empty if no turn was recorded, and on caches other than django-redis. A trail is deleted with its session, and
        kept when the session is rebound. It expires when the session would have expired after the last recorded turn.
        """
        return run(self._blocking.trail(conversation_id))

    async def atrail(self, conversation_id: str) -> Trail:
        """Async form of `trail`."""
        return await self._async.trail(conversation_id)

    def record_turn(self, turn: Turn) -> bool:
        """Add a turn to its session's trail, to the sums by minute and hour, and to the metrics.

        Return False if no trail stores it: there is no session, or `TRAIL_LENGTH` is 0. Call it after the answer, not
        before: it takes two round trips. Raises `InvalidSession` for a turn that cannot be stored. Without django-redis
        there are only the metrics.
        """
        return run(self._blocking.record_turns([turn])) != [None]

    async def arecord_turn(self, turn: Turn) -> bool:
        """Async form of `record_turn`."""
        return await self._async.record_turns([turn]) != [None]

    async def arecord_turns(self, turns: Sequence[Turn]) -> None:
        """Record many turns, in two round trips for all."""
        await self._async.record_turns(turns)

    @property
    def _store(self) -> Store:
        return self._fixed_store or stores.for_alias(self._alias or conf.cache)

    @property
    def _blocking(self) -> Policy:
        store, signal = self._store, partial(send_signal, manager=self)
        return self._policy(store, unsuspended(store.send), unsuspended(signal), unsuspended(check_target))

    @property
    def _async(self) -> Policy:
        store = self._store
        return self._policy(store, store.asend, partial(asend_signal, manager=self), acheck_target)

    def _policy(
        self,
        store: Store,
        send: Send,
        signal: Callable[..., Awaitable[None]],
        check: Callable[[str], Awaitable[None]],
    ) -> Policy:
        in_thread = partial(send_signal, manager=self)
        return Policy(store, send, signal, in_thread, check, ttl_seconds=self.ttl_seconds, actor=self._actor)


sessions = SessionManager()
"""The manager of the configured cache; most projects need no other."""
