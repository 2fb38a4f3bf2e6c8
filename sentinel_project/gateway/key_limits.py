"""Limits of API keys: requests a minute, tokens a minute, requests in flight.

A fixed window: the minutes of the wall clock. Each process admits requests by its own counts and its share of what was
left when it last exchanged counts through Django's cache, once a second in the background. Only a request over the
share of its process waits for an exchange. Hence a burst may exceed a limit by the shares that other processes have
left in that second. Tokens count when an answer has ended. Without the cache each process enforces the whole limit by
its own counts.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from math import ceil
from typing import Any

from asgiref.sync import sync_to_async
from django.core.cache import DEFAULT_CACHE_ALIAS, caches

from sentinel_project.gateway.auth import KeyLimits, KeyRefused, authenticate
from sentinel_project.gateway.calls import Call
from sentinel_project.gateway.replies import call_at_end
from sessions_sticky import Usage, keys

logger = logging.getLogger(__name__)

WINDOW_SECONDS = 60
KEEP_SECONDS = 3 * WINDOW_SECONDS
"""How long the counts of a window stay in the cache, and how long a process remembers an idle key."""
SETTLE_SECONDS = 2
"""How long after the start of a window some processes may not have reported their requests in flight."""
EXCHANGE_SECONDS = 1.0
WAIT_SECONDS = 0.25
"""How long a request waits for an exchange; then its process decides alone."""

REQUESTS, TOKENS, IN_FLIGHT, PROCESSES = "requests", "tokens", "in_flight", "processes"
MEASURES = (REQUESTS, TOKENS, IN_FLIGHT, PROCESSES)
RULES = {REQUESTS: "{} requests a minute", TOKENS: "{} tokens a minute", IN_FLIGHT: "{} requests in flight"}

_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="key_limits")


class Quota:
    """The counts of one key in this process."""

    def __init__(self, key: str, limits: KeyLimits) -> None:
        self.key, self.limits = key, limits
        self.used_at = time.time()
        self._window = int(self.used_at // WINDOW_SECONDS)
        self._own = dict.fromkeys(MEASURES, 0) | {PROCESSES: 1}
        self._reported = dict.fromkeys(MEASURES, 0)
        self._totals = dict.fromkeys(MEASURES, 0)
        self._processes = 1
        self._others_in_flight = 0
        self.exchanging: asyncio.Task[None] | None = None

    def roll(self) -> None:
        """Begin a new window if the last one has ended."""
        window = int(time.time() // WINDOW_SECONDS)
        if window == self._window:
            return
        self._others_in_flight = max(0, self.known(IN_FLIGHT) - self._own[IN_FLIGHT])
        self._window = window
        self._own[REQUESTS] = self._own[TOKENS] = 0
        self._reported = dict.fromkeys(MEASURES, 0)
        self._totals = dict.fromkeys(MEASURES, 0) | {IN_FLIGHT: self._others_in_flight}

    def known(self, measure: str) -> int:
        """Return what all processes have used, as far as this one knows."""
        return max(self._own[measure], self._totals[measure] + self._unreported(measure))

    def exceeded(self) -> str | None:
        """Return a measure whose limit is reached; None without one."""
        return next((measure for measure, limit in self.limits.items if self.known(measure) >= limit), None)

    def is_share_used(self) -> bool:
        """Return whether this process has used its share of what was left at the last exchange."""
        return any(
            self._unreported(measure) >= ceil((limit - self._totals[measure]) / self._processes)
            for measure, limit in self.limits.items
        )

    def add(self, measure: str, number: int) -> None:
        """Count a use."""
        self._own[measure] += number
        self.used_at = time.time()

    def is_idle(self) -> bool:
        """Return whether the key was not used for so long that its counts are no longer needed."""
        return not self._own[IN_FLIGHT] and time.time() - self.used_at > KEEP_SECONDS

    def begin_exchange(self) -> tuple[int, dict[str, int]]:
        """Return the window and what this process has used since its last exchange.

        It counts as reported from now on: counted twice after an error, it could refuse what is allowed.
        """
        self.roll()
        unreported = {measure: self._unreported(measure) for measure in MEASURES}
        self._reported = dict(self._own)
        return self._window, unreported

    def end_exchange(self, window: int, totals: dict[str, int]) -> None:
        """Take the totals of all processes."""
        if window != self._window:
            return
        self._totals = totals
        if time.time() % WINDOW_SECONDS < SETTLE_SECONDS:
            expected = self._others_in_flight + self._reported[IN_FLIGHT]
            totals[IN_FLIGHT] = max(totals[IN_FLIGHT], expected)
            self._processes = max(self._processes, totals[PROCESSES])
        else:
            self._processes = max(1, totals[PROCESSES])

    def refusal(self, measure: str) -> KeyRefused:
        """Return the error for a request over a limit."""
        limit = dict(self.limits.items)[measure]
        wait = 1 if measure == IN_FLIGHT else seconds_left()
        message = f"The API key is limited to {RULES[measure].format(limit)}; ask again in {wait} s"
        headers = {"Retry-After": str(wait)} | self.headers()
        return KeyRefused(429, message, type="rate_limit_error", code=f"key_{measure}_limit", headers=headers)

    def headers(self) -> dict[str, str]:
        """Return the limits and what is left of them, under OpenAI's names."""
        self.roll()
        found = {}
        for measure, limit in self.limits.items:
            if measure != IN_FLIGHT:
                found[f"x-ratelimit-limit-{measure}"] = str(limit)
                found[f"x-ratelimit-remaining-{measure}"] = str(max(0, limit - self.known(measure)))
                found[f"x-ratelimit-reset-{measure}"] = f"{seconds_left()}s"
        return found

    def _unreported(self, measure: str) -> int:
        return self._own[measure] - self._reported[measure]


