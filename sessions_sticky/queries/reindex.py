"""Making the index true: every session is in it, and nothing else; see operations.py for the form."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

from sessions_sticky import keys
from sessions_sticky.connections.commands import Batch, Command, Everywhere
from sessions_sticky.policy import Operation, readable
from sessions_sticky.queries.index_reader import IndexEntry, Row, Walk
from sessions_sticky.stores import index
from sessions_sticky.stores.base import Store

BATCH_SIZE = 500
"""Keys, entries or sessions looked at in one step (1 to 2 ms; more where memory is cold), while other clients wait."""
ENTER_SIZE = 100
"""Sessions entered in one step (1 to 2 ms)."""

Progress = Callable[[int, int], object]
"""Called after each step with the number of keys looked at so far and the number expected; to stop, raise."""


class Reindex:
    """Rebuilds the index of one store while it is in use; done half, it has done no harm."""

    def __init__(self, store: Store[Any], ttl_seconds: int) -> None:
        self._walk = Walk(store, ttl_seconds)
        self._counts_new = False

    def reindex(self, progress: Progress | None) -> Operation[int]:
        """Drop the entries that have no session, then enter the sessions that have no entry."""
        expected = 2 * sum((yield Everywhere(Command(("DBSIZE",)))))
        # Where some are counted all that were counted may be: only the index was lost.
        self._counts_new = not any((yield index.created()))
        looked_at = found = 0
        for pattern, see_to in ((f"{keys.INDEX_PREFIX}*", self._sweep), (f"{keys.SESSION_PREFIX}*", self._enter)):
            cursor: bytes | None = b"0"
            while cursor is not None:
                cursor, names = yield index.scan(cursor, pattern, BATCH_SIZE)
                cursor = None if cursor == b"0" else cursor
                found += yield from see_to(names)
                looked_at = min(looked_at + BATCH_SIZE, expected)
                if progress:
                    progress(looked_at, expected)
        return found

    def _sweep(self, names: list[bytes]) -> Operation[int]:
        """Drop the entries of some index keys that have no session, and keys of a wrong type."""
        zsets = [name.decode(errors="replace") for name in names if not name.startswith(keys.INDEX_WALKS.encode())]
        if keys.INDEX_WALKS.encode() in names and not (yield Command(("HLEN", keys.INDEX_WALKS))):
            yield Command(("DEL", keys.INDEX_WALKS))
        left: list[tuple[str, bytes]] = [(zset, b"0") for zset in zsets]
        while left:
            step, left = left[:BATCH_SIZE], left[BATCH_SIZE:]
            count = BATCH_SIZE // len(step) + 1
            replies = yield Batch([index.scan_zset(zset, cursor, count) for zset, cursor in step])
            entries: list[IndexEntry] = []
            for (zset, _), reply in zip(step, replies, strict=True):
                if not reply:
                    yield Command(("DEL", zset))
                    continue
                cursor, flat = reply
                if cursor != b"0":
                    left.append((zset, cursor))
                if zset != keys.INDEX_ROUTES:
                    pairs = zip(flat[::2], flat[1::2], strict=True)
                    entries += [IndexEntry(zset, member, score.decode()) for member, score in pairs]
            remaining = iter(entries)
            while part := list(islice(remaining, BATCH_SIZE)):
                yield from self._walk.verify(part)
        return 0

    def _enter(self, names: list[bytes]) -> Operation[int]:
        """Enter the sessions under some keys, where they are missing; return how many sessions there are."""
        members = [name.removeprefix(keys.SESSION_PREFIX.encode()) for name in names]
        if not members:
            return 0
        _, *found = yield index.read_sessions(members)
        rows = [
            Row(session, raw, left_ms)
            for member, raw, left_ms in zip(members, found[::2], found[1::2], strict=True)
            if (session := readable(member.decode(errors="replace"), raw))
        ]
        rows.sort(key=lambda row: (row.session.provider, row.session.model))  # those of one step share few ZSETs
        parts = [rows[at : at + ENTER_SIZE] for at in range(0, len(rows), ENTER_SIZE)]
        late = yield Batch([self._request(part) for part in parts])
        new = [
            part[-place - 1].session for part, places in zip(parts, late, strict=True) for place in places if place < 0
        ]
        if new and self._counts_new:
            yield Batch(index.count_created(new))
        return len(rows)

    def _request(self, rows: list[Row]) -> Command:
        sessions = [(row.session, self._walk.left_ms(row)) for row in rows]
        return index.enter(sessions, [row.raw for row in rows])
