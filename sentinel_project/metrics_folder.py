"""The directory in which the workers of this machine share their metrics."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from sentinel_project import environment


def prepare(folder: Path) -> None:
    """Let prometheus-client keep its counts in files in `folder`; call before it is imported.

    PROMETHEUS_MULTIPROC_DIR in the environment takes precedence; the program ends if it cannot be created. Files of
    ended workers are removed when none of them is alive: counts must not decrease while one is.
    """
    folder = environment.folder("PROMETHEUS_MULTIPROC_DIR", default=folder)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    files = {file: process_of(file) for file in folder.glob("*_[0-9]*.db")}
    # Not this process's own number: in a container each start has the same.
    if not any(pid != os.getpid() and is_alive(pid) for pid in files.values()):
        for file in files:
            file.unlink(missing_ok=True)


def process_of(file: Path) -> int:
    """Return the number of the process that writes a file of counts."""
    return int(file.stem.rpartition("_")[2])


def is_alive(pid: int) -> bool:
    """Return whether a process is alive; True on Windows, where checking would end it."""
    if sys.platform == "win32":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
