"""Send commands and scripts to the servers of a Redis Cluster that hold their keys."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import Any

from django_redis.cache import RedisCache
from redis import Connection, ConnectionPool
from redis.exceptions import ClusterDownError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from sessions_sticky.connections import standalone
from sessions_sticky.connections.async_client import AsyncRedis, new_pool
from sessions_sticky.connections.breaker import Breaker
from sessions_sticky.connections.cluster.connection_factory import ClusterConnectionFactory
from sessions_sticky.connections.cluster.slot_map import (
    CLUSTER_SLOTS,
    FAILURES,
    Answers,
    At,
    CommandsByNode,
    Slots,
    exchange,
)
from sessions_sticky.connections.commands import AllPrimaries, Batch, Command, RedisRequest, run
from sessions_sticky.connections.url import Address, read_url
from sessions_sticky.exceptions import SessionStoreUnavailable

_BEGIN: Any = None
"""The value that starts a generator."""

Exchanges = Generator[CommandsByNode, Answers, list[Any]]
SendAll = Callable[[CommandsByNode], Awaitable[Answers]]
RunAll = Callable[[Sequence[Command[Any]], Slots], Exchanges]
"""Runs commands in steps, each on the server of its keys."""


class RedisCluster:
    """The servers of a django-redis cache on a Redis Cluster; see `RedisServer` for the methods."""

    def __init__(self, cache: RedisCache, run_all: RunAll, reply_seconds: float | None = None) -> None:
        self._cache = cache
        self._reply_seconds = reply_seconds
        self._run_all = run_all
        self._urls = read_url(cache.client._server[0])
        self._slots = Slots(self._urls.addresses)
        self._nodes: dict[Address, _Node] = {}

    @staticmethod
    def serves(cache: RedisCache) -> bool:
        """Return whether a cache is on a cluster."""
        return isinstance(cache.client.connection_factory, ClusterConnectionFactory)

    def send(self, request: RedisRequest) -> Any:
        """Send with blocking calls."""
        return run(self._send(request, self._send_all))

    def asend(self, request: RedisRequest) -> Awaitable[Any]:
        """Send without blocking the event loop."""
        return self._send(request, self._asend_all)

    async def _send(self, request: RedisRequest, send_all: SendAll) -> Any:
        candidates = self._slots.refresh_candidates()
        for address in candidates:
            ((reply,),) = (await send_all({address: [CLUSTER_SLOTS]})).values()
            if self._accept_slots(reply, address, is_last=address == candidates[-1]):
                break
        exchanges, answers = self._exchanges(request), _BEGIN
        while True:
            try:
                answers = await send_all(exchanges.send(answers))
            except StopIteration as done:
                return _reply(request, done.value)

    def _exchanges(self, request: RedisRequest) -> Exchanges:
        if isinstance(request, AllPrimaries):
            return exchange([At(address, request.command) for address in self._slots.primaries], self._slots)
        return self._run_all(request.commands if isinstance(request, Batch) else [request], self._slots)

    def _accept_slots(self, reply: Any, source: Address, *, is_last: bool) -> bool:
        """Update the slot map. Return whether to stop asking further nodes; also after a timeout."""
        if isinstance(reply, Exception):
            self._slots.deprioritize(source)
            if not self._slots.primaries and is_last:
                raise reply
            return isinstance(reply, RedisTimeoutError) and bool(self._slots.primaries)
        self._slots.read(reply, source)
        return True

    async def _send_all(self, by_node: CommandsByNode) -> Answers:
        """Write to all servers, then read from all with blocking calls, so that they work in parallel."""
        written: dict[Address, Connection | Exception] = {}
        try:
            for address, commands in by_node.items():
                written[address] = self._node(address).write(commands)
            return self._note_failures(
                {address: self._node(address).read(written.pop(address), len(by_node[address])) for address in by_node}
            )
        finally:
            for address, unread in written.items():  # interrupted before they were read
                self._node(address).discard(unread)

    async def _asend_all(self, by_node: CommandsByNode) -> Answers:
        exchanges = (self._node(address).aexchange(commands) for address, commands in by_node.items())
        return self._note_failures(dict(zip(by_node, await asyncio.gather(*exchanges), strict=True)))

    def _note_failures(self, answers: Answers) -> Answers:
        for address, replies in answers.items():
            errors = [reply for reply in replies if isinstance(reply, Exception)]
            if errors:
                self._slots.mark_stale()
            # CLUSTERDOWN: cut off from the others, the node reports its outdated state.
            if any(not isinstance(error, ResponseError) or isinstance(error, ClusterDownError) for error in errors):
                self._slots.deprioritize(address)
        return answers

    def _node(self, address: Address) -> _Node:
        if address not in self._nodes:
            self._nodes[address] = _Node(self._cache, self._urls.node_url(*address), self._reply_seconds)
        return self._nodes[address]


class _Node:
    """One server; an error replaces the reply of a failed command."""

    def __init__(self, cache: RedisCache, url: str, reply_seconds: float | None) -> None:
        factory = cache.client.connection_factory
        params = standalone.params_with_timeout(factory, url, reply_seconds)
        self._pool = ConnectionPool.from_url(**params, **factory.pool_cls_kwargs)
        self._async_client = AsyncRedis(lambda: new_pool(factory, url))
        self._breaker = Breaker(measured=reply_seconds is None)

    def write(self, commands: Sequence[Command[Any]]) -> Connection | Exception:
        """Send commands; call `read` afterwards."""
        try:
            self._breaker.admit()
            connection = self._pool.get_connection()
            try:
                standalone.write(connection, commands)
            except BaseException:
                self._disconnect(connection)
                raise
        except FAILURES as exc:
            return self._note(exc)
        return connection

    def read(self, written: Connection | Exception, number: int) -> list[Any]:
        """Return the replies to the written commands."""
        if isinstance(written, Exception):
            return [written] * number
        try:
            replies = standalone.read(written, number)
        except BaseException as exc:  # the connection has unread replies
            self._disconnect(written)
            if isinstance(exc, FAILURES):
                return [self._note(exc)] * number
            raise
        self._pool.release(written)
        self._breaker.record()
        return replies

    def discard(self, written: Connection | Exception) -> None:
        """Discard the replies to the written commands."""
        if isinstance(written, Connection):
            self._disconnect(written)

    async def aexchange(self, commands: Sequence[Command[Any]]) -> list[Any]:
        """Send commands and return the replies."""
        try:
            self._breaker.admit()
            replies = list(await self._async_client.exchange(commands))
        except FAILURES as exc:
            return [self._note(exc)] * len(commands)
        self._breaker.record()
        return replies

    def _note(self, exc: Exception) -> Exception:
        if not isinstance(exc, SessionStoreUnavailable):  # raised by the breaker
            self._breaker.record(exc)
        return exc

    def _disconnect(self, connection: Connection) -> None:
        connection.disconnect()
        self._pool.release(connection)


def _reply(request: RedisRequest, replies: list[Any]) -> Any:
    if not isinstance(request, Command):
        return replies
    if isinstance(replies[0], Exception):
        raise replies[0]
    return replies[0]
