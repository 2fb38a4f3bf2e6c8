"""Redis on the event loop: commands of one loop iteration share a pipeline.

A connection belongs to the loop that opened it. Servers have one loop for life; tests and `async_to_sync` create many,
and the connections of each must be closed when it ends.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

from django_redis.pool import ConnectionFactory
from hiredis import pack_command
from redis.asyncio import Connection, ConnectionPool, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from sessions_sticky.connections import sentinel
from sessions_sticky.connections.commands import Command

MAX_PIPELINES = 2
"""Pipelines in flight on one loop, each on its own connection; further commands form the next one.

With more of them they are shorter, which takes more of the CPU: 4 % of a request of the gateway with 4."""
KEEP_SECONDS = 1.0
"""How long a pipeline's connection serves the next ones before it returns to the pool. redis-py's pool takes as long as
the pipeline, to check the connection and to authenticate it again."""


_Waiting = tuple[Sequence[Command[Any]], asyncio.Future[Sequence[Any]]]
"""Queued commands, and the future of their replies."""


class AsyncRedis:
    """Commands to one server, from any event loop; `new_pool` makes each loop's connection pool."""

    def __init__(self, new_pool: Callable[[], ConnectionPool]) -> None:
        self._new_pool = new_pool
        self._loop_pipelines: dict[asyncio.AbstractEventLoop, _LoopPipeline] = {}

    def exchange(self, commands: Sequence[Command[Any]]) -> Awaitable[Sequence[Any]]:
        """Send commands together and return their raw replies, including `ResponseError`s.

        Raises `redis.RedisError` or `OSError` if Redis did not answer all that is sent together within the cache's
        socket timeout. Cancelling the caller affects no other command.
        """
        pipeline = self._loop_pipelines.get(asyncio.get_running_loop())
        return self._open(commands) if pipeline is None else pipeline.enqueue(commands)

    async def _open(self, commands: Sequence[Command[Any]]) -> Sequence[Any]:
        loop = asyncio.get_running_loop()
        loops = list(self._loop_pipelines)  # other threads may add loops
        for other in [other for other in loops if other.is_closed()]:
            self._loop_pipelines.pop(other, None)  # closed without `shutdown_asyncgens`: asyncio frees the sockets
        pool = self._new_pool()
        pipeline = self._loop_pipelines[loop] = _LoopPipeline(pool, loop)
        pipeline.lifetime = _close_with(loop, pool, weakref.ref(self))
        await anext(pipeline.lifetime)
        return await pipeline.enqueue(commands)


class _LoopPipeline:
    """The queue and the pipelines of one event loop."""

    lifetime: AsyncGenerator[None]

    def __init__(self, pool: ConnectionPool, loop: asyncio.AbstractEventLoop) -> None:
        self._pool = pool
        self._loop = loop
        self._queue: list[_Waiting] = []
        self._pipelines: set[asyncio.Task[None]] = set()
        self._kept: list[tuple[AbstractConnection, float]] = []
        """Idle connections, and until when they are kept."""

    def enqueue(self, commands: Sequence[Command[Any]]) -> asyncio.Future[Sequence[Any]]:
        """Queue commands for the next pipeline; return the future of their replies."""
        future = self._loop.create_future()
        if not self._queue:
            self._loop.call_soon(self._flush)
        self._queue.append((commands, future))
        return future

    def _flush(self) -> None:
        if self._queue and len(self._pipelines) < MAX_PIPELINES:
            batch, self._queue = self._queue, []
            task = self._loop.create_task(self._exchange(batch))
            self._pipelines.add(task)
            task.add_done_callback(self._on_done)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._pipelines.discard(task)
        self._flush()

    async def _exchange(self, batch: list[_Waiting]) -> None:
        try:
            replies = iter(await self._send([command for commands, _ in batch for command in commands]))
        except Exception as exc:  # propagate any error to all waiting callers, also to those queued since
            waiting, self._queue = [*batch, *self._queue], []
            for _, future in waiting:
                if not future.done():
                    future.set_exception(exc)
        except BaseException:  # the loop is shutting down
            for _, future in batch:
                future.cancel()
            raise
        else:
            for commands, future in batch:
                its_replies = list(islice(replies, len(commands)))
                if not future.done():  # its caller was cancelled
                    future.set_result(its_replies)

    async def _send(self, commands: Sequence[Command[Any]]) -> Sequence[Any]:
        """Send in one write and read the replies; a `ResponseError` is a reply. Retries like redis-py's pipeline."""
        packed = b"".join(pack_command(command.args) for command in commands)
        connection, keep_until = await self._take()
        seconds = connection.socket_timeout

        async def exchange() -> list[Any]:
            if not connection.is_connected:
                await connection.connect()
            connection.socket_timeout = None  # redis-py's limits, of the write and of each reply, cost a third
            try:
                async with asyncio.timeout(seconds):
                    await connection.send_packed_command(packed)
                    return [await _reply(connection) for _ in commands]
            except TimeoutError as exc:
                raise RedisTimeoutError(f"No reply within {seconds} s") from exc
            finally:
                connection.socket_timeout = seconds

        async def disconnect(error: Exception) -> None:
            await connection.disconnect()

        try:
            replies: list[Any] = await connection.retry.call_with_retry(exchange, disconnect)
        except BaseException:  # cancelled: the connection has unread replies
            for kept, _ in self._kept:  # the server may have been replaced, which a new connection finds out
                kept.mark_for_reconnect()
            await connection.disconnect(nowait=True)
            await self._pool.release(connection)
            raise
        self._kept.append((connection, keep_until))
        return replies

    async def _take(self) -> tuple[AbstractConnection, float]:
        while self._kept:
            connection, keep_until = self._kept.pop()
            if self._loop.time() < keep_until and not connection.should_reconnect():
                return connection, keep_until
            with suppress(RedisError, OSError):  # from closing it or authenticating again; the pool checks it next
                await self._pool.release(connection)
        return await self._pool.get_connection(), self._loop.time() + KEEP_SECONDS


