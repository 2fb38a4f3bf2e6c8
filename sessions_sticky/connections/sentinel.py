"""Redis Sentinel: connections to the current primary.

A connection asks the Sentinels for the primary when it is opened, and is reopened if the server disconnects, refuses
writes or does not answer. Replicas are never read: they lag behind.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from django_redis.pool import ConnectionFactory
from redis import asyncio as aioredis
from redis import sentinel
from redis.asyncio import sentinel as async_sentinel
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.retry import Retry

from sessions_sticky.connections.url import REDIS_PORT, Address, read_url

REPLACED = "the primary was replaced while connecting to it"


class SentinelConnectionFactory(ConnectionFactory[Any, Any, Any]):  # type: ignore[misc]
    """django-redis connection factory for `redis+sentinel://` URLs.

    django-redis's own factory shares a pool between all Sentinels with the same service name, and lower-cases the name.
    """

    def get_connection_pool(self, params: dict[str, Any]) -> sentinel.SentinelConnectionPool:
        """Return a pool of connections to the primary."""
        service, addresses, own, options = _options(params | self.pool_cls_kwargs)
        own["retry"] = Retry(NoBackoff(), 0)
        sentinels = _Sentinel(addresses, sentinel_kwargs=own)  # type: ignore[no-untyped-call]
        kind = _SSLConnection if options.pop("ssl", False) else _Connection
        return sentinel.SentinelConnectionPool(service, sentinels, connection_class=kind, **options)


class _Sentinel(sentinel.Sentinel):
    """Find the primary as Redis's guidelines for clients require.

    redis-py reads `SENTINEL MASTERS`, which lists the replaced primary as healthy once it is back, until the failover
    is over. Its error for unreachable Sentinels contains every option of every client.
    """

    def discover_master(self, service_name: str) -> Address:
        for place, client in enumerate(self.sentinels):
            with suppress(RedisError):
                if found := client.sentinel_get_master_addr_by_name(service_name):
                    _ask_first(self.sentinels, place)
                    return _address(found)
        raise _not_found(service_name)


class _AsyncSentinel(async_sentinel.Sentinel):
    """The asynchronous twin of `_Sentinel`."""

    async def discover_master(self, service_name: str) -> Address:
        for place, client in enumerate(self.sentinels):
            with suppress(RedisError):
                if found := await client.sentinel_get_master_addr_by_name(service_name):
                    _ask_first(self.sentinels, place)
                    return _address(found)
        raise _not_found(service_name)


def _ask_first(sentinels: list[Any], place: int) -> None:
    """Move the Sentinel that answered to the front: those before it may be slow."""
    sentinels[0], sentinels[place] = sentinels[place], sentinels[0]


def _address(found: Any) -> Address:
    host, port = found
    return host.decode() if isinstance(host, bytes) else host, int(port)


def _not_found(service_name: str) -> sentinel.MasterNotFoundError:
    return sentinel.MasterNotFoundError(f"no reachable Sentinel reports a primary for {service_name!r}")


class _Connects:
    """A connection that leaves a replaced primary, and never returns the reply to another command.

    A primary that stalls, is replaced and returns accepts writes for seconds, all of which are lost. redis-py keeps
    using it when it reconnects to repeat a command, and after waiting for it.
    """

    def connect_check_health(self, *args: Any, **kwargs: Any) -> None:
        if self._sock:  # type: ignore[attr-defined]
            return
        address = self.host, self.port = self.connection_pool.get_master_address()  # type: ignore[attr-defined]
        super().connect_check_health(*args, **kwargs)  # type: ignore[misc]
        if self.connection_pool.get_master_address() != address:  # type: ignore[attr-defined]
            self.disconnect()  # type: ignore[attr-defined]
            raise RedisConnectionError(REPLACED)

    def read_response(self, *args: Any, disconnect_on_error: bool = True, **kwargs: Any) -> Any:
        # By default it stays open after a timeout, and the next caller would read the late reply: another session. The
        # asynchronous connection does not.
        return super().read_response(  # type: ignore[misc]
            *args, disconnect_on_error=disconnect_on_error, **kwargs
        )


class _Connection(_Connects, sentinel.SentinelManagedConnection):  # type: ignore[misc]
    pass


class _SSLConnection(_Connects, sentinel.SentinelManagedSSLConnection):  # type: ignore[misc]
    pass


class _AsyncConnects:
    """The asynchronous twin of `_Connects`."""

    async def connect_check_health(self, *args: Any, **kwargs: Any) -> None:
        if self.is_connected:  # type: ignore[attr-defined]
            return
        address = self.host, self.port = await self.connection_pool.get_master_address()  # type: ignore[attr-defined]
        await super().connect_check_health(*args, **kwargs)  # type: ignore[misc]
        if await self.connection_pool.get_master_address() != address:  # type: ignore[attr-defined]
            await self.disconnect()  # type: ignore[attr-defined]
            raise RedisConnectionError(REPLACED)


class _AsyncConnection(_AsyncConnects, async_sentinel.SentinelManagedConnection):
    pass


class _AsyncSSLConnection(_AsyncConnects, async_sentinel.SentinelManagedSSLConnection):
    pass


class _AsyncPool(async_sentinel.SentinelConnectionPool):
    """Leave a replaced primary with all connections, and also close those to the Sentinels."""

    async def disconnect(self, inuse_connections: bool = True) -> None:
        # False: the primary was replaced. async_client.py keeps idle connections, which are in use for redis-py.
        for connection in self._in_use_connections:
            if connection.is_connected:
                connection.mark_for_reconnect()
        await super().disconnect(inuse_connections)

    async def aclose(self) -> None:
        await super().aclose()
        for client in self.sentinel_manager.sentinels:
            await client.aclose()


def async_pool(params: dict[str, Any]) -> aioredis.ConnectionPool:
    """Return the asynchronous twin of the pool of `SentinelConnectionFactory`."""
    service, addresses, own, options = _options(params)
    own["retry"] = AsyncRetry(NoBackoff(), 0)
    sentinels = _AsyncSentinel(addresses, sentinel_kwargs=own)  # type: ignore[no-untyped-call]
    kind = _AsyncSSLConnection if options.pop("ssl", False) else _AsyncConnection
    return _AsyncPool(service, sentinels, connection_class=kind, **options)  # type: ignore[no-untyped-call]


def _options(
    params: dict[str, Any],
) -> tuple[str, list[Address], dict[str, Any], dict[str, Any]]:
    """Return the service, the Sentinels, and the options for the Sentinels and for the primary."""
    servers = read_url(params["url"])
    options = params | parse_url(servers.node_url("primary", REDIS_PORT))
    for name in ("url", "connection_class"):
        options.pop(name, None)
    shared = {name: value for name, value in options.items() if name.startswith(("socket_", "ssl_"))}
    return servers.service, servers.addresses, shared | servers.tls | servers.sentinel_options, options | servers.tls
