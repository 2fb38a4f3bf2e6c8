"""Asynchronous connection pools, made with what the cache's own factory gives the synchronous ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis.asyncio import Connection, ConnectionPool, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

from sessions_sticky.connections import sentinel

if TYPE_CHECKING:
    from django_redis.cache import RedisCache


def for_cache(cache: RedisCache) -> ConnectionPool:
    """Return a pool of connections to the server of a cache, or to the primary that its Sentinels name."""
    client = cache.client
    params = _params(client.connection_factory, client._server[0])
    if isinstance(client.connection_factory, sentinel.SentinelConnectionFactory):
        return sentinel.async_pool(params)
    return ConnectionPool.from_url(**params)


def for_node(cache: RedisCache, url: str) -> ConnectionPool:
    """Return a pool of connections to one server of a cache's Redis Cluster."""
    return ConnectionPool.from_url(**_params(cache.client.connection_factory, url))


def _params(factory: Any, url: str) -> dict[str, Any]:
    params = {**factory.make_connection_params(url), **getattr(factory, "pool_cls_kwargs", {})}
    for name in ("parser_class", "max_connections", "timeout"):  # of the blocking pool; MAX_PIPELINES is the bound here
        params.pop(name, None)
    if "retry" in params:
        params["retry"] = Retry(NoBackoff(), 1, (RedisConnectionError,))
    if "connection_class" in params:
        params["connection_class"] = _async_connection_class(params["connection_class"])
    return params


def _async_connection_class(sync_class: type) -> type:
    name = sync_class.__name__
    if name.startswith("Fake"):
        from fakeredis import FakeAsyncRedisConnection

        return FakeAsyncRedisConnection
    twins = {cls.__name__: cls for cls in (SSLConnection, UnixDomainSocketConnection)}
    return next((twins[base.__name__] for base in sync_class.__mro__ if base.__name__ in twins), Connection)
