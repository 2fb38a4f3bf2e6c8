"""File locks: the kernel releases them when their holder ends, even after kill -9.

On Windows, which has none of these, they lock nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

if sys.platform != "win32":
    import fcntl


@contextmanager
def shared(path: Path) -> Iterator[None]:
    """Hold the lock together with other sharers; waits for an exclusive holder to end."""
    with _open(path) as file:
        if sys.platform != "win32":
            fcntl.flock(file, fcntl.LOCK_SH)
        yield


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock alone; waits for all others to end."""
    with _open(path) as file:
        if sys.platform != "win32":
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def try_exclusive(path: Path) -> BinaryIO | None:
    """Return the file, locked for this process and for those that inherit it until the last one ends; None if taken."""
    file = _open(path)
    try:
        if sys.platform != "win32":
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def _open(path: Path) -> BinaryIO:
    return open(path, "ab")
