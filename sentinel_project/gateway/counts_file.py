"""prometheus-client's files of counts, safe on a full disk.

prometheus-client maps a sparse file into memory. If the disk is full when a count touches a new page of it, the kernel
ends the process with SIGBUS: every worker, one after another. So the space is allocated first, which fails with an
error instead.
"""

from __future__ import annotations

import logging
import mmap
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from prometheus_client import mmap_dict

logger = logging.getLogger(__name__)

INITIAL_BYTES: int = mmap_dict._INITIAL_MMAP_SIZE
ENTRY_BYTES = 4 + 8 + 16
"""What an entry needs at most besides its key: the key's length, its padding, the value and its time."""


class CountsFile(mmap_dict.MmapedDict):
    """Counts of one kind and process, in a file that has its space; in memory alone if there is none.

    Counts in memory continue, but `/metrics` lacks them until the process is restarted.
    """

    _f: Any
    _m: Any
    _used: int
    _capacity: int

    def __init__(self, filename: str, read_mode: bool = False) -> None:
        open_counts = cast("Callable[[str, bool], None]", super().__init__)
        if read_mode or sys.platform != "linux":
            open_counts(filename, read_mode)
        elif _allocate(filename, INITIAL_BYTES):
            open_counts(filename, False)
        else:
            memory = os.memfd_create(Path(filename).name)
            open_counts(f"/proc/self/fd/{memory}", False)
            os.close(memory)

    def _init_value(self, key: str) -> None:
        """Add an entry; prometheus-client doubles the file as often as necessary."""
        size = self._capacity
        while self._used + len(key.encode()) + ENTRY_BYTES > size:
            size *= 2
        if size > self._capacity and sys.platform == "linux" and not _allocate(self._fname, size):
            self._move_to_memory()
        super()._init_value(key)  # type: ignore[no-untyped-call]

    def _move_to_memory(self) -> None:
        """Copy the counts; the file keeps them as they were."""
        memory = open(os.memfd_create(Path(self._fname).name), "a+b")  # noqa: SIM115 - as prometheus-client's own
        memory.truncate(self._capacity)
        counts = mmap.mmap(memory.fileno(), self._capacity)
        counts[:] = self._m[:]
        self.close()  # type: ignore[no-untyped-call]
        self._f, self._m, self._fname = memory, counts, f"/proc/self/fd/{memory.fileno()}"


def _allocate(filename: str, size: int) -> bool:
    """Create a file if it is missing, and give it space; log a failure. A new file stays empty then."""
    try:
        with open(filename, "a+b") as file:
            before = os.fstat(file.fileno()).st_size
            try:
                os.posix_fallocate(file.fileno(), 0, max(size, before))
            except OSError:
                file.truncate(before)
                raise
    except OSError as exc:
        logger.error(
            "/metrics lacks new counts of process %d until it is restarted: %s: %s", os.getpid(), filename, exc.strerror
        )
        return False
    return True
