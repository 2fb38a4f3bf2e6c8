"""Session storage, and the choice of the store for a cache."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from django.core.cache import caches
from django.core.cache.backends.base import BaseCache
from django.core.signals import setting_changed

from sessions_sticky.conf import conf
from sessions_sticky.connections.cache_config import is_on_redis
from sessions_sticky.locks import fork_safe_lock
from sessions_sticky.stores.base import Store

_stores: dict[tuple[str, str], Store] = {}
_lock = fork_safe_lock()


def for_cache(cache: BaseCache) -> Store:
    """Return the store on one cache object."""
    return _store(lambda: cache)


def for_alias(alias: str) -> Store:
    """Return the store on a cache of `CACHES`; one for each alias, prefix and process, for all threads."""
    key = alias, conf.prefix
    if (store := _stores.get(key)) is None:
        with _lock:  # of two first threads, one makes it
            if (store := _stores.get(key)) is None:
                store = _stores[key] = _store(partial(caches.__getitem__, alias))
    return store


def forget() -> None:
    """Recreate all stores, without remembered sessions."""
    _stores.clear()


def _store(get_cache: Callable[[], Any]) -> Store:
    """Import what the cache needs: redis-py costs a tenth of a second."""
    if is_on_redis(get_cache()):
        from sessions_sticky.stores.redis import RedisStore

        return RedisStore(get_cache())
    from sessions_sticky.stores.portable import PortableStore

    return PortableStore(get_cache)


def _forget_stores(*, setting: str, **kwargs: Any) -> None:
    if setting == "CACHES":
        forget()


setting_changed.connect(_forget_stores)
