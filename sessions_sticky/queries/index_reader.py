"""Read the index; verify each entry against its session, and repair wrong ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from typing import NamedTuple

from sessions_sticky import keys
from sessions_sticky.conf import conf
from sessions_sticky.connections.commands import Batch, Command
from sessions_sticky.exceptions import SessionNotSupported
from sessions_sticky.queries.filters import Filters
from sessions_sticky.queries.pages import Cursor
from sessions_sticky.session import Entry, Session, readable
from sessions_sticky.stores import index
from sessions_sticky.stores.base import Store, require_index
from sessions_sticky.stores.history import Event, last_events, last_move

BATCH_SIZE = 500
"""Keys, entries or sessions in one step, which blocks Redis for 1 to 2 ms (longer with cold memory)."""


MAX_ZSETS = 100
"""ZSETs of one step: a client may use any number of model names, each of which makes a route."""

Progress = Callable[[int, int], object]
"""Called after each batch with the number of sessions or keys done so far and the number expected; to stop, raise."""


def batched(zsets: list[str], size: int) -> Iterator[list[str]]:
    """Yield parts of a list."""
    for at in range(0, len(zsets), size):
        yield zsets[at : at + size]


class Row(NamedTuple):
    """A session with its stored bytes and its idle time left in milliseconds (negative: no expiry).

    `move` is the one that led to its binding, if it was read.
    """

    session: Session
    raw: bytes
    left_ms: int
    move: Event | None = None

    @property
    def entry(self) -> Entry:
        """The session as an operator sees it."""
        return Entry.of(self.session, self.left_ms)


class IndexEntry(NamedTuple):
    """An entry of the index: its ZSET, the conversation id and its score."""

    zset: str
    member: bytes
    score: str

    @property
    def conversation_id(self) -> str:
        """The id as text; other programs may have written invalid UTF-8."""
        return self.member.decode(errors="replace")


def check_index(store: Store) -> None:
    """Raise `SessionNotSupported` unless there is an index in a store."""
    require_index(store, "list sessions")
    if not conf.index:
        raise SessionNotSupported("There is no index: SESSIONS_STICKY['INDEX'] is False")


class IndexReader:
    """Reads the index of one store. Raises `SessionNotSupported` if there is none."""

    def __init__(self, store: Store, ttl_seconds: int) -> None:
        check_index(store)
        self._store = store
        self._ttl_seconds = ttl_seconds

    def step(self, cursor: Cursor, limit: int) -> tuple[list[Row], Cursor | None]:
        """Return the next matching sessions, latest expiry first, at most `limit`, and the position after them.

        The position is None at the end. There may be fewer, even none, if entries are stale or few of many match.
        """
        filters = Filters(*cursor.filters)
        zsets = self.zsets(filters)
        if not zsets:
            return [], None
        # To find an owner's sessions at a provider all of the owner's are read, many at a time because few may match.
        is_sparse = filters.owner is not None and filters.has_route
        entries, more = self._entries(zsets, cursor, BATCH_SIZE if is_sparse else limit)
        rows = {row.session.id: row for row in self.verify(entries) if filters.match(row.session)}
        found: dict[str, Row] = {}
        for entry in entries:
            cursor = cursor._replace(score=entry.score, member=entry.conversation_id)
            if row := rows.get(entry.conversation_id):
                found[row.session.id] = row  # once, even if it also has a stale entry
                if len(found) == limit:
                    more = more or entry is not entries[-1]
                    break
        return list(found.values()), cursor if more else None

    def scan(self, filters: Filters, *, with_moves: bool = False) -> Iterator[list[Row]]:
        """Yield every matching session, in no order, in batches; some may come twice.

        Misses no session that exists throughout, except one that moves from an unscanned route to a scanned one.
        """
        needs_moves = with_moves or filters.need_moves
        if needs_moves and not conf.history_length:
            raise SessionNotSupported("Moves are not known: SESSIONS_STICKY['HISTORY_LENGTH'] is 0")
        entries = chain.from_iterable(map(self._scan, self.zsets(filters)))
        while batch := list(islice(entries, BATCH_SIZE)):
            rows = [
                row
                for row in self.verify(batch)
                if filters.match(row.session) and filters.match_times(row.session, row.left_ms, self._ttl_seconds)
            ]
            yield self._with_moves(rows, filters) if needs_moves and rows else rows

    def _with_moves(self, rows: list[Row], filters: Filters) -> list[Row]:
        found = self._store.send(Batch([last_events(row.session.id) for row in rows]))
        moves = [last_move(events, row.session) for row, events in zip(rows, found, strict=True)]
        return [row._replace(move=move) for row, move in zip(rows, moves, strict=True) if filters.match_move(move)]

    def zsets(self, filters: Filters) -> list[str]:
        """Return ZSETs that contain all matches: of owner and route the smaller one."""
        if not filters.is_encodable:
            return []  # no session matches
        if not filters.has_route:
            return [keys.index_all() if filters.owner is None else keys.owner(filters.owner)]
        routes = self._route_zsets(filters)
        if filters.owner is None or not routes:
            return routes
        owner = keys.owner(filters.owner)
        sizes = self._store.send(Batch([Command(("ZCARD", key)) for key in (owner, *routes)]))
        own, *others = [size or 0 for size in sizes]
        return [owner] if own <= sum(others) else routes

    def routes(self) -> list[tuple[str, str]]:
        """Return provider and model of each route with sessions."""
        names = dict.fromkeys(entry.member for entry in self._scan(keys.index_routes()))
        return [route for route in map(index.read_route, names) if route]

    def verify(self, entries: list[IndexEntry]) -> list[Row]:
        """Return the sessions of entries, and repair wrong entries."""
        now, rows = self.read([entry.member for entry in entries])
        repairs: list[Command[int]] = []
        for entry, row in zip(entries, rows, strict=True):
            if row is None:
                zsets = {entry.zset, keys.index_all()}
                repairs += [index.drop_entry(zset, entry.member, entry.score) for zset in zsets]
            elif entry.zset not in index.zsets(row.session):
                repairs.append(index.drop_entry(entry.zset, entry.member, entry.score))
                repairs.append(self.refresh(row, only_missing=True))
            elif float(entry.score) < now or self._lags(row, entry.score, now):
                repairs.append(self.refresh(row))
        if repairs:
            self._store.send(Batch(repairs))
        return [row for row in rows if row is not None]

    def read(self, members: Sequence[bytes]) -> tuple[float, list[Row | None]]:
        """Return the server's Unix time, and the session of each member; None where it is missing or unreadable."""
        if not members:
            return 0.0, []
        now, *found = self._store.send(index.read_sessions(members))
        rows: list[Row | None] = []
        for member, raw, left_ms in zip(members, found[::2], found[1::2], strict=True):
            session = readable(member.decode(errors="replace"), raw)
            rows.append(None if session is None else Row(session, raw, left_ms))
        return float(now), rows

    def out_of_date(self, rows: list[Row], now: float) -> list[Row]:
        """Return the sessions that lack an entry or have a wrong one; `now` is the server's Unix time."""
        replies = iter(self._store.send(Batch([command for row in rows for command in index.scores(row.session)])))
        late = []
        for row in rows:
            *scores, route = islice(replies, 4)
            if any(self._lags(row, score, now, both_ways=True) for score in scores) or self._lags(row, route, now):
                late.append(row)
        return late

    def refresh(self, row: Row, *, only_missing: bool = False) -> Command[int]:
        """Return the request that updates the entries of a session, or adds missing ones."""
        return index.refresh(row.session, self.left_ms(row), self._ttl_seconds, raw=row.raw, only_missing=only_missing)

    def left_ms(self, row: Row) -> int:
        """Return the idle time left; the full one if another program left the session without an expiry."""
        return row.left_ms if row.left_ms >= 0 else self._ttl_seconds * 1000

    def _lags(self, row: Row, score: bytes | str | None, now: float, *, both_ways: bool = False) -> bool:
        """Return whether a score is missing, or lags behind its session by more than the refresh interval."""
        if not score:
            return True
        lag = now + self.left_ms(row) / 1000 - float(score)
        return (abs(lag) if both_ways else lag) > index.LAG_SECONDS + 1

    def _scan(self, zset: str) -> Iterator[IndexEntry]:
        cursor: bytes | None = None
        while cursor != b"0":
            reply = self._store.send(index.scan_zset(zset, cursor or b"0", BATCH_SIZE))
            cursor, flat = reply or (b"0", [])  # no reply for a key of another type
            yield from read_entries(zset, flat)

    def _entries(self, zsets: list[str], cursor: Cursor, limit: int) -> tuple[list[IndexEntry], bool]:
        entries: list[IndexEntry] = []
        more = False
        for part in batched(zsets, MAX_ZSETS):
            flat, part_has_more = self._store.send(index.page(part, limit, cursor.score, cursor.member))
            triples = zip(flat[::3], flat[1::3], flat[2::3], strict=True)
            entries += [IndexEntry(part[zset - 1], member, score.decode()) for zset, member, score in triples]
            more = more or bool(part_has_more)
        if len(zsets) > MAX_ZSETS:  # else they are in this order
            entries.sort(key=lambda entry: (float(entry.score), entry.member), reverse=True)
        return entries[:limit], more or len(entries) > limit

    def _route_zsets(self, filters: Filters) -> list[str]:
        if filters.provider is not None and filters.model is not None:
            return [keys.route(filters.provider, filters.model)]
        return [
            keys.route(provider, model)
            for provider, model in self.routes()
            if filters.provider in (None, provider) and filters.model in (None, model)
        ]


def read_entries(zset: str, flat: list[bytes]) -> list[IndexEntry]:
    """Return the entries of a ZSET from `[member, score, member, score, ...]`."""
    return [IndexEntry(zset, member, score.decode()) for member, score in zip(flat[::2], flat[1::2], strict=True)]
