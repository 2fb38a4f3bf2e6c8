"""Sessions in Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError, ResponseError

from sessions_sticky import keys, metrics
from sessions_sticky.connections.cluster.client import RedisCluster
from sessions_sticky.connections.commands import Command, Request, Script
from sessions_sticky.connections.standalone import RedisServer
from sessions_sticky.exceptions import SessionStoreUnavailable
from sessions_sticky.stores import index
from sessions_sticky.stores.history import Change
from sessions_sticky.stores.local_cache import LastSeen

if TYPE_CHECKING:
    from django_redis.cache import RedisCache

    from sessions_sticky.session import Session

WRONG_TYPE = b""
"""What reading a key of another Redis type gives: an empty value, which is no session either."""

BIND = Script("util", "index_entry", "read_session", "record_change", "bind")
PUT = Script("util", "index_entry", "read_session", "record_change", "set")
REPLACE = Script("util", "index_entry", "read_session", "record_change", "replace")
REMOVE = Script("util", "index_entry", "read_session", "record_change", "remove")


class RedisStore:
    """Sessions in Redis through django-redis's native clients; see `Store`."""

    def __init__(self, cache: RedisCache) -> None:
        self.last_seen = LastSeen()
        self.quiet_until: dict[type, float] = {}
        self.refreshed: index.Refreshed | None = index.Refreshed()
        self._servers = RedisCluster(cache) if RedisCluster.serves(cache) else RedisServer(cache)

    def read(self, key: str) -> Command:
        return Command(("GET", key))

    def read_and_touch(self, key: str, ttl: int) -> Command:
        return Command(("GETEX", key, "EX", ttl))

    def bind(self, session: Session, unreadable: bytes | None, ttl: int, *, reason: str, actor: str) -> Command:
        args = (session.to_json(), "" if unreadable is None else "1", unreadable or b"")
        what = Change("created", None, session, reason, actor)
        return index.change(BIND, session.id, ttl, what, *args, counted=True)

    def put(self, session: Session, ttl: int, *, actor: str) -> Command:
        what = Change("created", None, session, "", actor)
        return index.change(PUT, session.id, ttl, what, session.to_json(), counted=True)

    def replace(self, before: Session, raw: bytes, after: Session, ttl: int, *, reason: str, actor: str) -> Command:
        what = Change("rebound", before, after, reason, actor)
        return index.change(REPLACE, before.id, ttl, what, raw, after.to_json())

    def remove(self, conversation_id: str, before: Session | None, raw: bytes, ttl: int, *, actor: str) -> Command:
        return index.change(REMOVE, conversation_id, ttl, Change("deleted", before, None, "", actor), raw)

    def mark_deleted(self, conversation_id: str, ttl: int) -> Command:
        return Command(("SET", keys.deleted(conversation_id), b"1", "EX", ttl))

    def expiry(self, key: str) -> Command:
        return Command(("PTTL", key))

    def send(self, request: Request) -> Any:
        try:
            return _replies(request, self._servers.send(request))
        except (RedisError, OSError) as exc:
            return _read_error(exc)

    async def asend(self, request: Request) -> Any:
        try:
            return _replies(request, await self._servers.asend(request))
        except (RedisError, OSError) as exc:
            return _read_error(exc)


def _replies(request: Request, reply: Any) -> Any:
    if isinstance(request, Command):
        return reply
    return [_read_error(part) if isinstance(part, Exception) else part for part in reply]


def _read_error(exc: Exception) -> bytes:
    """Tell a poisoned key, which is an answer, from a store that gives none."""
    if isinstance(exc, ResponseError) and str(exc).startswith("WRONGTYPE"):
        return WRONG_TYPE
    if isinstance(exc, SessionStoreUnavailable):
        raise exc
    metrics.store_failed(type(exc).__name__)
    raise SessionStoreUnavailable.because(exc) from exc
