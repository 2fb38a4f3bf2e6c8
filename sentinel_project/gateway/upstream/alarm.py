"""A time limit for each event of a stream, cheaper than `asyncio.timeout` (10 us of the 50 us of an event)."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self


class Alarm:
    """Cancels a block that takes too long, like `asyncio.timeout_at`, with a timer that outlives the block.

    A later limit does not reset the timer: it fires too early and is then rescheduled.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._until = 0.0
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._has_rung = False

    def at(self, until: float) -> Self:
        """Limit the block that follows to the loop's time `until`."""
        self._until = until
        return self

    def __enter__(self) -> None:
        task = asyncio.current_task(self._loop)
        assert task is not None  # noqa: S101 - coroutines run in tasks
        self._task, self._cancelling, self._has_rung = task, task.cancelling(), False
        if self._timer is None or self._timer.when() > self._until:
            self._set()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        is_own = self._has_rung and task is not None and task.uncancel() <= self._cancelling
        if is_own and kind is asyncio.CancelledError:
            raise TimeoutError from exc

    def close(self) -> None:
        """Drop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self) -> None:
        self.close()
        self._timer = self._loop.call_at(self._until, self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._task is None:
            return  # the next block sets it
        if self._loop.time() < self._until:
            self._set()
        else:
            self._has_rung = True
            self._task.cancel()
