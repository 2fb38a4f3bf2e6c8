"""`SessionManager`: keeps a conversation on its provider. The only place where policy lives.

Each operation is a generator: it yields requests of the store and is resumed with their replies, so the same lines
serve the blocking methods and their `a`-prefixed twins, which run natively on the event loop (on Redis; other caches
go through a thread). Twins share signature, result and errors.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Generator
from enum import Enum
from typing import Any, NamedTuple, TypeVar

from django.core.cache.backends.base import BaseCache

from sessions_sticky import keys, store
from sessions_sticky.conf import check_ttl_seconds, conf
from sessions_sticky.exceptions import (
    InvalidSession,
    SessionConflict,
    SessionOwnerMismatch,
    SessionStoreUnavailable,
)
from sessions_sticky.session import Entry, Session

logger = logging.getLogger("sessions_sticky")

T = TypeVar("T")
Operation = Generator[Any, Any, T]


class Outcome(str, Enum):
    """How `resolve` came by its session."""

    HIT = "hit"
    CREATED = "created"
    DEGRADED = "degraded"


class Resolution(NamedTuple):
    """What `resolve` answers."""

    session: Session
    outcome: Outcome


class SessionManager:
    """Sessions in one Django cache. Safe to share between threads, tasks and event loops.

    `cache` is a Django cache or an alias; None takes `SESSIONS_STICKY["CACHE"]`. `ttl_seconds` is the idle time after
    which a session is gone; None takes `SESSION_TTL_SECONDS`. Settings are read at each call; nothing is opened
    before the first. Raises `ValueError` for a `ttl_seconds` that is not a whole number from 1 up.

    Every method raises `InvalidConversationId` for an id that cannot name a conversation, and, except where it says
    otherwise, `SessionStoreUnavailable` when the store does not answer within the cache's timeout.
    """

    def __init__(self, cache: BaseCache | str | None = None, ttl_seconds: int | None = None) -> None:
        self._alias = cache if isinstance(cache, str) else None
        self._fixed_store = store.for_cache(cache) if isinstance(cache, BaseCache) else None
        self._ttl_seconds = None if ttl_seconds is None else check_ttl_seconds(ttl_seconds)

    @property
    def ttl_seconds(self) -> int:
        """The idle time of a session in seconds."""
        return conf.ttl_seconds if self._ttl_seconds is None else self._ttl_seconds

    def get(self, conversation_id: str) -> Session | None:
        """Return the session without extending it; None when it is missing, expired or unreadable."""
        return self._run(self._get(conversation_id))

    async def aget(self, conversation_id: str) -> Session | None:
        """Async twin of `get`."""
        return await self._arun(self._get(conversation_id))

    def inspect(self, conversation_id: str) -> Entry | None:
        """Return the session with its remaining idle time, without extending it; None as in `get`."""
        return self._run(self._inspect(conversation_id))

    async def ainspect(self, conversation_id: str) -> Entry | None:
        """Async twin of `inspect`."""
        return await self._arun(self._inspect(conversation_id))

    def create(self, conversation_id: str, provider: str, model: str, external_id: str) -> Session:
        """Bind unconditionally, with the full idle time, replacing any session there is.

        Raises `InvalidSession` when a value does not fit the wire format. Chats call `resolve` instead.
        """
        return self._run(self._create(conversation_id, provider, model, external_id))

    async def acreate(self, conversation_id: str, provider: str, model: str, external_id: str) -> Session:
        """Async twin of `create`."""
        return await self._arun(self._create(conversation_id, provider, model, external_id))

    def touch(self, conversation_id: str) -> bool:
        """Set the idle time back to full; False if there was no session. Never revives a deleted one."""
        return self._run(self._touch(conversation_id))

    async def atouch(self, conversation_id: str) -> bool:
        """Async twin of `touch`."""
        return await self._arun(self._touch(conversation_id))

    def resolve(self, conversation_id: str, *, provider: str, model: str, external_id: str) -> Resolution:
        """Return the bound session and extend it (HIT), or bind the proposed provider and model (CREATED).

        Atomic: of many callers the first binds and all get its session. One round trip to Redis on a hit, two on a
        first bind. When the store is unreachable the answer is the proposal, unstored (DEGRADED), or
        `SessionStoreUnavailable` with `ON_STORE_ERROR` set to `"raise"`. An unreadable value counts as no session
        and is replaced. Raises `SessionOwnerMismatch` for another owner's conversation (whose idle time the attempt
        extends: checking first would cost every hit a round trip), `InvalidSession` as `create` does.
        """
        return self._run(self._resolve(conversation_id, provider, model, external_id))

    async def aresolve(self, conversation_id: str, *, provider: str, model: str, external_id: str) -> Resolution:
        """Async twin of `resolve`."""
        return await self._arun(self._resolve(conversation_id, provider, model, external_id))

    def rebind(self, session: Session, *, provider: str, model: str, reason: str) -> Session:
        """Move a conversation to another provider or model, if it still is bound as in `session`.

        Compare-and-set, atomic. Keeps id, owner, `created_at` and what is left of the idle time. `reason` is for
        operators. Raises `SessionConflict` with the current binding when it has moved or is gone, `InvalidSession`,
        and `SessionNotSupported` on a cache other than django-redis.
        """
        return self._run(self._rebind(session, provider, model, reason))

    async def arebind(self, session: Session, *, provider: str, model: str, reason: str) -> Session:
        """Async twin of `rebind`."""
        return await self._arun(self._rebind(session, provider, model, reason))

    def delete(self, conversation_id: str) -> bool:
        """Unbind; False if there was nothing."""
        return self._run(self._delete(conversation_id))

    async def adelete(self, conversation_id: str) -> bool:
        """Async twin of `delete`."""
        return await self._arun(self._delete(conversation_id))

    # Operations: what the methods above do, without the doing.

    def _get(self, conversation_id: str) -> Operation[Session | None]:
        keys.check(conversation_id)
        raw = yield self._store.read(keys.session(conversation_id))
        return _readable(conversation_id, raw)

    def _inspect(self, conversation_id: str) -> Operation[Entry | None]:
        session = yield from self._get(conversation_id)
        if session is None:
            return None
        left_ms = yield self._store.expiry(keys.session(conversation_id))
        if left_ms == store.NO_KEY:
            return None
        return Entry(session, None if left_ms is None or left_ms < 0 else -(-left_ms // 1000))

    def _create(self, conversation_id: str, provider: str, model: str, external_id: str) -> Operation[Session]:
        keys.check(conversation_id)
        session = Session(conversation_id, provider, model, external_id, int(time.time()))
        yield self._store.write(keys.session(conversation_id), session.to_json(), self.ttl_seconds)
        _log("created", conversation_id)
        return session

    def _touch(self, conversation_id: str) -> Operation[bool]:
        keys.check(conversation_id)
        found = yield self._store.touch(keys.session(conversation_id), self.ttl_seconds)
        _log("touched" if found else "miss", conversation_id)
        return bool(found)

    def _resolve(self, conversation_id: str, provider: str, model: str, external_id: str) -> Operation[Resolution]:
        keys.check(conversation_id)
        key, ttl_seconds = keys.session(conversation_id), self.ttl_seconds
        proposal = None
        try:
            raw = yield self._store.read_and_touch(key, ttl_seconds)
            bound = _readable(conversation_id, raw)
            if bound is None:
                proposal = Session(conversation_id, provider, model, external_id, int(time.time()))
                bound = yield from self._bind(proposal, raw)
        except SessionStoreUnavailable as exc:
            if conf.on_store_error == "raise":
                raise
            logger.warning("degraded %r: %s", conversation_id, exc, extra={"conversation_id": conversation_id})
            proposal = proposal or Session(conversation_id, provider, model, external_id, int(time.time()))
            proposal.to_json()  # an invalid proposal is refused whether or not the store is there
            return Resolution(proposal, Outcome.DEGRADED)
        if bound is proposal:
            _log("created", conversation_id)
            return Resolution(bound, Outcome.CREATED)
        if bound.external_id != external_id:
            raise SessionOwnerMismatch(conversation_id)
        _log("hit", conversation_id)
        return Resolution(bound, Outcome.HIT)

    def _bind(self, proposal: Session, unreadable: bytes | None) -> Operation[Session]:
        """Store the proposal unless a session is there by now; return whichever is stored."""
        key, value, ttl_seconds = keys.session(proposal.id), proposal.to_json(), self.ttl_seconds
        while True:
            if unreadable is None:
                found = yield self._store.add(key, value, ttl_seconds)
            else:
                found = yield self._store.heal(key, unreadable, value, ttl_seconds)
            if found is None:
                return proposal
            if winner := _readable(proposal.id, found):
                return winner
            unreadable = found

    def _rebind(self, session: Session, provider: str, model: str, reason: str) -> Operation[Session]:
        keys.check(session.id)
        moved = Session(session.id, provider, model, session.external_id, session.created_at)
        value, expected = moved.to_json(), session.to_json()
        while True:
            done, found = yield self._store.replace(keys.session(session.id), expected, value, self.ttl_seconds)
            if done:
                break
            current = _readable(session.id, found)
            if current != session:
                raise SessionConflict(session.id, current)
            expected = found  # the same binding, as another program writes it
        logger.info(
            "rebound %r from %r, model %r, to %r, model %r: %r",
            *(session.id, session.provider, session.model, provider, model, reason),
            extra={"conversation_id": session.id},
        )
        return moved

    def _delete(self, conversation_id: str) -> Operation[bool]:
        keys.check(conversation_id)
        found = yield self._store.delete(keys.session(conversation_id))
        _log("deleted" if found else "miss", conversation_id)
        return bool(found)

    # Drivers: who sends an operation's requests.

    @property
    def _store(self) -> store.Store[Any]:
        return self._fixed_store or store.for_alias(self._alias or conf.cache)

    def _run(self, operation: Operation[T]) -> T:
        try:
            request = next(operation)
            while True:
                try:
                    reply = self._store.send(request)
                except SessionStoreUnavailable as exc:
                    request = operation.throw(exc)
                else:
                    request = operation.send(reply)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]

    async def _arun(self, operation: Operation[T]) -> T:
        try:
            request = next(operation)
            while True:
                try:
                    reply = await self._store.asend(request)
                except SessionStoreUnavailable as exc:
                    request = operation.throw(exc)
                else:
                    request = operation.send(reply)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]


def _readable(conversation_id: str, raw: bytes | None) -> Session | None:
    """Decode a stored value; None, and an error in the log, for what is no session of this conversation."""
    if raw is None:
        return None
    try:
        session = Session.from_json(raw)
        if session.id != conversation_id:
            raise InvalidSession("Not a session: its id is not that of its key")
    except InvalidSession as exc:
        logger.error("unreadable %r: %s", conversation_id, exc, extra={"conversation_id": conversation_id})
        return None
    return session


def _log(event: str, conversation_id: str) -> None:
    logger.debug("%s %r", event, conversation_id, extra={"conversation_id": conversation_id})


sessions = SessionManager()
"""The manager of the configured cache; what most projects need."""
