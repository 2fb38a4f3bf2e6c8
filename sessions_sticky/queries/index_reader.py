"""The walk through the index that pages and bulk operations share: each entry verified against its session."""

from __future__ import annotations

from typing import Any, NamedTuple

from sessions_sticky import keys
from sessions_sticky.conf import conf
from sessions_sticky.connections.commands import Batch, Command
from sessions_sticky.exceptions import SessionNotSupported
from sessions_sticky.policy import Operation, readable
from sessions_sticky.queries.filters import Cursor, Filters
from sessions_sticky.session import Session
from sessions_sticky.stores import index
from sessions_sticky.stores.base import Store


class Row(NamedTuple):
    """A session as it was read: its bytes, and its idle time left in milliseconds, negative when it has no expiry."""

    session: Session
    raw: bytes
    left_ms: int


class IndexEntry(NamedTuple):
    """An entry of the index: its place, the conversation id and its score; no place for one that has moved since."""

    zset: str | None
    member: bytes
    score: str

    @property
    def conversation_id(self) -> str:
        """The id as text; another program may have entered what is none."""
        return self.member.decode(errors="replace")


class Walk:
    """Reads the index of one store."""

    def __init__(self, store: Store[Any], ttl_seconds: int) -> None:
        if store.refreshed is None:
            raise SessionNotSupported("This cache cannot list sessions; django-redis can")
        if not conf.index:
            raise SessionNotSupported("There is no index: SESSIONS_STICKY['INDEX'] is False")
        self._ttl_seconds = ttl_seconds

    def step(self, cursor: Cursor, limit: int, *, noted: bool = True) -> Operation[tuple[list[Row], Cursor | None]]:
        """Return the next sessions, at most `limit`, and where to go on; None at the end.

        Fewer, even none, come when entries turn out stale, or when few of many fit a filter. A walk that is `noted`
        meets each session that lives through it, once: those that move up past it are met at its end.
        """
        if cursor.missed is not None:
            ids, number, _ = yield Batch(index.missed(cursor, limit))
            entries = [IndexEntry(None, member, "") for member in ids]
            taken = cursor.missed + len(entries)
            then = cursor._replace(missed=taken) if entries and taken < number else None
        else:
            entries, then = yield from self._take(cursor, limit, noted=noted)
        rows = yield from self.verify(entries)
        return [row for row in rows if cursor.filters.match(row.session)], then

    def _take(self, cursor: Cursor, limit: int, *, noted: bool) -> Operation[tuple[list[IndexEntry], Cursor | None]]:
        found = None
        while found is None:
            chosen = yield from self.choose(cursor.filters)
            if not chosen.sources:
                return [], None
            found = yield index.page(cursor, chosen, limit, walk=noted)
        taken, score, member, more, missed = found
        entries = [
            IndexEntry(chosen.sources[zset - 1], its_member, its_score.decode())
            for zset, its_member, its_score in zip(taken[::3], taken[1::3], taken[2::3], strict=True)
        ]
        then = cursor._replace(score=score.decode(), member=member.decode(errors="replace"))
        return entries, then if more else then._replace(missed=0) if missed else None

    def choose(self, filters: Filters) -> Operation[index.Chosen]:
        """Return the ZSETs that have what the filters mean."""
        if not filters.have_utf8:
            return index.Chosen([], [], None)  # as no session does
        owner = [] if filters.external_id is None else [keys.owner(filters.external_id)]
        if not filters.by_route:
            return index.Chosen(owner or [keys.INDEX_ALL], [], None)
        routes, number = yield from self._choose_routes(filters)
        if not owner or not routes:
            return index.Chosen(routes, [], number)
        sizes = yield Batch([Command(("ZCARD", key)) for key in (*owner, *routes)])
        own, *others = [size or 0 for size in sizes]
        return index.Chosen(owner, routes, number) if own <= sum(others) else index.Chosen(routes, owner, number)

    @staticmethod
    def _choose_routes(filters: Filters) -> Operation[tuple[list[str], int | None]]:
        if filters.provider is not None and filters.model is not None:
            return [keys.route(filters.provider, filters.model)], None
        names = yield index.routes()
        routes = [route for route in map(index.read_route, names) if route]
        return [
            keys.route(provider, model)
            for provider, model in routes
            if filters.provider in (None, provider) and filters.model in (None, model)
        ], len(names)

    def routes(self) -> Operation[list[tuple[str, str]]]:
        """Return provider and model of each route that has sessions."""
        names = yield index.routes()
        return [route for route in map(index.read_route, names) if route]

    def verify(self, entries: list[IndexEntry]) -> Operation[list[Row]]:
        """Return the sessions of those entries that are true, and mend the index where they are not."""
        if not entries:
            return []
        now, *found = yield index.read_sessions([entry.member for entry in entries])
        rows, mending, strayed = [], [], []
        for entry, raw, left_ms in zip(entries, found[::2], found[1::2], strict=True):
            session = readable(entry.conversation_id, raw)
            if session is None:
                places = {entry.zset, keys.INDEX_ALL} if entry.zset else set()
                mending += [index.forget(zset, entry.member, entry.score) for zset in places]
                continue
            row = Row(session, raw, left_ms)
            rows.append(row)
            if entry.zset is None:
                continue
            if entry.zset not in index.zsets(session):
                strayed.append((len(rows) - 1, len(mending)))
                mending += [index.forget(entry.zset, entry.member, entry.score), self.refresh(row, only_enter=True)]
            elif self._lags(entry, row, float(now)):
                mending.append(self.refresh(row))
        replies = (yield Batch(mending)) if mending else []
        # A session that is elsewhere will be met, or was, in its own place; unless it has only moved there since it was
        # taken, or was not entered there.
        elsewhere = {place for place, at in strayed if replies[at] and not replies[at + 1]}
        return [row for place, row in enumerate(rows) if place not in elsewhere]

    def refresh(self, row: Row, *, only_enter: bool = False) -> Command:
        """Return the request that brings an entry up to date, or makes one where there is none."""
        return index.refresh(row.session, self.left_ms(row), self._ttl_seconds, raw=row.raw, only_enter=only_enter)

    def left_ms(self, row: Row) -> int:
        """Return the idle time left: the full one where another program has left the session without an expiry."""
        return row.left_ms if row.left_ms > 0 else self._ttl_seconds * 1000

    def _lags(self, entry: IndexEntry, row: Row, now: float) -> bool:
        """Tell whether an entry is overdue, or lags behind by more than processes let it."""
        score = float(entry.score)
        return score < now or now + self.left_ms(row) / 1000 - score > index.LAG_SECONDS + 1
