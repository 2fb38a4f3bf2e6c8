"""Replace the configured store by one for tests; other data in its cache is not affected."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from django.conf import settings
from django.core.cache import CacheHandler, caches
from django.core.cache.backends.base import BaseCache

from sessions_sticky import stores
from sessions_sticky.conf import conf
from sessions_sticky.stores.base import Store

TEST_LOCATIONS: list[object] = []
"""The `LOCATION`s of test stores, which may be emptied."""


class _StoreOverride:
    """Replace `stores.for_alias` and `stores.for_cache`.

    The settings are not changed, because a test that overrides `CACHES`, or `SESSIONS_STICKY` without its `CACHE`,
    would then use the project's own Redis.
    """

    def __init__(self, entry: dict[str, Any]) -> None:
        self.cache: BaseCache = CacheHandler({conf.cache: entry})[conf.cache]
        self._alias, self._location = conf.cache, _location(conf.cache)
        self._for_alias, self._for_cache, self._forget = stores.for_alias, stores.for_cache, stores.forget
        self.forget()

    def __call__(self, alias: str) -> Store:
        return self._store if self.overrides(alias) else self._for_alias(alias)

    def for_cache(self, cache: BaseCache) -> Store:
        """Return the store on a cache object, or the test store that replaces it."""
        hidden = any(cache is caches[alias] for alias in settings.CACHES if self.overrides(alias))
        return self._for_cache(self.cache if hidden else cache)

    def forget(self) -> None:
        """Clear the memory of the stores."""
        self._forget()
        self._store = self._for_cache(self.cache)

    def overrides(self, alias: str) -> bool:
        """Return whether a cache is replaced: the configured one, unless a test configured a test store."""
        by_the_test = _location(alias) in TEST_LOCATIONS and _location(alias) != self._location
        return alias in (self._alias, conf.cache) and not by_the_test


def keep_in(entry: dict[str, Any]) -> None:
    """Store sessions in the given `CACHES` entry until the process ends."""
    own = _StoreOverride(entry)
    vars(stores).update(for_alias=own, for_cache=own.for_cache, forget=own.forget)


@contextmanager
def kept_in(entry: dict[str, Any]) -> Iterator[None]:
    """Store sessions in the given `CACHES` entry while the block runs."""
    own = _StoreOverride(entry)
    with patch.multiple(stores, for_alias=own, for_cache=own.for_cache, forget=own.forget):
        yield


def session_cache() -> BaseCache:
    """Return the cache that has the sessions of the configured alias."""
    own = _hiding()
    return own.cache if own else caches[conf.cache]


def is_ours() -> bool:
    """Return whether `session_cache` may be emptied."""
    return _hiding() is not None or _location(conf.cache) in TEST_LOCATIONS


def _hiding() -> _StoreOverride | None:
    current: object = stores.for_alias
    return current if isinstance(current, _StoreOverride) and current.overrides(conf.cache) else None


def _location(alias: str) -> object:
    return settings.CACHES.get(alias, {}).get("LOCATION")
