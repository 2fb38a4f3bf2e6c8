"""Limits of API keys: requests a minute, tokens a minute, requests in flight.

A fixed window: the minutes of the wall clock. Each process admits requests by its own counts and its share of what was
left when it last exchanged counts through Django's cache, once a second in the background. Only a request over the
share of its process waits for an exchange, and one over the limit of requests in flight. Hence a burst may exceed a
limit by the shares that other processes have left in that second. A key that was full in this minute reports the end of
each request at once. Tokens count when an answer has ended. Without the cache each process enforces the whole limit by
its own counts.
"""

from __future__ import annotations

import asyncio
import logging

from sentinel_project.gateway import shared_cache
from sentinel_project.gateway.auth import KeyLimits, authenticate
from sentinel_project.gateway.calls import Call
from sentinel_project.gateway.key_quota import IN_FLIGHT, KEEP_SECONDS, REQUESTS, Quota, Slot
from sessions_sticky import keys

logger = logging.getLogger(__name__)

EXCHANGE_SECONDS = 1.0
WAIT_SECONDS = 0.25
"""How long a request waits for an exchange; then its process decides alone."""


class Quotas:
    """The counts of this process."""

    def __init__(self) -> None:
        self._quotas: dict[str, Quota] = {}
        self._is_shared = True

    async def enter(self, key: str, limits: KeyLimits) -> Slot:
        """Admit a request. Raises `KeyRefused` 429."""
        quota = self._quotas.get(key)
        if quota is None:
            quota = self._quotas[key] = Quota(key, limits)
            if self._is_shared:
                self._begin_exchange(quota)
        quota.limits = limits
        deadline, may_be_stale = asyncio.get_running_loop().time() + WAIT_SECONDS, True
        while True:
            quota.roll()
            measure, left = quota.exceeded(), deadline - asyncio.get_running_loop().time()
            may_wait = self._is_shared and left > 0
            if measure is not None:
                if measure != IN_FLIGHT or not may_be_stale or not may_wait:
                    raise quota.refusal(measure)
                may_be_stale = False
            elif not may_wait or not quota.is_share_used():
                break
            await asyncio.wait([self._begin_exchange(quota)], timeout=left)
        quota.add(REQUESTS, 1)
        quota.add(IN_FLIGHT, 1)
        return Slot(quota, self._report_end)

    async def exchange_forever(self) -> None:
        """Exchange counts with other processes until cancelled."""
        while True:
            for quota in list(self._quotas.values()):
                if quota.is_idle():
                    del self._quotas[quota.key]
                    continue
                await self._begin_exchange(quota)
                if not self._is_shared:
                    break
            await asyncio.sleep(EXCHANGE_SECONDS)

    def _report_end(self, quota: Quota) -> None:
        """Exchange counts now, or after the exchange that is running: it may have read the counts before."""
        if not self._is_shared:
            return
        if quota.exchanging is not None and not quota.exchanging.done():
            quota.exchanging.add_done_callback(lambda _: self._begin_exchange(quota))
        else:
            self._begin_exchange(quota)

    def _begin_exchange(self, quota: Quota) -> asyncio.Task[None]:
        if quota.exchanging is None or quota.exchanging.done():
            quota.exchanging = asyncio.create_task(self._exchange(quota))
        return quota.exchanging

    async def _exchange(self, quota: Quota) -> None:
        window, unreported = quota.begin_exchange()
        try:
            quota.end_exchange(window, await shared_cache.in_thread(_add, quota.key, window, unreported))
            self._is_shared = True
        except Exception as exc:  # cache backends raise different errors
            if self._is_shared:
                logger.warning("the counts of limited API keys are not shared: %s", type(exc).__name__)
            self._is_shared = False


quotas = Quotas()


async def admit(call: Call) -> str:
    """Return the owner of a request's key, and take a slot of its limits. Raises `ApiError` 401, 403, 429 or 503."""
    caller = await authenticate(call.headers)
    if caller.limits is not None:
        call.slot = await quotas.enter(caller.key, caller.limits)
    return caller.owner


def _add(key: str, window: int, numbers: dict[str, int]) -> dict[str, int]:
    """Add to the counts of a window; return the new ones. Raises the cache's own errors."""
    return {measure: _increment(f"{key[:16]}:{window}:{measure}", number) for measure, number in numbers.items()}


def _increment(name: str, number: int) -> int:
    cache, key = shared_cache.cache(), keys.prefixed(f"limit:{name}")
    try:
        return int(cache.incr(key, number))
    except ValueError:  # there is none yet
        if not number:
            return 0
        cache.add(key, 0, KEEP_SECONDS)
        return int(cache.incr(key, number))
