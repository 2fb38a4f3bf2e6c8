"""A timer that is cheap to set again, for time limits that hardly ever expire."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod


class LazyTimer(ABC):
    """Calls `expire` at a time of the loop.

    A later time does not reset the loop's timer, nor does `pause`: it fires too early and is then set again.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._handle: asyncio.TimerHandle | None = None
        self._until: float | None = None

    @abstractmethod
    def expire(self) -> None:
        """Act on the end of the time."""

    def start_at(self, until: float) -> None:
        """Expire at the loop's time `until`, instead of any other time."""
        self._until = until
        if self._handle is None or self._handle.when() > until:
            self._set(until)

    def pause(self) -> None:
        """Do not expire, until the next start, which is cheap."""
        self._until = None

    def cancel(self) -> None:
        """Do not expire, and drop the loop's timer, which refers to this one."""
        self._until = None
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _set(self, until: float) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._handle = self._loop.call_at(until, self._fire)

    def _fire(self) -> None:
        self._handle, until = None, self._until
        if until is None:
            return
        if self._loop.time() < until:
            self._set(until)
        else:
            self._until = None
            self.expire()
