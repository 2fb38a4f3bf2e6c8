"""One Redis, or whichever of several is the primary now: sending commands and scripts to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from hiredis import pack_command
from redis.exceptions import NoScriptError, ReadOnlyError, RedisError, ResponseError

from sessions_sticky.connections.async_client import AsyncRedis, pool_for_cache
from sessions_sticky.connections.breaker import Breaker
from sessions_sticky.connections.commands import AllPrimaries, Batch, Command, RedisRequest, Script, ScriptCall

if TYPE_CHECKING:
    import redis
    from django_redis.cache import RedisCache
    from redis import Connection


PART_BYTES = 16_384
"""Written at a time: what Redis reads at a time, so that it works on the first part while we pack the next."""


class RedisServer:
    """The server of a django-redis cache.

    Both methods raise `redis.RedisError` or `OSError`, and `SessionStoreUnavailable` while nobody may ask. In a batch's
    replies an error stands in the place of the command that met it.
    """

    def __init__(self, cache: RedisCache) -> None:
        self._client: redis.Redis = cache.client.get_client(write=True)
        self._async_client = AsyncRedis(lambda: pool_for_cache(cache))
        self._breaker = Breaker()
        self._loaded: set[Script] = set()

    def send(self, request: RedisRequest) -> Any:
        """Send and wait."""
        self._breaker.check()
        try:
            reply = self._send(request)
        except (RedisError, OSError) as exc:
            self._breaker.note(exc)
            raise
        self._breaker.note()
        return reply

    async def asend(self, request: RedisRequest) -> Any:
        """Send without blocking the event loop."""
        self._breaker.check()
        try:
            reply = await self._asend(request)
        except (RedisError, OSError) as exc:
            self._breaker.note(exc)
            raise
        self._breaker.note()
        return reply

    def _send(self, request: RedisRequest) -> Any:
        if isinstance(request, Batch):
            return self._send_batch(request)
        if isinstance(request, AllPrimaries):
            return [self._send(request.command)]
        (reply,) = self._exchange([request])
        if isinstance(reply, NoScriptError) and isinstance(request, ScriptCall):
            (reply,) = self._exchange([request.with_source])
        if isinstance(reply, ResponseError):
            try:
                raise reply
            finally:
                del reply  # or it and this frame would keep each other
        return reply

    async def _asend(self, request: RedisRequest) -> Any:
        if isinstance(request, Batch):
            return await self._asend_batch(request)
        if isinstance(request, AllPrimaries):
            return [await self._asend(request.command)]
        try:
            return await self._async_client.execute(request)
        except NoScriptError:
            if not isinstance(request, ScriptCall):
                raise
            return await self._async_client.execute(request.with_source)

    def _send_batch(self, batch: Batch, *, again: bool = True) -> list[Any]:
        for load in self._loads(batch):
            self._send(load)
        replies = self._exchange(batch.commands)
        if again and (unknown := self._forgotten(batch, replies)):
            part = Batch([batch.commands[at] for at in unknown])
            _put(replies, unknown, self._send_batch(part, again=False))
        return replies

    def _exchange(self, commands: Sequence[Command[Any]]) -> list[Any]:
        pool = self._client.connection_pool
        connection = pool.get_connection()

        def exchange() -> list[Any]:
            write(connection, commands)
            return read(connection, len(commands))

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
            await self._asend(load)
        replies = await self._async_client.execute_many(batch.commands)
        if again and (unknown := self._forgotten(batch, replies)):
            part = Batch([batch.commands[at] for at in unknown])
            _put(replies, unknown, await self._asend_batch(part, again=False))
        return replies

    def _loads(self, batch: Batch) -> list[Command[Any]]:
        """Return what makes the scripts of a batch known, the first time; fakeredis hangs up on an error within one."""
        called = _scripts(batch.commands) - self._loaded
        self._loaded |= called
        return [script.load for script in called]

    def _forgotten(self, batch: Batch, replies: Sequence[Any]) -> list[int]:
        """Return the places of the scripts that a server, restarted since, does not know any more."""
        unknown = [at for at, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        self._loaded -= _scripts([batch.commands[at] for at in unknown])
        return unknown


def _scripts(commands: Sequence[Command[Any]]) -> set[Script]:
    return {command.script for command in commands if isinstance(command, ScriptCall)}


def _put(replies: list[Any], places: Sequence[int], parts: Sequence[Any]) -> None:
    for at, reply in zip(places, parts, strict=True):
        replies[at] = reply


def write(connection: Connection, commands: Iterable[Command[Any]]) -> None:
    """Send commands, to be followed by `read`."""
    connection.send_packed_command(_parts(commands))


def read(connection: Connection, number: int) -> list[Any]:
    """Return the replies to as many commands, as Redis gives them; a `ResponseError` stands in the place of one."""
    return [_reply(connection) for _ in range(number)]


def _reply(connection: Connection) -> Any:
    try:
        return connection.read_response()
    except ResponseError as exc:
        if isinstance(exc, ReadOnlyError):  # no primary any more; a new connection may lead to the one that is
            connection.mark_for_reconnect()
        return exc


def _parts(commands: Iterable[Command[Any]]) -> Iterator[bytes]:
    part = bytearray()
    for command in commands:
        part += pack_command(command.args)
        if len(part) >= PART_BYTES:
            yield bytes(part)
            part.clear()
    yield bytes(part)
