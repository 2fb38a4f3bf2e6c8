"""Where the workers of this machine put their metrics together."""

from __future__ import annotations

import os
from pathlib import Path


def prepare(folder: Path) -> None:
    """Let prometheus-client keep its counts in files in `folder`; call before it is imported.

    A PROMETHEUS_MULTIPROC_DIR in the environment wins. What workers that ended have left is removed once none of
    them lives, for counts must not go back while one does.
    """
    folder = Path(os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", str(folder)))
    folder.mkdir(parents=True, exist_ok=True)
    files = {file: int(file.stem.rpartition("_")[2]) for file in folder.glob("*_[0-9]*.db")}
    if not any(_is_another(pid) for pid in files.values()):
        for file in files:
            file.unlink(missing_ok=True)


def _is_another(pid: int) -> bool:
    """Whether a process lives and is not this one: in a container each start has the same number."""
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
