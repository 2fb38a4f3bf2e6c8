"""Record turns in the background: a bounded queue, flushed in batches.

What the store may have recorded is not sent twice: after an error the batch is dropped. While the circuit breaker is
open turns wait, until the queue is full.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque

from sentinel_project.gateway import metrics
from sessions_sticky import InvalidSession, SessionStoreUnavailable, Turn, sessions
from sessions_sticky.turns import check_turn

logger = logging.getLogger(__name__)

MAX_QUEUED = 10_000
"""Maximum number of queued turns; more means that the store is too slow."""
BATCH = 50
"""One takes some milliseconds of Redis, in which chats wait."""
FLUSH_SECONDS = 1.0
STOP_SECONDS = 2.0
"""How long a worker that stops waits for the store."""


class Recorder:
    """The queue of one worker."""

    def __init__(self) -> None:
        self._queue: deque[Turn] = deque()
        self._wake: asyncio.Event | None = None
        self._flushing: asyncio.Task[None] | None = None
        self._is_failing = False

    def put(self, turn: Turn, *, soon: bool = False) -> None:
        """Queue a turn that has ended; drop it when the queue is full. `soon` flushes without waiting for others."""
        if len(self._queue) >= MAX_QUEUED:
            metrics.turns_dropped.inc()
            return
        self._queue.append(turn)
        if soon and self._wake is not None:
            self._wake.set()

    async def flush_forever(self) -> None:
        """Flush until cancelled."""
        self._wake = asyncio.Event()
        while True:
            self._wake.clear()
            await self.flush()
            if self._is_failing:
                await asyncio.sleep(FLUSH_SECONDS)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_SECONDS):
                    await self._wake.wait()

    async def flush(self) -> None:
        """Record the turns that are queued now, or await the flush that is running.

        A cancelled caller does not end it: a batch that is half recorded would be missing from the sums.
        """
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._flush())
        await asyncio.shield(self._flushing)

    async def stop(self) -> None:
        """Record the remaining turns before the worker ends; count those that the store does not take in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                await self.flush()  # it may have begun before the last turns were queued
                await self.flush()
        metrics.turns_dropped.inc(len(self._queue))
        self._queue.clear()

    async def _flush(self) -> None:
        left = len(self._queue)  # later ones wait: under load batches would be small
        while left > 0:
            batch = [self._queue.popleft() for _ in range(min(BATCH, left))]
            left -= len(batch)
            try:
                await sessions.arecord_turns(batch)
                self._is_failing = False
            except SessionStoreUnavailable as exc:
                if not self._is_failing:
                    logger.warning("turns are not recorded: %s", exc)
                self._is_failing = True
                if exc.__cause__ is None:  # the circuit breaker is open: nothing was sent, so it can be sent later
                    self._queue.extendleft(reversed(batch))
                    return
                metrics.turns_dropped.inc(len(batch))
            except InvalidSession:  # raised before anything is sent
                valid = [turn for turn in batch if _is_valid(turn)]
                self._queue.extendleft(reversed(valid))
                left += len(valid)
            except Exception:  # also one that is not expected: the next batch must not wait for a restart, or be lost
                metrics.turns_dropped.inc(len(batch))
                logger.exception("turns cannot be recorded")


def _is_valid(turn: Turn) -> bool:
    """Return whether a turn can be recorded; count and log one that cannot."""
    try:
        check_turn(turn)
    except InvalidSession as exc:
        metrics.turns_dropped.inc()
        logger.error("a turn cannot be recorded: %s", exc)
        return False
    return True


recorder = Recorder()
