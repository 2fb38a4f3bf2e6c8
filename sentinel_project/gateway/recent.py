"""Requests of this process in the last minutes, for the banner while the store is unavailable."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

MINUTES = 5


class Recent:
    """Counts answered and failed requests by minute. A failed one got 429 or 5xx: it was not at fault itself."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._minutes: deque[tuple[int, list[int]]] = deque(maxlen=MINUTES)

    def count(self, status: int) -> None:
        """Count a request by the status of its answer."""
        minute = int(self._clock()) // 60
        if not self._minutes or self._minutes[-1][0] != minute:
            self._minutes.append((minute, [0, 0]))
        self._minutes[-1][1][status == 429 or status >= 500] += 1

    def totals(self) -> tuple[int, int]:
        """Return the numbers of answered and of failed requests."""
        first = int(self._clock()) // 60 - MINUTES
        counts = [numbers for minute, numbers in self._minutes if minute > first]
        return sum(answered for answered, _ in counts), sum(failed for _, failed in counts)


recent = Recent()
