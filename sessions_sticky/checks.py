"""System checks of the settings, run by `manage.py check`.

| id | meaning |
| --- | --- |
| sessions_sticky.E001 | a setting has an invalid value |
| sessions_sticky.E002 | `SESSIONS_STICKY` has an unknown key |
| sessions_sticky.E003 | the django-redis cache changes keys or values, so other programs cannot read the sessions |
| sessions_sticky.E004 | the cache stores nothing |
| sessions_sticky.E005 | the django-redis cache spreads keys over several servers (`ShardClient`), or decodes replies |
| sessions_sticky.W001 | no socket timeout: a stalled Redis would stall every chat |
| sessions_sticky.W002 | another alias with the same LOCATION may impose its own timeouts (django-redis #685) |
| sessions_sticky.W003 | the cache is local to one process (`check --deploy` only) |
| sessions_sticky.W004 | the cache evicts live sessions beyond MAX_ENTRIES (`check --deploy` only) |
| sessions_sticky.W005 | the cache is Django's own RedisCache: no lists, no moves, no sharing with other programs |
| sessions_sticky.W006 | KEY_PREFIX or VERSION of the session cache, which session keys ignore |
| sessions_sticky.W007 | another alias is on the same Redis database: its `clear()` deletes all sessions |
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.cache import caches
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.filebased import FileBasedCache
from django.core.cache.backends.locmem import LocMemCache
from django.core.cache.backends.redis import RedisCache as DjangosRedisCache
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.exceptions import ImproperlyConfigured

from sessions_sticky import keys
from sessions_sticky.conf import DEFAULTS, Conf, conf, unknown_options
from sessions_sticky.connections.cache_config import is_on_redis
from sessions_sticky.session import Session

if TYPE_CHECKING:
    from django_redis.cache import RedisCache

USE_CACHE_CONFIG = (
    "Use the entry of sessions_sticky.cache_config(url) in CACHES; if other code needs this cache as it is, give the"
    " sessions an alias of their own and name it in SESSIONS_STICKY['CACHE']."
)


@register(Tags.caches)
def check_settings(**kwargs: Any) -> list[CheckMessage]:
    """Check every setting of the app."""
    wrong: dict[str, None] = {}  # deduplicated: all options report a SESSIONS_STICKY that is not a dict
    for name in [name for name, value in vars(Conf).items() if isinstance(value, cached_property)]:
        try:
            getattr(conf, name)
        except ImproperlyConfigured as exc:
            wrong[str(exc)] = None
    messages: list[CheckMessage] = [Error(message, id="sessions_sticky.E001") for message in wrong]
    for key, resembles in unknown_options().items():
        hint = f"Did you mean {resembles!r}?" if resembles else f"Allowed are {', '.join(DEFAULTS)}."
        messages.append(Error(f"Unknown key {key!r} in SESSIONS_STICKY", hint=hint, id="sessions_sticky.E002"))
    return messages


@register(Tags.caches)
def check_cache(**kwargs: Any) -> list[CheckMessage]:
    """Check that the configured cache can store sessions."""
    cache = _configured_cache()
    if is_on_redis(cache):
        return list(_check_redis(cache))
    if isinstance(cache, DummyCache):
        message = "The session cache is a DummyCache, which stores nothing."
        return [Error(message, hint=USE_CACHE_CONFIG, id="sessions_sticky.E004")]
    if isinstance(cache, DjangosRedisCache):
        message = "The session cache is Django's own RedisCache: its sessions cannot be listed, moved or shared."
        return [Warning(message, hint=USE_CACHE_CONFIG, id="sessions_sticky.W005")]
    return []


@register(Tags.caches, deploy=True)
def check_production_cache(**kwargs: Any) -> list[CheckMessage]:
    """Check for caches that are only suitable for development."""
    cache = _configured_cache()
    if cache is None or is_on_redis(cache) or isinstance(cache, DummyCache):
        return []
    if isinstance(cache, LocMemCache):
        message = "The session cache is local to one process: workers do not see each other's sessions."
        return [Warning(message, hint=USE_CACHE_CONFIG, id="sessions_sticky.W003")]
    if hasattr(cache, "_cull") or isinstance(cache, FileBasedCache):
        message = f"The session cache evicts live sessions beyond {cache._max_entries} entries."
        return [Warning(message, hint="Raise OPTIONS['MAX_ENTRIES'].", id="sessions_sticky.W004")]
    return []


def _configured_cache() -> Any:
    try:
        _ = conf.prefix  # of every key
        return caches[conf.cache]
    except ImproperlyConfigured:
        return None  # check_settings reports it


def _encoded(cache: RedisCache, sample: Session) -> Any:
    try:
        return cache.client.encode(sample)
    except Exception:  # serializers raise different errors for unknown types
        return None


def _check_redis(cache: RedisCache) -> Iterator[CheckMessage]:
    from django_redis.client import ShardClient

    sample = Session("conv-123", "openai", "gpt-4", "user-456", 1_700_000_000)
    key = keys.session(sample.id)
    written = str(cache.client.make_key(key))
    if written != key:
        message = f"The session cache writes the key {key!r} as {written!r}."
        yield Error(message, hint=USE_CACHE_CONFIG, id="sessions_sticky.E003")
    if _encoded(cache, sample) != sample.to_json():
        message = "The session cache does not write values as compact JSON."
        yield Error(message, hint=USE_CACHE_CONFIG, id="sessions_sticky.E003")
    options = cache._params.get("OPTIONS", {})
    if isinstance(cache.client, ShardClient):
        message = "The session cache spreads keys over several servers (ShardClient), which sessions cannot use."
        yield Error(message, hint=USE_CACHE_CONFIG, id="sessions_sticky.E005")
    is_in_url = any("decode_responses=" in url for url in _addresses(cache._server))  # true for each value
    if is_in_url or options.get("CONNECTION_POOL_KWARGS", {}).get("decode_responses"):
        message = "The session cache decodes replies (decode_responses), but sessions are read as bytes."
        yield Error(message, hint=USE_CACHE_CONFIG, id="sessions_sticky.E005")
    if not (options.get("SOCKET_TIMEOUT") and options.get("SOCKET_CONNECT_TIMEOUT")):
        message = "The session cache has no SOCKET_TIMEOUT or no SOCKET_CONNECT_TIMEOUT: a stalled Redis stalls chats."
        yield Warning(message, hint=USE_CACHE_CONFIG, id="sessions_sticky.W001")
    ignored = {name: cache._params.get(name) for name in ("KEY_PREFIX", "VERSION")}
    for name, value in ignored.items():
        if value not in (None, "", 1) and written == key:
            message = f"The session cache has {name} {value!r}, but keys of sessions are written without it."
            hint = "Separate tenants or projects with SESSIONS_STICKY['PREFIX'], or a Redis database each."
            yield Warning(message, hint=hint, id="sessions_sticky.W006")
    for alias, entry in settings.CACHES.items():
        if alias != conf.cache and _addresses(entry.get("LOCATION")) == _addresses(cache._server):
            yield from _check_neighbour(alias, entry.get("OPTIONS"), options)


def _check_neighbour(alias: str, its_options: Any, options: Any) -> Iterator[CheckMessage]:
    """Check an alias with the same LOCATION."""
    cache = caches[alias]
    on_django_redis = is_on_redis(cache)
    if on_django_redis and its_options != options:
        message = f"Cache {alias!r} has the same LOCATION as the session cache, but other OPTIONS."
        hint = "django-redis has one connection pool per LOCATION, with the OPTIONS of one alias: use two LOCATIONs."
        yield Warning(message, hint=hint, id="sessions_sticky.W002")
    if on_django_redis or isinstance(cache, DjangosRedisCache):
        message = f"Cache {alias!r} is on the Redis database of the session cache: its clear() deletes all sessions."
        hint = "Give the sessions their own database, such as redis://host:6379/1, or on a Cluster their own servers."
        yield Warning(message, hint=hint, id="sessions_sticky.W007")


def _addresses(location: Any) -> list[str]:
    """Return the URLs of a LOCATION, as Django and django-redis parse it."""
    return re.split("[;,]", location) if isinstance(location, str) else list(location or ())
