"""The counts of one limited API key in this process; key_limits.py says how processes share them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from math import ceil

from sentinel_project.gateway.auth import KeyLimits, KeyRefused
from sessions_sticky import Usage

WINDOW_SECONDS = 60
KEEP_SECONDS = 3 * WINDOW_SECONDS
"""How long the counts of a window stay in the cache, and how long a process remembers an idle key."""
SETTLE_SECONDS = 2
"""How long after the start of a window some processes may not have reported their requests in flight."""

REQUESTS, TOKENS, IN_FLIGHT, PROCESSES = "requests", "tokens", "in_flight", "processes"
MEASURES = (REQUESTS, TOKENS, IN_FLIGHT, PROCESSES)
RULES = {REQUESTS: "{} requests a minute", TOKENS: "{} tokens a minute", IN_FLIGHT: "{} requests in flight"}


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
        self._was_full = False
        self.exchanging: asyncio.Task[None] | None = None

    def roll(self) -> None:
        """Begin a new window if the last one has ended."""
        window = int(time.time() // WINDOW_SECONDS)
        if window == self._window:
            return
        self._others_in_flight = max(0, self.known(IN_FLIGHT) - self._own[IN_FLIGHT])
        self._window, self._was_full = window, False
        self._own[REQUESTS] = self._own[TOKENS] = 0
        self._reported = dict.fromkeys(MEASURES, 0)
        self._totals = dict.fromkeys(MEASURES, 0) | {IN_FLIGHT: self._others_in_flight}

    def known(self, measure: str) -> int:
        """Return what all processes have used, as far as this one knows."""
        return max(self._own[measure], self._totals[measure] + self._unreported(measure))

    def exceeded(self) -> str | None:
        """Return a measure whose limit is reached; None without one."""
        return next((measure for measure, limit in self.limits.items if self.known(measure) >= limit), None)

    def reports_ends(self) -> bool:
        """Return whether others may wait for places: the limit was reached when a request of this minute ended."""
        self._was_full = self._was_full or (
            self.limits.in_flight is not None and self.known(IN_FLIGHT) >= self.limits.in_flight
        )
        return self._was_full

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
        message = f"The API key is limited to {RULES[measure].format(limit)}; retry in {wait} s"
        code = f"key_{measure}_limit"
        return KeyRefused(429, message, code=code, retry_after=wait, headers=self.headers())

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

    def __init__(self, quota: Quota, report_end: Callable[[Quota], None]) -> None:
        self._quota = quota
        self._report_end = report_end
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

    def end(self) -> None:
        """End the request. Other processes may wait for its place if the key is full."""
        if not self._is_over:
            self._is_over = True
            must_report = self._quota.reports_ends()
            self._quota.add(IN_FLIGHT, -1)
            if must_report:
                self._report_end(self._quota)

    def headers(self) -> dict[str, str]:
        """Return the headers that state the limits."""
        return self._quota.headers()


def seconds_left() -> int:
    """Return the seconds until the next window, at least 1."""
    return ceil(WINDOW_SECONDS - time.time() % WINDOW_SECONDS)
