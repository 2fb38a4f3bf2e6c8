"""Redis Sentinel: connections to whichever server is the primary now.

A connection asks the Sentinels for the primary when it is made, and is made anew when the server hangs up, refuses
writes or does not answer. Replicas are never read: they lag behind what was just written.
"""

from __future__ import annotations

from typing import Any

from django_redis.pool import ConnectionFactory
from redis import asyncio as aioredis
from redis import sentinel
from redis.asyncio import sentinel as async_sentinel
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry

from sessions_sticky import many_servers


class SentinelConnectionFactory(ConnectionFactory[Any, Any, Any]):  # type: ignore[misc]
    """django-redis connection factory for `redis+sentinel://` URLs.

    django-redis's own one shares a pool between all Sentinels that have a service of the same name, and spells that
    name in lower case.
    """

    def get_connection_pool(self, params: dict[str, Any]) -> sentinel.SentinelConnectionPool:
        """Return a pool whose connections lead to the primary."""
        service, addresses, own, options = _options(params | self.pool_cls_kwargs)
        sentinels = sentinel.Sentinel(addresses, sentinel_kwargs=own | {"retry": Retry(NoBackoff(), 0)})
        return sentinel.SentinelConnectionPool(service, sentinels, **options)


def async_pool(params: dict[str, Any]) -> aioredis.ConnectionPool:
    """Return the asynchronous twin of the pool of `SentinelConnectionFactory`."""
    service, addresses, own, options = _options(params)
    sentinels = async_sentinel.Sentinel(addresses, sentinel_kwargs=own | {"retry": AsyncRetry(NoBackoff(), 0)})
    return async_sentinel.SentinelConnectionPool(service, sentinels, **options)


def _options(
    params: dict[str, Any],
) -> tuple[str, list[many_servers.Address], dict[str, Any], dict[str, Any]]:
    """Return the service, the Sentinels, what clients of these are made with, and what connections to the primary."""
    servers = many_servers.read(params["url"])
    options = params | parse_url(servers.node_url("primary", many_servers.REDIS_PORT))
    for name in ("url", "connection_class"):
        options.pop(name, None)
    shared = {name: value for name, value in options.items() if name.startswith(("socket_", "ssl_"))}
    return servers.service, servers.addresses, shared | servers.tls | servers.sentinel_options, options | servers.tls
