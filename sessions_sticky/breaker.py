"""A circuit breaker: after the store has failed to answer, nobody waits for it again for a while."""

from __future__ import annotations

import time

from sessions_sticky import metrics

RETRY_SECONDS = 1.0
"""How long after a failure the next caller tries the store again, alone."""


class Breaker:
    """Closed while the store answers. Safe between threads: the worst a race can cost is a second trial."""

    def __init__(self) -> None:
        self._open_until: float | None = None

    def admit(self) -> bool:
        """Whether a caller may ask the store now; while open, one caller may in each interval."""
        if self._open_until is None:
            return True
        now = time.monotonic()
        if now < self._open_until:
            return False
        self._open_until = now + RETRY_SECONDS
        return True

    def failed(self) -> None:
        """Open: the store did not answer."""
        self._open_until = time.monotonic() + RETRY_SECONDS
        metrics.breaker(is_open=True)

    def answered(self) -> None:
        """Close: the store answered, be it with an error."""
        if self._open_until is not None:
            self._open_until = None
            metrics.breaker(is_open=False)
