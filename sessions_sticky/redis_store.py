"""Sessions in Redis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from redis.exceptions import NoScriptError, RedisError, ResponseError

from sessions_sticky import index, keys, metrics
from sessions_sticky.async_redis import AsyncRedis
from sessions_sticky.breaker import Breaker
from sessions_sticky.commands import Batch, Command, Script
from sessions_sticky.exceptions import SessionStoreUnavailable
from sessions_sticky.history import Change
from sessions_sticky.last_seen import LastSeen

if TYPE_CHECKING:
    import redis
    from django_redis.cache import RedisCache

    from sessions_sticky.session import Session

WRONG_TYPE = b""
"""What reading a key of another Redis type gives: an empty value, which is no session either."""

BIND = Script("order", "entry", "record", "bind")
PUT = Script("order", "entry", "record", "put")
REPLACE = Script("order", "entry", "record", "replace")
REMOVE = Script("order", "entry", "record", "remove")


class RedisStore:
    """Sessions in Redis through django-redis's native clients; see `Store`."""

    def __init__(self, cache: RedisCache) -> None:
        self.last_seen = LastSeen()
        self.refreshed: index.Refreshed | None = index.Refreshed()
        self._client: redis.Redis = cache.client.get_client(write=True)
        self._async_client = AsyncRedis(cache)
        self._breaker = Breaker()
        self._loaded: set[str] = set()

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

    def send(self, request: Command | Batch) -> Any:
        self._admit()
        try:
            reply = self._send_batch(request) if isinstance(request, Batch) else self._send_one(request)
        except (RedisError, OSError) as exc:
            return self._read_error(exc)
        self._breaker.answered()
        return reply

    async def asend(self, request: Command | Batch) -> Any:
        self._admit()
        try:
            reply = await (self._asend_batch(request) if isinstance(request, Batch) else self._asend_one(request))
        except (RedisError, OSError) as exc:
            return self._read_error(exc)
        self._breaker.answered()
        return reply

    def _send_one(self, command: Command) -> Any:
        try:
            return self._client.execute_command(*command.args)
        except NoScriptError as exc:
            return self._client.execute_command(*Script.with_source(command, exc).args)

    async def _asend_one(self, command: Command) -> Any:
        try:
            return await self._async_client.execute(command)
        except NoScriptError as exc:
            return await self._async_client.execute(Script.with_source(command, exc))

    def _send_batch(self, batch: Batch) -> list[Any]:
        for load in self._loads(batch):
            self._send_one(load)
        with self._client.pipeline(transaction=False) as pipeline:
            for command in batch.commands:
                pipeline.execute_command(*command.args)
            replies: list[Any] = pipeline.execute(raise_on_error=False)
        unknown = _without_script(replies)
        if unknown:
            replies[unknown[0]] = self._send_one(batch.commands[unknown[0]])
            for at, reply in zip(unknown[1:], self._send_batch(_part(batch, unknown[1:])), strict=True):
                replies[at] = reply
        return [_reply(reply) for reply in replies]

    async def _asend_batch(self, batch: Batch) -> list[Any]:
        for load in self._loads(batch):
            await self._asend_one(load)
        replies = await self._async_client.execute_many(batch.commands)
        unknown = _without_script(replies)
        if unknown:
            replies[unknown[0]] = await self._asend_one(batch.commands[unknown[0]])
            for at, reply in zip(unknown[1:], await self._asend_batch(_part(batch, unknown[1:])), strict=True):
                replies[at] = reply
        return [_reply(reply) for reply in replies]

    def _loads(self, batch: Batch) -> list[Command]:
        """Return what makes the scripts of a batch known, the first time; fakeredis hangs up on an error within one."""
        called = {command.args[1] for command in batch.commands if command.args[0] == "EVALSHA"} - self._loaded
        self._loaded |= called
        return [Command(("SCRIPT", "LOAD", Script.sources[sha])) for sha in called]

    def _admit(self) -> None:
        if not self._breaker.admit():
            raise SessionStoreUnavailable("The session store did not answer a moment ago; not tried again yet")

    def _read_error(self, exc: Exception) -> bytes:
        """Tell a poisoned key, which is an answer, from a store that gives none."""
        if isinstance(exc, ResponseError):
            self._breaker.answered()  # refusing costs no time: the next caller may ask
            if _is_wrong_type(exc):
                return WRONG_TYPE
        else:
            self._breaker.failed()
        metrics.store_failed(type(exc).__name__)
        raise SessionStoreUnavailable.because(exc) from exc


def _without_script(replies: Sequence[Any]) -> list[int]:
    return [at for at, reply in enumerate(replies) if isinstance(reply, NoScriptError)]


def _part(batch: Batch, places: Sequence[int]) -> Batch:
    return Batch([batch.commands[at] for at in places])


def _is_wrong_type(exc: Exception) -> bool:
    return str(exc).startswith("WRONGTYPE")


def _reply(reply: Any) -> Any:
    if isinstance(reply, Exception):
        if not _is_wrong_type(reply):
            raise reply
        return WRONG_TYPE
    return reply
