"""How a worker allocates memory: what requests free is used by the next ones."""

from __future__ import annotations

import ctypes
import gc
import os
import sys

YOUNG_OBJECTS = 10_000
"""How many new objects start a garbage collection: more than the requests in flight make. With Python's 700 each wave
of requests starts several, which takes 8 % of the time."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt(3)."""
KEPT_BYTES = 32 * 2**20
"""How much free memory a worker keeps at the end of its heap. By default glibc returns it to the system after
each large body, and the next one takes a page fault for each 4 KiB: 10 to 14 % of the CPU time of a request of 110 KB.
What is free between allocations in use is never returned, whatever the threshold."""
LARGE_BYTES = 2**20
"""Larger blocks are outside of the heap, and returned to the system at once."""


def tune() -> None:
    """Tune garbage collection, and the allocator of C unless the environment does; all modules must be loaded."""
    # Exclude loaded objects from garbage collection, which avoids the longest pauses (40 ms).
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)
    if sys.platform == "linux" and not any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:  # another C library, such as musl, has none
            mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
            mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
