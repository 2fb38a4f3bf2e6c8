"""Where the workers of this machine put their metrics together."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def prepare(folder: Path) -> None:
    """Let prometheus-client keep its counts in files in `folder`; call before it is imported.

    A PROMETHEUS_MULTIPROC_DIR in the environment wins. What workers that ended have left is removed once none of
    them lives, for counts must not go back while one does.
    """
    folder = Path(os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", str(folder)))
    folder.mkdir(parents=True, exist_ok=True)
    files = {file: process_of(file) for file in folder.glob("*_[0-9]*.db")}
    # Not this process's own number: in a container each start has the same.
    if not any(pid != os.getpid() and is_alive(pid) for pid in files.values()):
        for file in files:
            file.unlink(missing_ok=True)


def process_of(file: Path) -> int:
    """Return the number of the process that writes a file of counts."""
    return int(file.stem.rpartition("_")[2])


def is_alive(pid: int) -> bool:
    """Tell whether a process lives; on Windows, where asking would end it, it is taken to."""
    if sys.platform == "win32":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
