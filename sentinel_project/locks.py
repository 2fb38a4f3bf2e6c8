"""File locks: the kernel releases them when their holder closes the file or ends, even after kill -9.

On Windows, which has none of these, they lock nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import BinaryIO

if sys.platform != "win32":
    import fcntl


def shared(path: Path) -> BinaryIO:
    """Return the file, locked together with other sharers; waits for an exclusive holder to end."""
    return _locked(path, is_shared=True)


def exclusive(path: Path) -> BinaryIO:
    """Return the file, locked alone until it is closed; waits for all others to end."""
    return _locked(path)


def try_exclusive(path: Path) -> BinaryIO | None:
    """Return the file, locked for this process and for those that inherit it until the last one ends; None if taken."""
    try:
        return _locked(path, waits=False)
    except BlockingIOError:
        return None


def _locked(path: Path, *, is_shared: bool = False, waits: bool = True) -> BinaryIO:
    file = open(path, "ab")  # noqa: SIM115 - the caller closes it
    try:
        if sys.platform != "win32":
            fcntl.flock(file, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | (0 if waits else fcntl.LOCK_NB))
    except BaseException:
        file.close()
        raise
    return file
