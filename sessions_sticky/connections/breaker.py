"""A circuit breaker: after the store has failed to answer, nobody waits for it again for a while."""

from __future__ import annotations

import time

from redis.exceptions import ResponseError

from sessions_sticky import metrics
from sessions_sticky.exceptions import SessionStoreUnavailable

RETRY_SECONDS = 1.0
"""How long after a failure the next caller tries the store again, alone."""


class Breaker:
    """Closed while the store answers. Safe between threads: the worst a race can cost is a second trial."""

    def __init__(self) -> None:
        self._open_until: float | None = None

    def check(self) -> None:
        """Raise `SessionStoreUnavailable` unless the store may be asked now; while open, one caller may at a time."""
        if not self._admit():
            raise SessionStoreUnavailable("Session store unavailable: circuit breaker is open")

    def note(self, error: Exception | None = None) -> None:
        """Close when the store answered, be it with an error; open when it did not."""
        if error is not None and not isinstance(error, ResponseError):
            self._open_until = time.monotonic() + RETRY_SECONDS
            metrics.breaker(is_open=True)
        elif self._open_until is not None:
            self._open_until = None
            metrics.breaker(is_open=False)

    def _admit(self) -> bool:
        if self._open_until is None:
            return True
        now = time.monotonic()
        if now < self._open_until:
            return False
        self._open_until = now + RETRY_SECONDS
        return True
