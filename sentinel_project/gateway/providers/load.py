"""Requests in flight to each provider in this process, and requests that wait for a place."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from math import ceil, inf

from sentinel_project.gateway.providers.config import Provider

MIN_RETRIES = 3
RETRY_SHARE = 0.2
MIN_BOUND = 4
BOUND_FACTOR = 1.25
BUCKET_REQUESTS = 4
SLOW_EXCESSES = 3
SLOW_TRY_SECONDS = 30.0

Limit = Callable[[], float]
"""The current limit of requests in flight; called again after changes."""


class Gate:
    """Admits requests to a provider. Waiting requests are admitted round-robin by owner."""

    def __init__(self) -> None:
        self.in_flight = 0
        self._waiting: dict[str, deque[tuple[asyncio.Future[None], Limit]]] = {}
        self._queued = 0

    async def enter(self, owner: str, limit: Limit, *, wait_seconds: float = 0, max_queued: float = inf) -> bool:
        """Admit a request, perhaps after waiting; return False if there is no room. Call `leave` after True."""
        if self.enter_at_once(limit()):
            return True
        if wait_seconds <= 0 or self._queued >= max_queued:
            return False
        admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(owner, deque()).append((admitted, limit))
        self._queued += 1
        try:
            await asyncio.wait([admitted], timeout=wait_seconds)
        except asyncio.CancelledError:
            if admitted.done():
                self.leave()
            raise
        finally:
            if not admitted.done():
                self._remove(owner, admitted)
        return admitted.done()

    def enter_at_once(self, limit: float) -> bool:
        """Admit a request if there is room and none waits; return whether it is admitted."""
        if self._queued or self.in_flight >= limit:
            return False
        self.in_flight += 1
        return True

    def leave(self) -> None:
        """Record the end of a request, and admit the next."""
        self.in_flight -= 1
        self.wake()

    def wake(self) -> None:
        """Admit those that wait, as far as there is room."""
        while self._waiting:
            owner, queue = next(iter(self._waiting.items()))
            admitted, limit = queue[0]
            if self.in_flight >= limit():
                return
            self._remove(owner, admitted)
            if queue:  # this owner's turn comes again after all others
                self._waiting[owner] = self._waiting.pop(owner)
            self.in_flight += 1
            admitted.set_result(None)

    def _remove(self, owner: str, admitted: asyncio.Future[None]) -> None:
        queue = self._waiting[owner]
        queue.remove(next(each for each in queue if each[0] is admitted))
        self._queued -= 1
        if not queue:
            del self._waiting[owner]


class Pace:
    """Whether a provider starts its streams in time. A slow one gets one request per `SLOW_TRY_SECONDS`."""

    def __init__(self) -> None:
        self._excesses = 0
        self._tried_at = 0.0

    def begin(self, now: float) -> None:
        """Record a request at a monotonic time."""
        if self.is_late:
            self._tried_at = now

    def record(self, now: float, *, is_late: bool) -> None:
        """Record at a monotonic time whether a stream began later than the provider's `first_byte_seconds`."""
        self._excesses = self._excesses + 1 if is_late else 0
        self._tried_at = now

    @property
    def is_late(self) -> bool:
        """Whether its last streams all began too late."""
        return self._excesses >= SLOW_EXCESSES

    def is_slow(self, now: float) -> bool:
        """Return whether requests should go elsewhere."""
        return self._excesses >= SLOW_EXCESSES and now - self._tried_at < SLOW_TRY_SECONDS


class Load:
    """The requests that this process has in flight: by model, by session, and in the gates of providers."""

    def __init__(self) -> None:
        self.requests: dict[str, int] = {}
        self.sessions: dict[str, int] = {}
        self.workers = 1
        """How many processes serve on this host: each has its part of a provider's `max_in_flight`."""
        self.gates: dict[str, Gate] = defaultdict(Gate)
        self.paces: dict[str, Pace] = defaultdict(Pace)
        self.retries: dict[str, Gate] = defaultdict(Gate)
        """The gates of further attempts, by model."""

    def begin(self, model: str, session_id: str | None) -> Callable[[], None]:
        """Count a request in flight; return what to call at its end."""
        counted = [(self.requests, model), *([(self.sessions, session_id)] if session_id is not None else [])]
        for counts, key in counted:
            counts[key] = counts.get(key, 0) + 1

        def end() -> None:
            for counts, key in counted:
                counts[key] -= 1
                if not counts[key]:
                    del counts[key]

        return end

    def retry_limit(self, model: str) -> float:
        """Return how many further attempts of a model's requests may be in flight: Envoy's retry budget."""
        return max(MIN_RETRIES, RETRY_SHARE * self.requests.get(model, 0))

    def room(self, provider: Provider) -> float:
        """Return this process's part of a provider's `max_in_flight`; infinite without one."""
        return max(1, provider.max_in_flight // self.workers) if provider.max_in_flight else inf

    def overfull(self, providers: Sequence[Provider]) -> set[str]:
        """Return the names of those that have more than their share, by weight, of what is in flight to all of them.

        After the bounded loads of consistent hashing: with one more request it may be a quarter above its share.
        """
        total = sum([self.gates[each.name].in_flight for each in providers])
        if total < MIN_BOUND:
            return set()
        weights = sum([each.weight for each in providers]) or 1
        found = set()
        for each in providers:
            bound = ceil(BOUND_FACTOR * each.weight / weights * (total + 1))
            if self.gates[each.name].in_flight + 1 > max(MIN_BOUND, bound):
                found.add(each.name)
        return found

    def is_bucket(self, session_id: str) -> bool:
        """Return whether a content session has too many requests in flight for a single conversation."""
        return self.sessions.get(session_id, 0) >= BUCKET_REQUESTS

    async def count_workers_forever(self, count: Callable[[], int]) -> None:
        """Keep the number of workers up to date until cancelled."""
        while True:
            self.workers = max(1, await asyncio.to_thread(count))
            await asyncio.sleep(1)
