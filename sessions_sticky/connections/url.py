"""URLs with several servers, for Redis Sentinel and Redis Cluster; performs no I/O."""

from __future__ import annotations

from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit

SENTINEL_PORT, REDIS_PORT = 26379, 6379

Address = tuple[str, int]
"""Host and port."""


class Servers(NamedTuple):
    """A parsed URL; `node_url` is the URL of a server that holds data, for any host and port."""

    addresses: list[Address]
    scheme: str
    userinfo: str
    path: str
    query: str
    service: str
    sentinel_options: dict[str, str]
    """`username` and `password` of the Sentinels, if the URL has them."""

    @property
    def tls(self) -> dict[str, Any]:
        """The option of redis-py that turns on TLS."""
        return {"ssl": True} if self.scheme == "rediss" else {}

    def node_url(self, host: str, port: int) -> str:
        """Return the `redis://` or `rediss://` URL of one server."""
        named = f"[{host}]" if ":" in host else host
        return f"{self.scheme}://{self.userinfo}{named}:{port}{self.path}{self.query}"


def read_url(url: str) -> Servers:
    """Read a URL.

    `redis+sentinel://[user:password@]host[:26379][,host...][/db]?service=name` and
    `redis+cluster://[user:password@]host[:6379][,host...]`; user and password are those of the servers that hold data,
    Sentinels' own are `sentinel_username` and `sentinel_password` in the query. Other parameters are passed to
    redis-py (`ssl_ca_certs` and the like). Raises `ValueError`; its message omits the URL, which may contain a
    password.
    """
    parts = urlsplit(url)
    scheme, _, kind = parts.scheme.partition("+")
    userinfo, at, hosts = parts.netloc.rpartition("@")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    service = options.pop("service", "")
    sentinel_options = {
        name: options.pop(f"sentinel_{name}") for name in ("username", "password") if f"sentinel_{name}" in options
    }
    in_query = not at and ":" in hosts and "@" in parts.query.partition("=")[0]
    if in_query or "@" in f"{parts.path}{parts.fragment}":
        raise ValueError("Invalid Redis URL: '/', '?' and '#' in a user or password must be percent-encoded")
    path = parts.path.rstrip("/")
    default_port = SENTINEL_PORT if kind == "sentinel" else REDIS_PORT
    if kind == "sentinel" and not service:
        raise ValueError("Invalid Redis URL: it needs ?service=, the name that the Sentinels watch")
    if kind == "cluster" and path not in ("", "/0"):
        raise ValueError(f"Invalid Redis URL: database {path[1:]!r}; a Redis Cluster has 0 only")
    return Servers(
        [_address(host, default_port) for host in hosts.split(",")],
        scheme,
        userinfo + at,
        path,
        f"?{urlencode(options)}" if options else "",
        service,
        sentinel_options,
    )


def _address(text: str, default_port: int) -> Address:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port or default_port
    except ValueError:
        host, port = None, 0
    if not host:
        raise ValueError(f"The Redis URL must have host:port, separated by commas, not {text!r}")
    return host, port
