"""`SessionManager`: keeps a conversation on its provider.

Here are the methods and who sends their requests; what they do is in operations.py. Each method has an `a`-prefixed
twin with the same signature, result and errors, which runs natively on the event loop (on Redis; other caches go
through a thread).
"""

from __future__ import annotations

from copy import copy
from typing import Self

from sessions_sticky.policy import Operations
from sessions_sticky.queries.methods import OperatorMethods
from sessions_sticky.session import Entry, Resolution, Session


class SessionManager(OperatorMethods):
    """Sessions in one Django cache. Safe to share between threads, tasks and event loops.

    `cache` is a Django cache or an alias; None takes `SESSIONS_STICKY["CACHE"]`. `ttl_seconds` is the idle time after
    which a session is gone; None takes `SESSION_TTL_SECONDS`. Settings are read at each call; nothing is opened
    before the first. Raises `ValueError` for a `cache` of another kind, and a `ttl_seconds` that is not a whole number
    from 1 up.

    Every method raises `InvalidConversationId` for an id that cannot name a conversation, and, except where it says
    otherwise, `SessionStoreUnavailable` when the store does not answer within the cache's timeout.
    """

    def get(self, conversation_id: str) -> Session | None:
        """Return the session without extending it; None when it is missing, expired or unreadable."""
        return self._run(self._operations.get(conversation_id))

    async def aget(self, conversation_id: str) -> Session | None:
        """Async twin of `get`."""
        return await self._arun(self._operations.get(conversation_id))

    def inspect(self, conversation_id: str) -> Entry | None:
        """Return the session with its remaining idle time, without extending it; None as in `get`."""
        return self._run(self._operations.inspect(conversation_id))

    async def ainspect(self, conversation_id: str) -> Entry | None:
        """Async twin of `inspect`."""
        return await self._arun(self._operations.inspect(conversation_id))

    def create(self, conversation_id: str, provider: str, model: str, external_id: str) -> Session:
        """Bind unconditionally, with the full idle time, replacing any session there is.

        Raises `InvalidSession` when a value does not fit the wire format. Chats call `resolve` instead.
        """
        return self._run(self._operations.create(conversation_id, provider, model, external_id))

    async def acreate(self, conversation_id: str, provider: str, model: str, external_id: str) -> Session:
        """Async twin of `create`."""
        return await self._arun(self._operations.create(conversation_id, provider, model, external_id))

    def touch(self, conversation_id: str) -> bool:
        """Set the idle time back to full; False if there was no session. Never revives a deleted one."""
        return self._run(self._operations.touch(conversation_id))

    async def atouch(self, conversation_id: str) -> bool:
        """Async twin of `touch`."""
        return await self._arun(self._operations.touch(conversation_id))

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
        return self._run(self._operations.resolve(conversation_id, provider, model, external_id))

    async def aresolve(self, conversation_id: str, *, provider: str, model: str, external_id: str) -> Resolution:
        """Async twin of `resolve`."""
        return await self._arun(self._operations.resolve(conversation_id, provider, model, external_id))

    def rebind(self, session: Session, *, provider: str, model: str, reason: str) -> Session:
        """Move a conversation to another provider or model, if it still is bound as in `session`.

        Compare-and-set, atomic. Keeps id, owner, `created_at` and what is left of the idle time. `reason` is for
        operators. Raises `SessionConflict` with the current binding when it has moved or is gone, `InvalidSession`,
        and `SessionNotSupported` on a cache other than django-redis.
        """
        return self._run(self._operations.rebind(session, provider, model, reason))

    async def arebind(self, session: Session, *, provider: str, model: str, reason: str) -> Session:
        """Async twin of `rebind`."""
        return await self._arun(self._operations.rebind(session, provider, model, reason))

    def delete(self, conversation_id: str) -> bool:
        """Unbind; False if there was nothing. Two round trips: a marker keeps other processes from making it again."""
        return self._run(self._operations.delete(conversation_id))

    async def adelete(self, conversation_id: str) -> bool:
        """Async twin of `delete`."""
        return await self._arun(self._operations.delete(conversation_id))

    def acting_as(self, actor: str) -> Self:
        """Return this manager for somebody else than the `gateway`: the history names `actor` for its changes."""
        manager = copy(self)
        manager._actor = actor
        return manager

    @property
    def _operations(self) -> Operations:
        return Operations(self._store, self.ttl_seconds, self._actor)


sessions = SessionManager()
"""The manager of the configured cache; what most projects need."""
