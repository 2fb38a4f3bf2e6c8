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
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from prometheus_client import mmap_dict

from sentinel_project.metrics_folder import process_of

logger = logging.getLogger(__name__)

INITIAL_BYTES: int = mmap_dict._INITIAL_MMAP_SIZE
ENTRY_BYTES = 4 + 8 + 16
"""What an entry needs at most besides its key: the key's length, its padding, the value and its time."""
MAX_ENDED = 32
"""How many ended processes have files of their own: each makes `/metrics` slower by half a millisecond."""


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
        elif _has_space(filename, INITIAL_BYTES):
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
        if size > self._capacity and sys.platform == "linux" and not _has_space(self._fname, size):
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


def _has_space(filename: str, size: int) -> bool:
    """Give a file space; log a failure."""
    try:
        _allocate(filename, size)
    except OSError as exc:
        logger.error(
            "/metrics lacks new counts of process %d until it is restarted: %s: %s", os.getpid(), filename, exc.strerror
        )
        return False
    return True


def _allocate(filename: str, size: int) -> None:
    """Create a file if it is missing, and give it space; a new one stays empty if there is none. Raises `OSError`."""
    with open(filename, "a+b") as file:
        before = os.fstat(file.fileno()).st_size
        try:
            if sys.platform == "linux":
                os.posix_fallocate(file.fileno(), 0, max(size, before))
            else:
                file.truncate(max(size, before))
        except OSError:
            file.truncate(before)
            raise


def merge_ended(folder: Path, is_alive: Callable[[int], bool]) -> None:
    """Merge the counts of ended processes, once they are many; no other process may read or merge them at that time.

    Raises `OSError`, and leaves the files as they are, if the merged file has no space.
    """
    for kind in ("counter", "histogram"):
        ended = [file for file in folder.glob(f"{kind}_*.db") if not is_alive(process_of(file))]
        if len(ended) <= MAX_ENDED:
            continue
        sums: defaultdict[str, float] = defaultdict(float)
        for file in ended:
            if file.stat().st_size:  # a process that was killed as it created its file left it empty
                values = mmap_dict.MmapedDict.read_all_values_from_file(file)  # type: ignore[no-untyped-call]
                for key, value, _, _ in values:
                    sums[key] += value
        merged = folder / f"{kind}.merged"
        merged.unlink(missing_ok=True)
        _allocate(str(merged), INITIAL_BYTES + sum(len(key.encode()) + ENTRY_BYTES for key in sums))
        counts = CountsFile(str(merged))
        for key, value in sums.items():
            counts.write_value(key, value, 0.0)  # type: ignore[no-untyped-call]
        counts.close()  # type: ignore[no-untyped-call]
        merged.replace(ended[0])
        for file in ended[1:]:
            file.unlink()