class Slot:
    """An admitted request of a limited key."""

    def __init__(self, quota: Quota) -> None:
        self._quota = quota
        self._is_over = False

    @property
    def counts_tokens(self) -> bool:
        """Whether the usage of the answer must be known."""
        return self._quota.limits.tokens is not None

    def add_usage(self, usage: Usage | None) -> None:
        """Count the tokens of an answer; None: the provider reported none."""
        if usage is not None:
            self._quota.roll()
            self._quota.add(TOKENS, usage.input + usage.output)

    def end_with(self, body: bytes | AsyncGenerator[bytes]) -> None:
        """End the request with the body of its answer: at once, or when the stream ends."""
        call_at_end(body, self.end)

    def end(self) -> None:
        """End the request."""
        if not self._is_over:
            self._is_over = True
            self._quota.add(IN_FLIGHT, -1)

    def headers(self) -> dict[str, str]:
        """Return the headers that state the limits."""
        return self._quota.headers()


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
        deadline = asyncio.get_running_loop().time() + WAIT_SECONDS
        while True:
            quota.roll()
            if (measure := quota.exceeded()) is not None:
                raise quota.refusal(measure)
            left = deadline - asyncio.get_running_loop().time()
            if not self._is_shared or left <= 0 or not quota.is_share_used():
                break
            await asyncio.wait([self._begin_exchange(quota)], timeout=left)
        quota.add(REQUESTS, 1)
        quota.add(IN_FLIGHT, 1)
        return Slot(quota)

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

    def _begin_exchange(self, quota: Quota) -> asyncio.Task[None]:
        if quota.exchanging is None or quota.exchanging.done():
            quota.exchanging = asyncio.create_task(self._exchange(quota))
        return quota.exchanging

    async def _exchange(self, quota: Quota) -> None:
        window, unreported = quota.begin_exchange()
        run = sync_to_async(partial(_add, quota.key, window, unreported), thread_sensitive=False, executor=_thread)
        try:
            quota.end_exchange(window, await run())
            self._is_shared = True
        except Exception as exc:  # each cache backend has errors of its own
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


def seconds_left() -> int:
    """Return the seconds until the next window, at least 1."""
    return ceil(WINDOW_SECONDS - time.time() % WINDOW_SECONDS)


def _add(key: str, window: int, numbers: dict[str, int]) -> dict[str, int]:
    """Add to the counts of a window; return the new ones. Raises the cache's own errors."""
    return {measure: _increment(f"{key[:16]}:{window}:{measure}", number) for measure, number in numbers.items()}


def _increment(name: str, number: int) -> int:
    cache: Any = caches[DEFAULT_CACHE_ALIAS]
    key = keys.prefixed(f"limit:{name}")
    try:
        return int(cache.incr(key, number))
    except ValueError:  # there is none yet
        if not number:
            return 0
        cache.add(key, 0, KEEP_SECONDS)
        return int(cache.incr(key, number))
