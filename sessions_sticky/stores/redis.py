"""Sessions in Redis."""

from __future__ import annotations

from copy import copy
from functools import cached_property
from typing import Any, cast

from django_redis.cache import RedisCache
from redis.exceptions import RedisError, ResponseError

from sessions_sticky import keys, metrics
from sessions_sticky.connections.cluster.client import RedisCluster
from sessions_sticky.connections.commands import Command, RedisRequest, ReplyT, Request, Script
from sessions_sticky.connections.standalone import RedisServer
from sessions_sticky.exceptions import SessionStoreUnavailable
from sessions_sticky.session import Session
from sessions_sticky.stores import cluster_steps, index
from sessions_sticky.stores.base import Replaced, deletion_time
from sessions_sticky.stores.history import PlannedChange
from sessions_sticky.stores.local_cache import LastSeen, LossDetector, OutageLog

OPERATOR_REPLY_SECONDS = 5.0
"""How long operators wait for a reply; a chat waits as long as the cache's timeout says."""
WRONG_TYPE = b""
"""The reply for a key of another Redis type: an empty value, which is not a valid session."""

BIND = Script("change", "bind")
SET = Script("change", "set")
REPLACE = Script("change", "replace")
REMOVE = Script("mark", "change", "remove")


class RedisStore:
    """Sessions in Redis through django-redis's native clients; see `Store`."""

    has_index = True

    def __init__(self, cache: RedisCache) -> None:
        self.last_seen = LastSeen()
        self.loss_detector = LossDetector()
        self.outages = OutageLog()
        self.refresh_tracker = index.RefreshTracker()
        self._cache = cache
        self._servers = self._connect(None)
        self._is_for_operators = False

    @property
    def operators(self) -> RedisStore:
        return self if self._is_for_operators else self._patient  # no cycle, whose connections only the collector closes

    @cached_property
    def _patient(self) -> RedisStore:
        store = copy(self)
        store._servers, store._is_for_operators = self._connect(OPERATOR_REPLY_SECONDS), True
        return store

    def _connect(self, reply_seconds: float | None) -> RedisCluster | RedisServer:
        if RedisCluster.serves(self._cache):
            return RedisCluster(self._cache, cluster_steps.run_all, reply_seconds)
        return RedisServer(self._cache, reply_seconds)

    def read(self, key: str) -> Command[bytes | None]:
        return Command(("GET", key))

    def read_and_touch(self, key: str, ttl: int) -> Command[bytes | None]:
        return Command(("GETEX", key, "EX", ttl))

    def bind(
        self, session: Session, unreadable: bytes | None, ttl: int, *, reason: str, actor: str
    ) -> Command[bytes | None]:
        script_args = (session.to_json(), "" if unreadable is None else "1", unreadable or b"")
        return index.change(BIND, session.id, ttl, PlannedChange("created", None, session, reason, actor), *script_args)

    def put(self, session: Session, ttl: int, *, actor: str) -> Command[bytes | None]:
        change = PlannedChange("created", None, session, "", actor)
        return index.change(SET, session.id, ttl, change, session.to_json())

    def replace(
        self,
        before: Session,
        raw: bytes,
        after: Session,
        ttl: int,
        *,
        reason: str,
        actor: str,
        operation: str = "",
        **bulk: Any,
    ) -> Command[Replaced]:
        change = PlannedChange("rebound", before, after, reason, actor, operation)
        return index.change(REPLACE, before.id, ttl, change, raw, after.to_json(), **bulk)

    def remove(
        self,
        conversation_id: str,
        before: Session | None,
        raw: bytes,
        ttl: int,
        *,
        actor: str,
        operation: str = "",
        **bulk: Any,
    ) -> Command[Replaced]:
        change = PlannedChange("deleted", before, None, "", actor, operation)
        return index.change(REMOVE, conversation_id, ttl, change, raw, deletion_time(before), **bulk)

    def mark_deleted(self, conversation_id: str, ttl: int) -> Command[Any]:
        return index.MARK_DELETED.call([keys.deleted(conversation_id)], deletion_time(None), ttl)

    def expiry(self, key: str) -> Command[int | None]:
        return Command(("PTTL", key))

    def send(self, request: Request[ReplyT]) -> ReplyT:
        try:
            return _checked(request, self._servers.send(cast("RedisRequest", request)))
        except (RedisError, OSError) as exc:
            return cast("ReplyT", _reply_or_raise(exc))

    async def asend(self, request: Request[ReplyT]) -> ReplyT:
        try:
            return _checked(request, await self._servers.asend(cast("RedisRequest", request)))
        except (RedisError, OSError) as exc:
            return cast("ReplyT", _reply_or_raise(exc))


def _checked(request: Request[ReplyT], reply: Any) -> ReplyT:
    if not isinstance(request, Command):
        reply = [_reply_or_raise(part) if isinstance(part, Exception) else part for part in reply]
    return cast("ReplyT", reply)


def _reply_or_raise(exc: Exception) -> bytes:
    """Return the reply for a key of another type, which is an answer; raise `SessionStoreUnavailable` otherwise."""
    if isinstance(exc, ResponseError) and str(exc).startswith("WRONGTYPE"):
        return WRONG_TYPE
    if isinstance(exc, SessionStoreUnavailable):
        raise exc
    metrics.store_failed(type(exc).__name__)
    raise SessionStoreUnavailable.because(exc) from exc
