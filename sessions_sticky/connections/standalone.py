"""One Redis, or whichever of several is the primary now: sending commands and scripts to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from redis.exceptions import NoScriptError, RedisError, ResponseError

from sessions_sticky.connections import async_pools, pipeline
from sessions_sticky.connections.async_client import AsyncRedis
from sessions_sticky.connections.breaker import Breaker
from sessions_sticky.connections.commands import Batch, Command, Everywhere, Request, Script

if TYPE_CHECKING:
    import redis
    from django_redis.cache import RedisCache


class RedisServer:
    """The server of a django-redis cache.

    Both methods raise `redis.RedisError` or `OSError`, and `SessionStoreUnavailable` while nobody may ask. In a batch's
    replies an error stands in the place of the command that met it.
    """

    def __init__(self, cache: RedisCache) -> None:
        self._client: redis.Redis = cache.client.get_client(write=True)
        self._async_client = AsyncRedis(lambda: async_pools.for_cache(cache))
        self._breaker = Breaker()
        self._loaded: set[str] = set()

    def send(self, request: Request) -> Any:
        """Send and wait."""
        self._breaker.check()
        try:
            reply = self._send_batch(request) if isinstance(request, Batch) else self._send_one(request)
        except (RedisError, OSError) as exc:
            self._breaker.note(exc)
            raise
        self._breaker.note()
        return reply

    async def asend(self, request: Request) -> Any:
        """Send without blocking the event loop."""
        self._breaker.check()
        try:
            reply = await (self._asend_batch(request) if isinstance(request, Batch) else self._asend_one(request))
        except (RedisError, OSError) as exc:
            self._breaker.note(exc)
            raise
        self._breaker.note()
        return reply

    def _send_one(self, request: Command | Everywhere) -> Any:
        if isinstance(request, Everywhere):
            return [self._send_one(request.command)]
        (reply,) = self._exchange([request])
        if isinstance(reply, NoScriptError):
            (reply,) = self._exchange([Script.with_source(request, reply)])
        if isinstance(reply, ResponseError):
            try:
                raise reply
            finally:
                del reply  # or it and this frame would keep each other
        return reply

    async def _asend_one(self, request: Command | Everywhere) -> Any:
        if isinstance(request, Everywhere):
            return [await self._asend_one(request.command)]
        try:
            return await self._async_client.execute(request)
        except NoScriptError as exc:
            return await self._async_client.execute(Script.with_source(request, exc))

    def _send_batch(self, batch: Batch, *, again: bool = True) -> list[Any]:
        for load in self._loads(batch):
            self._send_one(load)
        replies = self._exchange(batch.commands)
        if again and (unknown := self._forgotten(batch, replies)):
            part = Batch([batch.commands[at] for at in unknown])
            _put(replies, unknown, self._send_batch(part, again=False))
        return replies

    def _exchange(self, commands: Sequence[Command]) -> list[Any]:
        pool = self._client.connection_pool
        connection = pool.get_connection()

        def exchange() -> list[Any]:
            pipeline.write(connection, commands)
            return pipeline.read(connection, len(commands))

        try:
            replies: list[Any] = connection.retry.call_with_retry(exchange, lambda error: connection.disconnect())
            return replies
        except BaseException:  # stopped half-way: the replies that are still to come would be taken for others
            connection.disconnect()
            raise
        finally:
            pool.release(connection)

    async def _asend_batch(self, batch: Batch, *, again: bool = True) -> list[Any]:
        for load in self._loads(batch):
            await self._asend_one(load)
        replies = await self._async_client.execute_many(batch.commands)
        if again and (unknown := self._forgotten(batch, replies)):
            part = Batch([batch.commands[at] for at in unknown])
            _put(replies, unknown, await self._asend_batch(part, again=False))
        return replies

    def _loads(self, batch: Batch) -> list[Command]:
        """Return what makes the scripts of a batch known, the first time; fakeredis hangs up on an error within one."""
        called = _scripts(batch.commands) - self._loaded
        self._loaded |= called
        return [Script.known[sha].load for sha in called]

    def _forgotten(self, batch: Batch, replies: Sequence[Any]) -> list[int]:
        """Return the places of the scripts that a server, restarted since, does not know any more."""
        unknown = [at for at, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        self._loaded -= _scripts([batch.commands[at] for at in unknown])
        return unknown


def _scripts(commands: Sequence[Command]) -> set[str]:
    return {command.args[1] for command in commands if command.args[0] == "EVALSHA"}


def _put(replies: list[Any], places: Sequence[int], parts: Sequence[Any]) -> None:
    for at, reply in zip(places, parts, strict=True):
        replies[at] = reply