async def _close_with(
    loop: asyncio.AbstractEventLoop, pool: ConnectionPool, client: weakref.ref[AsyncRedis]
) -> AsyncGenerator[None]:
    # asyncio, uvloop, asgiref and pytest-asyncio all end a loop with `shutdown_asyncgens`, which resumes this generator
    # in its `finally`, while connections can still be closed cleanly. The same happens at once if the client is dropped
    # earlier, because this generator is not in a reference cycle with it.
    try:
        yield
    finally:
        if (dropped_from := client()) is not None:
            dropped_from._loop_pipelines.pop(loop, None)
        try:
            await pool.aclose()
        except (asyncio.CancelledError, GeneratorExit):
            # The loop ends while a dropped client closes: it cancels the task, and CPython throws GeneratorExit in here
            # when that had not begun. The other connections are still open.
            await pool.aclose()
            raise


async def _reply(connection: AbstractConnection) -> Any:
    try:
        return await connection.read_response()
    except ResponseError as exc:
        if isinstance(exc, ReadOnlyError):  # as in standalone.py
            connection.mark_for_reconnect()
        return exc.with_traceback(None)  # redis-py's frame in it holds the error, and so all that is added later


def has_async_form(factory: Any) -> bool:
    """Return whether `new_pool` knows the servers of a django-redis factory."""
    makes_pools_itself = type(factory).get_connection_pool is not ConnectionFactory.get_connection_pool
    return not makes_pools_itself or isinstance(factory, sentinel.SentinelConnectionFactory)


def new_pool(factory: Any, url: str) -> ConnectionPool:
    """Return an asynchronous connection pool like those of a django-redis factory, for a server or for Sentinels."""
    params = {**factory.make_connection_params(url), **getattr(factory, "pool_cls_kwargs", {})}
    for name in ("parser_class", "max_connections", "timeout"):  # of the blocking pool; MAX_PIPELINES is the bound here
        params.pop(name, None)
    params["retry"] = Retry(NoBackoff(), 1, (RedisConnectionError,))  # the server may have closed a kept connection
    if "connection_class" in params:
        params["connection_class"] = _async_connection_class(params["connection_class"])
    is_sentinel = isinstance(factory, sentinel.SentinelConnectionFactory)
    return sentinel.async_pool(params) if is_sentinel else ConnectionPool.from_url(**params)


def _async_connection_class(sync_class: type) -> type:
    name = sync_class.__name__
    if name.startswith("Fake"):
        from fakeredis import FakeAsyncRedisConnection

        return FakeAsyncRedisConnection
    twins = {cls.__name__: cls for cls in (SSLConnection, UnixDomainSocketConnection)}
    return next((twins[base.__name__] for base in sync_class.__mro__ if base.__name__ in twins), Connection)
