"""A time limit for each event of a stream, cheaper than `asyncio.timeout` (10 us of the 50 us of an event)."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from sentinel_project.lazy_timer import LazyTimer


class Alarm(LazyTimer):
    """Cancels a block that takes too long, like `asyncio.timeout_at`, with a timer that outlives the block."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._limit = 0.0
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._has_rung = False

    def at(self, until: float) -> Self:
        """Limit the block that follows to the loop's time `until`."""
        self._limit = until
        return self

    def __enter__(self) -> None:
        task = asyncio.current_task(self._loop)
        assert task is not None  # noqa: S101 - coroutines run in tasks
        self._task, self._cancelling, self._has_rung = task, task.cancelling(), False
        self.start_at(self._limit)

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.pause()
        task, self._task = self._task, None
        is_own = self._has_rung and task is not None and task.uncancel() <= self._cancelling
        if is_own and kind is asyncio.CancelledError:
            raise TimeoutError from exc

    def expire(self) -> None:
        """Cancel the task of the block."""
        assert self._task is not None  # noqa: S101 - the timer pauses between blocks
        self._has_rung = True
        self._task.cancel()
