"""The django-redis client of a cache on a Redis Cluster."""

from __future__ import annotations

from typing import Any, ClassVar

from django_redis.pool import ConnectionFactory
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.connection import parse_url
from redis.retry import Retry

from sessions_sticky.connections.url import Servers, read_url
from sessions_sticky.locks import fork_safe_lock


class ClusterConnectionFactory(ConnectionFactory[Any, Any, Any]):  # type: ignore[misc]
    """django-redis connection factory for `redis+cluster://` URLs; each process has one client of a cluster.

    The client serves the cache API for commands with one key; `get_many`, `delete_pattern`, `clear` and the like fail
    or return wrong results on a cluster. Sessions do not use it: see client.py.
    """

    _clients: ClassVar[dict[str, RedisCluster]] = {}
    _connecting = fork_safe_lock()

    def connect(self, url: str) -> RedisCluster:
        """Return the client; raises `RedisClusterException` when no server answers."""
        with self._connecting:
            if url not in self._clients:
                self._clients[url] = self._new_client(read_url(url))
            return self._clients[url]

    def disconnect(self, connection: RedisCluster) -> None:
        """Close its connections; the client reconnects when it is used again."""
        connection.disconnect_connection_pools()

    def _new_client(self, servers: Servers) -> RedisCluster:
        options = {"protocol": self.pool_cls_kwargs.get("protocol"), **self.make_connection_params("")}
        options |= parse_url(servers.node_url(*servers.addresses[0]))
        for name in ("url", "parser_class", "host", "port", "db", "connection_class"):
            options.pop(name, None)
        nodes = [ClusterNode(*address) for address in servers.addresses]
        return RedisCluster(startup_nodes=nodes, retry=Retry(NoBackoff(), 1), **options, **servers.tls)
