"""The outlier rule: when failures that may be a request's own fault are the provider's.

It follows Envoy's outlier detection (consecutive failures, failure percentage with a minimum volume), and adds that
the failures must come from two conversations. One request that makes a provider fail proves nothing about the next one.
"""

from __future__ import annotations

from collections import deque

STREAK = 3
WINDOW_SECONDS = 10.0
MIN_REQUESTS = 10
MIN_CONVERSATIONS = 2


class Evidence:
    """The outcomes of one provider's requests in this process; times are monotonic seconds."""

    def __init__(self) -> None:
        self._outcomes: deque[tuple[float, str | None]] = deque()
        self._failures = 0
        self._streak: list[str] = []

    def record_answer(self, now: float) -> None:
        """Count a request that the provider answered."""
        self._streak.clear()
        self._record(now, None)

    def record_failure(self, now: float, conversation: str) -> bool:
        """Count a failed request; return whether the provider is an outlier. If so, reset the counters."""
        self._record(now, conversation)
        self._failures += 1
        if conversation not in self._streak or len(self._streak) < STREAK:
            self._streak.append(conversation)
        is_streak = len(self._streak) >= STREAK and len(set(self._streak)) >= MIN_CONVERSATIONS
        is_outlier = is_streak or self._is_half_failing()
        if is_outlier:
            self._outcomes.clear()
            self._streak.clear()
            self._failures = 0
        return is_outlier

    def _is_half_failing(self) -> bool:
        if len(self._outcomes) < MIN_REQUESTS or 2 * self._failures < len(self._outcomes):
            return False
        return len({conversation for _, conversation in self._outcomes if conversation}) >= MIN_CONVERSATIONS

    def _record(self, now: float, conversation: str | None) -> None:
        self._outcomes.append((now, conversation))
        while self._outcomes[0][0] < now - WINDOW_SECONDS:
            self._failures -= self._outcomes.popleft()[1] is not None
