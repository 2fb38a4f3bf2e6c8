"""Circuit breaker: fail fast for a short time after a store failure."""

from __future__ import annotations

import time

from redis.exceptions import ResponseError

from sessions_sticky import metrics
from sessions_sticky.exceptions import SessionStoreUnavailable

RETRY_SECONDS = 1.0
"""How long the breaker stays open; then a single caller tries the store."""


class Breaker:
    """Closed while the store answers. Thread-safe; a race can only cause a second trial.

    Only the breaker for chats sets the metric; the one for operators is not `measured`.
    """

    def __init__(self, *, measured: bool = True) -> None:
        self._open_until: float | None = None
        self._measured = measured

    def admit(self) -> None:
        """Raise `SessionStoreUnavailable` while open, except for one trial at a time."""
        if self._open_until is None:
            return
        now = time.monotonic()
        if now < self._open_until:
            raise SessionStoreUnavailable("Session store unavailable: circuit breaker is open")
        self._open_until = now + RETRY_SECONDS

    def record(self, error: Exception | None = None) -> None:
        """Close if the store answered, even with an error; open if it did not."""
        if error is not None and not isinstance(error, ResponseError):
            self._open_until = time.monotonic() + RETRY_SECONDS
            self._measure(is_open=True)
        elif self._open_until is not None:
            self._open_until = None
            self._measure(is_open=False)

    def _measure(self, *, is_open: bool) -> None:
        if self._measured:
            metrics.breaker(is_open=is_open)
