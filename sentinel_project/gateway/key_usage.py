"""Last uses of API keys, collected in memory and written to the database in the background."""

from __future__ import annotations

import time
from collections import defaultdict
from datetime import UTC, datetime

from django.db.models import Q

from sentinel_project.gateway.models import ApiKey

MINUTE = 60
BATCH_SIZE = 500
"""Keys that one statement changes; SQLite takes no statement with thousands of values."""


class KeyUses:
    """The last uses that this process has seen, to the minute, by the digest of their key.

    `note` and `write` may run at the same time, in two threads.
    """

    def __init__(self) -> None:
        self._used: dict[str, int] = {}
        self._written: dict[str, int] = {}

    def note(self, name: str) -> None:
        """Record a use of a key."""
        self._used[name] = int(time.time()) // MINUTE

    def write(self) -> None:
        """Write new uses, each key at most once a minute; keep a later use that another process wrote.

        Raises the errors of the database; unwritten uses are kept for the next call.
        """
        by_minute = defaultdict(list)
        for name, minute in self._used.copy().items():
            if self._written.get(name) != minute:
                by_minute[minute].append(name)
        for minute, names in by_minute.items():
            for start in range(0, len(names), BATCH_SIZE):
                self._write_batch(minute, names[start : start + BATCH_SIZE])

    def _write_batch(self, minute: int, names: list[str]) -> None:
        used_at = datetime.fromtimestamp(minute * MINUTE, UTC)
        is_new = Q(last_used_at=None) | Q(last_used_at__lt=used_at)
        ApiKey.objects.filter(is_new, digest__in=names).update(last_used_at=used_at)
        self._written.update(dict.fromkeys(names, minute))
