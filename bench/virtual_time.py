"""An event loop whose clock jumps to the next timer: hours of waiting pass in moments, and always in the same order."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A loop that never waits. Only for code without threads and sockets."""

    def __init__(self) -> None:
        self._virtual = 0.0
        super().__init__(_Selector(self))

    def time(self) -> float:
        """Return the virtual time, in seconds since the start."""
        return self._virtual

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._virtual += seconds


class _Selector(selectors.SelectSelector):
    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        """Return what is ready now; when nothing is, let the time pass instead of waiting."""
        ready = super().select(0)
        if not ready and timeout:
            self._loop.advance(timeout)
        return ready
