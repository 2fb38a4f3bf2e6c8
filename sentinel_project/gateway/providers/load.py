"""The requests that this process has in flight to each provider, and those that wait for one of them to end."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from math import inf

Limit = Callable[[], float]
"""How many requests may be in flight now; asked again whenever that may have changed."""


class Gate:
    """Admits requests to one provider. Those that wait are admitted owner by owner, in turn."""

    def __init__(self) -> None:
        self.in_flight = 0
        self._waiting: dict[str, deque[tuple[asyncio.Future[None], Limit]]] = {}
        self._queued = 0

    async def enter(self, owner: str, limit: Limit, *, wait_seconds: float = 0, max_queued: float = inf) -> bool:
        """Admit a request, if need be after a wait; False when there is no room. `leave` must follow True."""
        if self.in_flight < limit() and not self._queued:
            self.in_flight += 1
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


class Load:
    """The gates of all providers, by name."""

    def __init__(self) -> None:
        self._gates: dict[str, Gate] = {}

    def gate(self, name: str) -> Gate:
        """Return a provider's gate."""
        return self._gates.setdefault(name, Gate())
