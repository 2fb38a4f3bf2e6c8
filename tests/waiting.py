"""Waits and durations on a machine that may be busy."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SECONDS = 30.0
"""How long to wait for what must happen; give another number only where the time itself is tested."""
SCHEDSTAT = Path("/proc/thread-self/schedstat")


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


def own_seconds() -> float:
    """Return a time without the waits of this thread for a CPU, which Linux counts."""
    waited = SCHEDSTAT.read_text().split()[1] if SCHEDSTAT.exists() else 0  # in ns
    return time.monotonic() - int(waited) / 1e9
