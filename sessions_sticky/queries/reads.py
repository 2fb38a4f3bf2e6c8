"""Pages, counts, statistics and history."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from sessions_sticky import keys, metrics
from sessions_sticky.conf import conf
from sessions_sticky.connections.commands import AllPrimaries, Batch, Command
from sessions_sticky.exceptions import SessionNotSupported, SessionStoreUnavailable
from sessions_sticky.queries import server_info
from sessions_sticky.queries.filters import Filters
from sessions_sticky.queries.index_reader import MAX_ZSETS, IndexEntry, IndexReader, Row, batched
from sessions_sticky.queries.pages import Cursor, HourStats, Page, RouteStats, Stats
from sessions_sticky.session import Entry, readable
from sessions_sticky.stores import index
from sessions_sticky.stores.base import Store, require_index
from sessions_sticky.stores.history import (
    Event,
    conversation_events,
    read_conversation_events,
    read_recent,
    recent_events,
)
from sessions_sticky.stores.usage import read_hashes

MAX_STEPS = 20
"""Maximum number of steps of a page; if few of many sessions match, the page is short."""

_POSITION = re.compile(r"([0-9]{1,20})-([0-9]{1,20})")


class Reads:
    """Reads the index of one store."""

    def __init__(self, store: Store, ttl_seconds: int) -> None:
        self._reader = IndexReader(store, ttl_seconds)
        self._store = store

    def page(self, filters: Filters, cursor: str | None, limit: int) -> Page:
        """Read the next sessions."""
        at: Cursor | None = Cursor.read(cursor, filters.indexed) if cursor else Cursor(filters.indexed)
        rows: list[Row] = []
        for _ in range(MAX_STEPS):
            if at is None or len(rows) == limit:
                break
            more, at = self._reader.step(at, limit - len(rows))
            rows += more
        return Page([row.entry for row in rows], None if at is None else str(at))

    def scan(self, filters: Filters) -> Iterator[Entry]:
        """Yield every matching session once."""
        seen: set[str] = set()
        for rows in self._reader.scan(filters):
            for row in rows:
                if row.session.id not in seen:
                    seen.add(row.session.id)
                    yield row.entry

    def count(self, filters: Filters) -> int:
        """Count index entries; read the sessions if conditions, or an owner and a provider or model, are given."""
        if filters.conditions or (filters.owner is not None and filters.has_route):
            return sum(1 for _ in self.scan(filters))
        return sum(self._counts(self._reader.zsets(filters)))

    def stats(self) -> Stats:
        """Count by route."""
        living = self._route_counts()
        now = int(time.time())
        minutes = [keys.created("minute", now // 60 - ago) for ago in range(-1, 60)]  # -1: clocks differ
        hours = [keys.created("hour", now // 3600 - ago) for ago in range(-1, 24)]
        created = self._store.send(read_hashes([*minutes, *hours]))
        in_hour, in_day = _by_route(created[: len(minutes)]), _by_route(created[len(minutes) :])
        rows = [
            RouteStats(*route, living.get(route, 0), in_hour[route], in_day[route])
            for route in sorted({*living, *in_hour, *in_day})
        ]
        return Stats(sum(living.values()), [row for row in rows if any(row[2:])])

    def export_gauges(self) -> None:
        """Set the gauges of the sessions by provider, and of the memory of the fullest server."""
        numbers = dict.fromkeys(conf.providers or (), 0)
        for (provider, _), number in self._route_counts().items():
            numbers[provider] = numbers.get(provider, 0) + number
        metrics.store_measured(numbers, self._memory_ratio())

    def _memory_ratio(self) -> float:
        try:
            replies = self._store.send(AllPrimaries(Command(("INFO", "memory"))))
        except SessionStoreUnavailable:
            return 0.0  # a hosted server may not permit it; if it is down, the next count fails
        return max((server_info.memory_ratio(server_info.read_info(reply)) or 0.0 for reply in replies), default=0.0)

    def created_per_hour(self) -> list[HourStats]:
        """Sum the routes of each hour of the last day."""
        hour = int(time.time()) // 3600
        hours = self._store.send(read_hashes(keys.created("hour", hour - ago) for ago in range(24)))
        return [
            HourStats(datetime.fromtimestamp((hour - ago) * 3600, UTC), sum(_by_route([counted]).values()))
            for ago, counted in reversed(list(enumerate(hours)))
        ]

    def _route_counts(self) -> dict[tuple[str, str], int]:
        routes = self._reader.routes()
        return dict(zip(routes, self._counts([keys.route(*route) for route in routes]), strict=True))

    def _counts(self, zsets: list[str]) -> list[int]:
        """Return the number of live entries, including those whose sessions must be read to know."""
        return [count for part in batched(zsets, MAX_ZSETS) for count in self._counts_of(part)]

    def _counts_of(self, zsets: list[str]) -> list[int]:
        for _ in range(MAX_STEPS):
            counted = self._store.send(index.count(zsets))
            due = [
                IndexEntry(zset, member, score.decode())
                for zset, (_, *entries) in zip(zsets, counted, strict=True)
                for member, score in zip(entries[::2], entries[1::2], strict=True)
            ]
            alive = [index.zsets(row.session) for row in self._reader.verify(due)]
            if len(due) < index.MAX_DUE:
                break  # otherwise repeat: the entries read so far are repaired and no longer due
        return [
            living[0] + sum(zset in theirs for theirs in alive) for zset, living in zip(zsets, counted, strict=True)
        ]


def history(store: Store, conversation_id: str) -> list[Event]:
    """Return the events of one conversation, oldest first."""
    keys.check(conversation_id)
    _check_history(store)
    found, raw = store.send(
        Batch([conversation_events(conversation_id), Command(("GET", keys.session(conversation_id)))])
    )
    return read_conversation_events(conversation_id, found or [], readable(conversation_id, raw))


def recent(store: Store, after: str | None, limit: int) -> list[Event]:
    """Return the events after a position, or the last ones."""
    _check_history(store)
    if after is not None and not _is_position(after):
        raise ValueError(f"after must be the position of an event, not {after!r}")
    events = read_recent(store.send(recent_events(after, limit)))
    return events if after is not None else events[::-1]


def _is_position(after: object) -> bool:
    found = _POSITION.fullmatch(after) if isinstance(after, str) else None
    return found is not None and all(int(part) < 2**64 for part in found.groups())


def _check_history(store: Store) -> None:
    require_index(store, "keep a history")
    if not conf.history_length:
        raise SessionNotSupported("There is no history: SESSIONS_STICKY['HISTORY_LENGTH'] is 0")


def _by_route(counters: list[list[Any]]) -> Counter[tuple[str, str]]:
    """Sum counters; ignore invalid values of other programs."""
    sums: Counter[tuple[str, str]] = Counter()
    for flat in counters:
        for name, number in zip(flat[::2], flat[1::2], strict=True):
            if (route := index.read_route(name)) and number.isdigit():
                sums[route] += int(number)
    return sums
