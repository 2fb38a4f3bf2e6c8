"""The `CACHES` entry with which Django's cache API reads and writes the stored format."""

from __future__ import annotations

import inspect
import re
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import msgspec

from sessions_sticky.connections.url import read_url
from sessions_sticky.setting_values import similar_name

if TYPE_CHECKING:
    from django.core.cache.backends.base import BaseCache

FACTORIES = {
    "redis+sentinel": "sessions_sticky.connections.sentinel.SentinelConnectionFactory",
    "rediss+sentinel": "sessions_sticky.connections.sentinel.SentinelConnectionFactory",
    "redis+cluster": "sessions_sticky.connections.cluster.connection_factory.ClusterConnectionFactory",
    "rediss+cluster": "sessions_sticky.connections.cluster.connection_factory.ClusterConnectionFactory",
}
DEFAULT_FACTORY = "django_redis.pool.ConnectionFactory"
SCHEMES = ("redis", "rediss", "unix", *FACTORIES)
SOCKET_TIMEOUT_SECONDS = 0.25
"""How long a chat waits for Redis: far more than a healthy reply (75-140 us), but not noticeable."""


def cache_config(url: str) -> dict[str, Any]:
    """Return the `CACHES` entry for a Redis URL: JSON values, verbatim keys, timeouts.

    One server: `redis://`, `rediss://` (TLS) or `unix://`. Redis Sentinel:
    `redis+sentinel://user:password@host1:26379,host2:26379/0?service=mymaster`. Redis Cluster:
    `redis+cluster://user:password@host1:6379,host2:6379`. Both with TLS as `rediss+...`; user and password are those of
    the servers that hold the sessions, Sentinels' own are `&sentinel_username=` and `&sentinel_password=`.

    Raises `ValueError` for other schemes and types, a database that is not a number, and parameters unknown to
    redis-py. The message omits the URL, which may contain a password.
    """
    from redis import DriverInfo
    from redis.backoff import NoBackoff
    from redis.exceptions import ConnectionError as RedisConnectionError
    from redis.retry import Retry

    scheme = _checked_scheme(url)
    options = {
        # The project's DJANGO_REDIS_CONNECTION_FACTORY and DJANGO_REDIS_CLOSE_CONNECTION must not apply: the one may be
        # for Sentinel, the other one closes connections that other threads use.
        "CONNECTION_FACTORY": FACTORIES.get(scheme, DEFAULT_FACTORY),
        "CLOSE_CONNECTION": False,
        "SERIALIZER": f"{__name__}.JSONSerializer",
        "SOCKET_TIMEOUT": SOCKET_TIMEOUT_SECONDS,
        "SOCKET_CONNECT_TIMEOUT": SOCKET_TIMEOUT_SECONDS,
        # One retry heals the pooled connections that a restart of Redis has cut. A timeout is not retried:
        # redis-py's default (3 times, with pauses) would turn 250 ms into many seconds. So would RESP3, in which a
        # server may announce maintenance: redis-py then waits 10 s for each answer.
        # Without `driver_info` redis-py reads its own version from the files of its package for each new connection.
        "CONNECTION_POOL_KWARGS": {
            "retry": Retry(NoBackoff(), 1, (RedisConnectionError,)),
            "protocol": 2,
            "driver_info": DriverInfo(),
        },
    }
    return {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": [url] if scheme in FACTORIES else url,  # django-redis would split it at its commas
        "KEY_FUNCTION": f"{__name__}.verbatim_key",
        "REVERSE_KEY_FUNCTION": f"{__name__}.verbatim_reverse_key",
        "OPTIONS": options,
    }


def _checked_scheme(url: str) -> str:
    if not isinstance(url, str):  # a variable that is not set
        raise ValueError(f"The Redis URL must be a string, not {type(url).__name__}")
    try:
        parts = urlsplit(url)
        scheme = parts.scheme
        _ = None if scheme in FACTORIES else parts.port
    except ValueError:  # brackets without an IPv6 address, or an invalid port
        raise ValueError("The Redis URL has an invalid host or port") from None
    if scheme not in SCHEMES or not url.startswith(f"{scheme}://"):  # redis-py accepts only lower case
        allowed = ", ".join(f"{name}://" for name in SCHEMES)
        raise ValueError(f"The Redis URL must begin with {allowed}, not {url[: len(scheme)]!r}")
    if scheme in FACTORIES:
        servers = read_url(url)
        parts = urlsplit(servers.node_url("localhost", 1))
    _check_database(parts)
    _check_parameters(parts)
    return scheme


def _check_database(parts: SplitResult) -> None:
    """Refuse databases that redis-py would read as 0 or as another number."""
    if parts.scheme != "unix" and not re.fullmatch(r"/?|/[0-9]+/?", unquote(parts.path)):
        raise ValueError("Invalid Redis URL: its path must be the number of a database, such as /0")


def _check_parameters(parts: SplitResult) -> None:
    """Refuse parameters that would fail in redis-py at the first call. The message contains no values."""
    from redis import connection

    kind = {"rediss": connection.SSLConnection, "unix": connection.UnixDomainSocketConnection}
    classes = kind.get(parts.scheme, connection.Connection).__mro__[:-1]
    known = {name for each in classes for name in inspect.signature(each).parameters}
    known = known - {"kwargs"} | set(connection.URL_QUERY_ARGUMENT_PARSERS)
    for name in dict(parse_qsl(parts.query, keep_blank_values=True)):
        if name not in known:
            similar = similar_name(name, known)
            hint = f" {name!r}; did you mean {similar!r}?" if similar else ""
            raise ValueError(f"Invalid Redis URL: unknown parameter{hint}")
        if name == "decode_responses":
            raise ValueError("Invalid Redis URL: decode_responses is not possible, because sessions are read as bytes")
    try:
        connection.parse_url(f"redis://localhost?{parts.query}")
    except ValueError as exc:
        raise ValueError(f"Invalid Redis URL: {exc}") from None


def is_on_redis(cache: BaseCache) -> bool:
    """Return whether a cache is django-redis's, without importing redis-py (0.1 s) for other caches."""
    module = sys.modules.get("django_redis.cache")
    return module is not None and isinstance(cache, module.RedisCache)


def verbatim_key(key: str, key_prefix: str, version: int) -> str:
    """Return the key unchanged: Django's prefix `:1:` would hide sessions from other programs."""
    return key


def verbatim_reverse_key(key: str) -> str:
    """Undo `verbatim_key`."""
    return key


class JSONSerializer:
    """django-redis serializer that writes compact UTF-8 JSON, as `Session.to_json` does.

    Accepts JSON values and `Session`; reading returns dicts and lists.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        pass

    def dumps(self, value: Any) -> bytes:
        """Encode one value."""
        return msgspec.json.encode(value)

    def loads(self, value: bytes) -> Any:
        """Decode one value; raises `msgspec.DecodeError`."""
        return msgspec.json.decode(value)
