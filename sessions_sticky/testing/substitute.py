"""A store of the tests' own in the place of the configured one; what else is in that cache stays where it is."""

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

OURS: list[object] = []
"""The `LOCATION`s where tests keep sessions, and which may hence be emptied."""


class _Substitute:
    """Stands in for `stores.for_alias` and `stores.for_cache`.

    There, and not in the settings: a test that overrides `CACHES`, or `SESSIONS_STICKY` without its `CACHE`, would
    otherwise reach the project's own Redis.
    """

    def __init__(self, entry: dict[str, Any]) -> None:
        self.cache: BaseCache = CacheHandler({conf.cache: entry})[conf.cache]
        self._alias, self._location = conf.cache, _location(conf.cache)
        self._for_alias, self._for_cache, self._forget = stores.for_alias, stores.for_cache, stores.forget
        self.forget()

    def __call__(self, alias: str) -> Store:
        return self._store if self.hides(alias) else self._for_alias(alias)

    def for_cache(self, cache: BaseCache) -> Store:
        """Return the store on one cache object, or on the tests' own in the place of a hidden one."""
        hidden = any(cache is caches[alias] for alias in settings.CACHES if self.hides(alias))
        return self._for_cache(self.cache if hidden else cache)

    def forget(self) -> None:
        """Forget what the stores remember."""
        self._forget()
        self._store = self._for_cache(self.cache)

    def hides(self, alias: str) -> bool:
        """Whether sessions of a cache are kept here: of the configured one, unless a test put one of ours there."""
        by_the_test = _location(alias) in OURS and _location(alias) != self._location
        return alias in (self._alias, conf.cache) and not by_the_test


def keep_in(entry: dict[str, Any]) -> None:
    """Keep the sessions in a cache of their own, given as for `CACHES`, until the process ends."""
    own = _Substitute(entry)
    vars(stores).update(for_alias=own, for_cache=own.for_cache, forget=own.forget)


@contextmanager
def kept_in(entry: dict[str, Any]) -> Iterator[None]:
    """Keep the sessions in a cache of their own, given as for `CACHES`, while the block runs."""
    own = _Substitute(entry)
    with patch.multiple(stores, for_alias=own, for_cache=own.for_cache, forget=own.forget):
        yield


def session_cache() -> BaseCache:
    """Return the cache that has the sessions of the configured alias."""
    own = _hiding()
    return own.cache if own else caches[conf.cache]


def is_ours() -> bool:
    """Tell whether `session_cache` may be emptied."""
    return _hiding() is not None or _location(conf.cache) in OURS


def _hiding() -> _Substitute | None:
    current: object = stores.for_alias
    return current if isinstance(current, _Substitute) and current.hides(conf.cache) else None


def _location(alias: str) -> object:
    return settings.CACHES.get(alias, {}).get("LOCATION")
