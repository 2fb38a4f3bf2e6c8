"""Warn about a data directory that other users can read: it contains keys, tokens and password hashes."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Tags, Warning, register

logger = logging.getLogger(__name__)

OTHERS = 0o007
"""The bits of a mode that are for users outside the file's group; groups are often given on purpose, as to volumes."""
MAX_NAMED = 3
"""Files that a warning names."""


@register(Tags.security)
def check_data_folder(**kwargs: Any) -> list[CheckMessage]:
    """Return a warning when other users can read or change files of `DATA_DIR`."""
    exposed = sorted(_exposed(settings.DATA_DIR))
    if not exposed:
        return []
    names = ", ".join(exposed[:MAX_NAMED]) + (f" and {len(exposed) - MAX_NAMED} more" if exposed[MAX_NAMED:] else "")
    return [
        Warning(
            f"Other users can read or change files in SENTINEL_DATA_DIR ({settings.DATA_DIR}): {names}.",
            hint=f"Remove their access: chmod -R o= {settings.DATA_DIR}",
            id="sentinel.W001",
        )
    ]


def log_exposed_files() -> None:
    """Log the warning of the check: servers are started without checks."""
    for found in check_data_folder():
        logger.warning("%s %s", found.msg, found.hint)


def _exposed(folder: Path) -> Iterator[str]:
    """Yield the names of entries that other users can access; none if they cannot enter the folder."""
    if os.name != "posix" or not stat.S_IMODE(folder.stat().st_mode) & OTHERS:
        return
    for entry in os.scandir(folder):
        with suppress(FileNotFoundError):  # SQLite's files come and go
            mode = entry.stat(follow_symlinks=False).st_mode
            if stat.S_IMODE(mode) & OTHERS and (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                yield entry.name
