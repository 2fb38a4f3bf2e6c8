"""Send commands and scripts to one Redis, or to the current primary of several."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any

from asgiref.sync import sync_to_async
from django_redis.cache import RedisCache
from hiredis import pack_command
from redis import Connection, ConnectionPool
from redis.exceptions import NoScriptError, ReadOnlyError, RedisError, ResponseError

from sessions_sticky.connections.async_client import AsyncRedis, has_async_form, new_pool
from sessions_sticky.connections.breaker import Breaker
from sessions_sticky.connections.commands import (
    AllPrimaries,
    Batch,
    Command,
    RedisRequest,
    Script,
    ScriptCall,
    run,
)

PART_BYTES = 16_384
"""Size of a write: Redis reads as much at a time, so it works on one part while the next is packed."""


Exchange = Callable[[Sequence[Command[Any]]], Awaitable[Sequence[Any]]]
"""Sends commands and returns the replies, with errors in the place of failed ones."""


class RedisServer:
    """The server of a django-redis cache.

    Both methods raise `redis.RedisError` or `OSError`, and `SessionStoreUnavailable` while the circuit breaker is
    open. In the replies of a batch an error replaces the reply of a failed command.
    """

    def __init__(self, cache: RedisCache, reply_seconds: float | None = None) -> None:
        """Open separate connections if replies may take `reply_seconds`, else use those of the cache."""
        factory, url = cache.client.connection_factory, cache.client._server[0]
        self._pool: ConnectionPool = (
            cache.client.get_client(write=True).connection_pool
            if reply_seconds is None
            else factory.get_connection_pool(params_with_timeout(factory, url, reply_seconds))
        )
        # Another connection factory, such as django-redis's own for Sentinel, has only blocking connections.
        self._async_client = AsyncRedis(lambda: new_pool(factory, url)) if has_async_form(factory) else None
        self._breaker = Breaker(measured=reply_seconds is None)
        self._loaded: set[Script] = set()

    def send(self, request: RedisRequest) -> Any:
        """Send with blocking calls."""
        return run(self._send(request, self._exchange))

    def asend(self, request: RedisRequest) -> Awaitable[Any]:
        """Send without blocking the event loop."""
        if self._async_client is None:
            return sync_to_async(self.send, thread_sensitive=False)(request)
        return self._send(request, self._async_client.exchange)

    async def _send(self, request: RedisRequest, exchange: Exchange) -> Any:
        self._breaker.admit()
        try:
            if isinstance(request, Batch):
                reply = await self._send_batch(request.commands, exchange)
            elif isinstance(request, AllPrimaries):
                reply = [await self._send_command(request.command, exchange)]
            else:
                reply = await self._send_command(request, exchange)
        except (RedisError, OSError) as exc:
            self._breaker.record(exc)
            raise
        self._breaker.record()
        return reply

    async def _send_command(self, command: Command[Any], exchange: Exchange) -> Any:
        (reply,) = await exchange([command])
        if isinstance(reply, NoScriptError) and isinstance(command, ScriptCall):
            (reply,) = await exchange([command.with_source])
        if isinstance(reply, ResponseError):
            try:
                raise reply
            finally:
                del reply  # break the reference cycle with this frame
        return reply

    async def _send_batch(
        self, commands: Sequence[Command[Any]], exchange: Exchange, *, again: bool = True
    ) -> list[Any]:
        new = _scripts(commands) - self._loaded
        self._loaded |= new
        for script in new:  # before its first call: fakeredis disconnects on an error in a pipeline
            await self._send_command(script.load, exchange)
        replies = list(await exchange(commands))
        unknown = [at for at, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if again and unknown:  # the server was restarted
            part = [commands[at] for at in unknown]
            self._loaded -= _scripts(part)
            for at, reply in zip(unknown, await self._send_batch(part, exchange, again=False), strict=True):
                replies[at] = reply
        return replies

    async def _exchange(self, commands: Sequence[Command[Any]]) -> list[Any]:
        """Write and read in blocking calls."""
        connection = self._pool.get_connection()

        def exchange() -> list[Any]:
            write(connection, commands)
            return read(connection, len(commands))

        try:
            replies: list[Any] = connection.retry.call_with_retry(exchange, lambda error: connection.disconnect())
            return replies
        except BaseException:  # interrupted: the connection has unread replies
            connection.disconnect()
            raise
        finally:
            self._pool.release(connection)


def params_with_timeout(factory: Any, url: str, reply_seconds: float | None) -> dict[str, Any]:
    """Return the parameters of connections of a django-redis factory, whose replies may take `reply_seconds`."""
    params: dict[str, Any] = factory.make_connection_params(url)
    if reply_seconds is not None:
        params["socket_timeout"] = max(reply_seconds, params.get("socket_timeout") or reply_seconds)
    return params


def _scripts(commands: Sequence[Command[Any]]) -> set[Script]:
    return {command.script for command in commands if isinstance(command, ScriptCall)}


def write(connection: Connection, commands: Iterable[Command[Any]]) -> None:
    """Send commands; call `read` afterwards."""
    connection.send_packed_command(_parts(commands))


def read(connection: Connection, number: int) -> list[Any]:
    """Return the raw replies to as many commands; a `ResponseError` is a reply."""
    return [_reply(connection) for _ in range(number)]


def _reply(connection: Connection) -> Any:
    try:
        return connection.read_response()
    except ResponseError as exc:
        if isinstance(exc, ReadOnlyError):  # no longer the primary; a new connection finds it
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
