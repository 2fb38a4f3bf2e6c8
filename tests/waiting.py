"""Waits and durations on a machine that may be busy."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

SECONDS = 60.0
"""How long to wait for what must happen; give another number only where the time itself is tested."""
THREADS = Path("/proc/self/task")


def wait_until(condition: Callable[[], Any], seconds: float = SECONDS) -> Any:
    """Return the first true value of the condition; fail when there is none in time."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain"
        time.sleep(0.01)
    return value


async def until(condition: Callable[[], Any], seconds: float = SECONDS) -> Any:
    """Do the same while tasks of this loop run."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain"
        await asyncio.sleep(0.01)
    return value


def stopwatch(*processes: int) -> Callable[[], float]:
    """Return a function that returns the seconds since now, without the waits of this process and others for a CPU."""
    began, waited = time.monotonic(), waits(*processes)
    return lambda: time.monotonic() - began - waited()


def waits(*processes: int) -> Callable[[], float]:
    """Return a function that returns for how long this process, and others, have waited for a CPU since now.

    Linux counts the seconds for each thread.
    """
    folders = [THREADS, *(Path(f"/proc/{process}/task") for process in processes)]
    before = _waited(folders)
    return lambda: sum(waited - before.get(thread, 0) for thread, waited in _waited(folders).items()) / 1e9


def _waited(folders: Sequence[Path]) -> dict[str, int]:
    """Return how many nanoseconds each thread has waited for a CPU."""
    waited = {}
    for thread in (each for folder in folders for each in folder.glob("*/schedstat")):
        with suppress(OSError):  # it has ended
            waited[thread.parent.name] = int(thread.read_text().split()[1])
    return waited
