"""What operators look at: pages, counts, statistics, history; see operations.py for the form."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from itertools import islice
from typing import Any, TypeVar

from sessions_sticky import keys
from sessions_sticky.conf import conf
from sessions_sticky.connections.commands import Batch, Command
from sessions_sticky.exceptions import SessionNotSupported
from sessions_sticky.policy import Operation, T
from sessions_sticky.queries.filters import Cursor, Filters, HourStats, Page, RouteStats, Stats
from sessions_sticky.queries.index_reader import IndexEntry, Row, Walk
from sessions_sticky.session import Entry
from sessions_sticky.stores import index
from sessions_sticky.stores.base import Store
from sessions_sticky.stores.history import Event, read_event, recent_events, stored_events

MAX_STEPS = 20
"""Steps of a walk that one page takes: where few of many sessions fit a filter it is left short."""

_POSITION = re.compile(r"[0-9]{1,20}-[0-9]{1,20}")

S = TypeVar("S")


class Overview:
    """What the index of one store tells."""

    def __init__(self, store: Store[Any], ttl_seconds: int) -> None:
        self._walk = Walk(store, ttl_seconds)

    def page(self, filters: Filters, cursor: str | None, limit: int) -> Operation[Page]:
        """Take the next sessions."""
        at: Cursor | None = Cursor.read(cursor, filters) if cursor else Cursor.start(filters)
        rows: list[Row] = []
        for _ in range(MAX_STEPS):
            if at is None or len(rows) == limit:
                break
            more, at = yield from self._walk.step(at, limit - len(rows))
            rows += more
        return Page([_entry(row) for row in rows], None if at is None else str(at))

    def count(self, filters: Filters) -> Operation[int]:
        """Count by the index; by the sessions where owner and provider or model are asked for together."""
        chosen = yield from self._walk.choose(filters)
        if chosen.within:
            return (yield from self._count_one_by_one(filters))
        if not chosen.sources:
            return 0
        counts = yield from self._counts(chosen.sources)
        return sum(counts)

    def page_and_count(self, filters: Filters, cursor: str | None, limit: int) -> Operation[tuple[Page, int]]:
        """Take the next sessions while all are counted."""
        return (yield from _together(self.page(filters, cursor, limit), self.count(filters)))

    def stats(self) -> Operation[Stats]:
        """Count by route."""
        routes = yield from self._walk.routes()
        zsets = [keys.route(*route) for route in routes]
        counts = yield from self._counts(zsets)
        hour, day = yield index.created()
        living = dict(zip(routes, counts, strict=True))
        in_hour, in_day = _by_route(hour), _by_route(day)
        rows = [
            RouteStats(*route, living.get(route, 0), in_hour.get(route, 0), in_day.get(route, 0))
            for route in sorted({*living, *in_hour, *in_day})
        ]
        return Stats(sum(counts), [row for row in rows if any(row[2:])])

    def created_per_hour(self) -> Operation[list[HourStats]]:
        """Add up the routes of each hour of the last day."""
        hour = int(time.time()) // 3600
        hours = yield index.created_per_hour(hour)
        return [
            HourStats(datetime.fromtimestamp((hour - ago) * 3600, UTC), sum(flat[1::2]))
            for ago, (_, flat) in reversed(list(enumerate(hours)))
        ]

    def _counts(self, zsets: list[str]) -> Operation[list[int]]:
        """Add to the entries that surely live those of which only their sessions can tell."""
        for _ in range(MAX_STEPS):
            counted = yield index.count(zsets)
            due = [
                IndexEntry(zset, member, score.decode())
                for zset, (_, *entries) in zip(zsets, counted, strict=True)
                for member, score in zip(entries[::2], entries[1::2], strict=True)
            ]
            alive = [index.zsets(row.session) for row in (yield from self._walk.verify(due))]
            if len(due) < index.MAX_DUE:
                break  # else there may be more: now those are mended, and due no more
        return [
            living[0] + sum(zset in theirs for theirs in alive) for zset, living in zip(zsets, counted, strict=True)
        ]

    def _count_one_by_one(self, filters: Filters) -> Operation[int]:
        at: Cursor | None = Cursor.start(filters)
        number = 0
        while at is not None:
            rows, at = yield from self._walk.step(at, index.PAGE_BUDGET, noted=False)
            number += len(rows)
        return number


def history(store: Store[Any], conversation_id: str) -> Operation[list[Event]]:
    """Find the events of one conversation, oldest first."""
    keys.check(conversation_id)
    _check_history(store)
    events: list[Event] = []
    after = "-"
    while True:
        found, last = yield stored_events(conversation_id, after)
        events += _events(found)
        if last is None:
            return events
        after = last.decode()


def recent(store: Store[Any], after: str | None, limit: int) -> Operation[list[Event]]:
    """Return the events after a position, or the last ones."""
    _check_history(store)
    if after is not None and not (_POSITION.fullmatch(after) and all(int(part) < 2**64 for part in after.split("-"))):
        raise ValueError(f"Invalid position: {after!r}; allowed is that of an event")
    found, _ = yield recent_events(after, limit)
    return _events(found)


def _together(one: Operation[S], other: Operation[T]) -> Operation[tuple[S, T]]:
    """Run two operations side by side: what both ask for at a time goes out together."""
    replies: dict[Operation[Any], Any] = {one: None, other: None}
    results: dict[Operation[Any], Any] = {}
    while True:
        requests = {}
        for operation, reply in replies.items():
            try:
                requests[operation] = operation.send(reply)
            except StopIteration as done:
                results[operation] = done.value
        if not requests:
            return results[one], results[other]
        replies = dict(zip(requests, (yield from _send_together(list(requests.values()))), strict=True))


def _send_together(requests: list[Command | Batch]) -> Operation[list[Any]]:
    parts = [request.commands if isinstance(request, Batch) else [request] for request in requests]
    replies = iter((yield Batch([command for part in parts for command in part])))
    found = [list(islice(replies, len(part))) for part in parts]
    return [each if isinstance(request, Batch) else each[0] for request, each in zip(requests, found, strict=True)]


def _check_history(store: Store[Any]) -> None:
    if store.refreshed is None:
        raise SessionNotSupported("This cache cannot keep a history; django-redis can")
    if not conf.history_length:
        raise SessionNotSupported("There is no history: SESSIONS_STICKY['HISTORY_LENGTH'] is 0")


def _events(found: list[bytes]) -> list[Event]:
    events = [
        read_event(position, conversation_id, encoded)
        for position, conversation_id, encoded in zip(found[::3], found[1::3], found[2::3], strict=True)
    ]
    return [event for event in events if event]


def _entry(row: Row) -> Entry:
    return Entry(row.session, None if row.left_ms < 0 else -(-row.left_ms // 1000))


def _by_route(flat: list[Any]) -> dict[tuple[str, str], int]:
    routes = map(index.read_route, flat[::2])
    return {route: number for route, number in zip(routes, flat[1::2], strict=True) if route}
