"""The time of turns: the wall clock at the start of the process, advanced by the monotonic clock.

A step of the machine's clock would otherwise let every prompt cache look expired, or warm for hours.
"""

from __future__ import annotations

import time

_OFFSET = time.time() - time.monotonic()


def now() -> float:
    """Return the time in Unix seconds."""
    return _OFFSET + time.monotonic()
