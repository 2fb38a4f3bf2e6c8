"""Who sends the requests of operations: blocking, or on the event loop."""

from __future__ import annotations

import logging
from typing import Any

from django.core.cache.backends.base import BaseCache
from django.utils.connection import ConnectionProxy

from sessions_sticky import metrics
from sessions_sticky.conf import check_ttl_seconds, conf
from sessions_sticky.exceptions import SessionStoreUnavailable
from sessions_sticky.policy import Operation, T
from sessions_sticky.signals import Announcement
from sessions_sticky.stores import base

logger = logging.getLogger("sessions_sticky")


class Driver:
    """Runs operations on one store; what the managers of sessions have in common."""

    def __init__(self, cache: BaseCache | str | None = None, ttl_seconds: int | None = None) -> None:
        if isinstance(cache, ConnectionProxy):  # `django.core.cache.cache`
            cache = str(cache._alias)
        if not isinstance(cache, BaseCache | str | None):
            raise ValueError(f"Invalid cache: {cache!r}; allowed is a Django cache, or an alias in CACHES")
        self._alias = cache if isinstance(cache, str) else None
        self._fixed_store = base.for_cache(cache) if isinstance(cache, BaseCache) else None
        self._ttl_seconds = None if ttl_seconds is None else check_ttl_seconds(ttl_seconds)
        self._actor = metrics.GATEWAY

    @property
    def ttl_seconds(self) -> int:
        """The idle time of a session in seconds."""
        return conf.ttl_seconds if self._ttl_seconds is None else self._ttl_seconds

    @property
    def _store(self) -> base.Store[Any]:
        return self._fixed_store or base.for_alias(self._alias or conf.cache)

    def _run(self, operation: Operation[T]) -> T:
        try:
            request = next(operation)
            while True:
                try:
                    reply = self._announce(request) if isinstance(request, Announcement) else self._store.send(request)
                except SessionStoreUnavailable as exc:
                    request = operation.throw(exc)
                else:
                    request = operation.send(reply)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]

    def _announce(self, announcement: Announcement) -> object:
        try:
            return announcement.signal.send_robust(sender=type(self), **announcement.arguments)
        except RuntimeError:  # Django's, for receivers that are coroutine functions, in the thread of an event loop
            logger.exception("coroutine functions were not told: call the async methods where an event loop runs")
            return None

    async def _arun(self, operation: Operation[T]) -> T:
        try:
            request = next(operation)
            while True:
                try:
                    if isinstance(request, Announcement):
                        reply = await request.signal.asend_robust(sender=type(self), **request.arguments)
                    else:
                        reply = await self._store.asend(request)
                except SessionStoreUnavailable as exc:
                    request = operation.throw(exc)
                else:
                    request = operation.send(reply)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
