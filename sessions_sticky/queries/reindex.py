"""Rebuild the index, so that it contains exactly the existing sessions."""

from __future__ import annotations

from sessions_sticky import keys
from sessions_sticky.connections.commands import AllPrimaries, Batch, Command
from sessions_sticky.queries.index_reader import BATCH_SIZE, IndexEntry, IndexReader, Progress, read_entries
from sessions_sticky.stores import index
from sessions_sticky.stores.base import Store


class Reindex:
    """Rebuilds the index of one store while it is in use; an interruption is harmless."""

    def __init__(self, store: Store, ttl_seconds: int) -> None:
        self._store = store
        self._reader = IndexReader(store, ttl_seconds)

    def reindex(self, progress: Progress | None) -> int:
        """Drop entries without a session, then add sessions without an entry."""
        expected = 2 * sum(self._store.send(AllPrimaries(Command(("DBSIZE",)))))
        read = found = 0
        for pattern, handler in ((f"{keys.index_prefix()}*", self._sweep), (f"{keys.session_prefix()}*", self._enter)):
            cursor: bytes | None = b"0"
            while cursor is not None:
                cursor, names = self._store.send(index.scan(cursor, pattern, BATCH_SIZE))
                cursor = None if cursor == b"0" else cursor
                found += handler(names)
                read = min(read + BATCH_SIZE, expected)
                if progress:
                    progress(read, expected)
        return found

    def _sweep(self, names: list[bytes]) -> int:
        """Drop entries without a session from some index keys, and index keys of a wrong type."""
        left = [(name.decode(errors="replace"), b"0") for name in names]
        while left:  # many ZSETs at a time: most belong to owners with few sessions
            step, left = left[:BATCH_SIZE], left[BATCH_SIZE:]
            count = BATCH_SIZE // len(step) + 1
            replies = self._store.send(Batch([index.scan_zset(zset, cursor, count) for zset, cursor in step]))
            entries: list[IndexEntry] = []
            for (zset, _), reply in zip(step, replies, strict=True):
                if not reply:
                    self._store.send(Command[int](("DEL", zset)))
                    continue
                cursor, flat = reply
                if cursor != b"0":
                    left.append((zset, cursor))
                if zset != keys.index_routes():
                    entries += read_entries(zset, flat)
            for at in range(0, len(entries), BATCH_SIZE):
                self._reader.verify(entries[at : at + BATCH_SIZE])
        return 0

    def _enter(self, names: list[bytes]) -> int:
        """Add missing entries for the sessions of some keys; return the number of sessions."""
        members = [name.removeprefix(keys.session_prefix().encode()) for name in names]
        now, found = self._reader.read(members)
        if rows := [row for row in found if row is not None]:
            late = self._reader.out_of_date(rows, now)
            self._store.send(Batch([self._reader.refresh(row) for row in late]))
        return len(rows)
