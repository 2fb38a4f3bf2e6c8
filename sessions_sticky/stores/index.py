"""The index: which sessions there are, by provider and model, and by owner; requests of it, for Redis.

Three families of ZSETs, member the conversation id, score the expiry: all sessions, those of each route (provider and
model), those of each owner. The session key is the truth: what is read here is verified there. All keys share one slot
of a Redis Cluster, so that an entry, the history and the walks of operators change in one step.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from itertools import repeat
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from sessions_sticky import keys
from sessions_sticky.conf import conf
from sessions_sticky.connections.commands import Batch, Command, Script
from sessions_sticky.stores.history import Change

if TYPE_CHECKING:
    from sessions_sticky.queries.filters import Cursor
    from sessions_sticky.session import Session

LAG_SECONDS = 60
"""How far an entry may lag behind its session: each process refreshes it at most this often."""
WALK_LEASE_SECONDS = 60
"""How long a walk waits for its next page; what moves up past it later is not noted any more."""
PAGE_BUDGET = 1_000
"""Entries that a page looks at in one step (1 to 2 ms), while other clients wait."""
MAX_DUE = 1_000
"""Entries of which only their sessions can tell whether they live, in one step of counting."""
HOUR_MINUTES, DAY_HOURS = 60, 24

REFRESH = Script("util", "index_entry", "read_session", "record_change", "refresh")
FORGET = Script("drop_entry")
PAGE = Script("util", "page")
COUNT = Script("util", "count")
CREATED = Script("created_counts")
ENTER = Script("util", "index_entry", "index_batch")
READ = Script("read")


class Chosen(NamedTuple):
    """The ZSETs whose union holds what some filters mean, and those of which an entry must be in one, if any.

    `routes` is how many routes there were; None where that makes no difference.
    """

    sources: list[str]
    within: list[str]
    routes: int | None


class Refreshed:
    """When this process last saw to the entries it uses: two generations, each of `LAG_SECONDS`, for memory's sake."""

    def __init__(self) -> None:
        self._young: dict[str, float] = {}
        self._old: dict[str, float] = {}
        self._since = 0.0

    def is_due(self, conversation_id: str, now: float) -> bool:
        """Tell whether an entry wants refreshing at `now`, in `time.monotonic()` seconds."""
        noted = self._young.get(conversation_id) or self._old.get(conversation_id)
        return noted is None or now - noted >= LAG_SECONDS

    def note(self, conversation_id: str, now: float) -> None:
        """Keep that an entry was refreshed."""
        if now - self._since >= LAG_SECONDS:
            self._young, self._old, self._since = {}, self._young, now
        self._young[conversation_id] = now


def change(
    script: Script,
    conversation_id: str,
    ttl: int,
    what: Change,
    *args: bytes | str | int,
    counted: bool = False,
    told: bool = True,
) -> Command:
    """Return the call of a script that changes a session and, by `record_change.lua`, its index and history.

    `args` are the script's own; `counted` counts the session as created when it says it was; `told` tells the history.
    """
    now = what.after or what.before
    places = zsets(now)[1:] if now else (keys.INDEX_ALL, keys.INDEX_ALL)
    created_at = now.created_at if now and counted else 0
    is_recent = time.time() - created_at < DAY_HOURS * 3600
    counts = [keys.created("minute", created_at // 60), keys.created("hour", created_at // 3600)] if is_recent else []
    return script.call(
        [
            keys.session(conversation_id),
            keys.deleted(conversation_id),
            keys.INDEX_ALL,
            keys.INDEX_ROUTES,
            keys.INDEX_WALKS,
            keys.HISTORY,
            *places,
            *(zsets(what.before)[1:] if what.before else places),
            *counts,
        ],
        conversation_id,
        ttl,
        LAG_SECONDS if conf.index else "",
        conf.history_length,
        what.to_json() if told and conf.history_length else "",
        keys.route_name(now.provider, now.model) if now else "",
        "1" if is_recent else "",
        *args,
    )


def refresh(
    session: Session,
    left_ms: int,
    ttl: int,
    *,
    raw: bytes = b"",
    before: Session | None = None,
    only_enter: bool = False,
) -> Command:
    """Enter a session, or (unless `only_enter`) bring its entry up to date; away from the places of `before`.

    `raw` is the value it was read from: if that has changed meanwhile, nothing happens. Empty leaves that unchecked.
    """
    what = Change("created", before, session, "", "")
    return change(REFRESH, session.id, ttl, what, left_ms, raw, "1" if only_enter else "", told=False)


def read_sessions(members: Sequence[bytes]) -> Command:
    """The values and remaining idle times of the sessions of some entries; see read.lua."""
    return READ.call([keys.SESSION_PREFIX.encode() + member for member in members])


def forget(zset: str, member: bytes, score: str) -> Command:
    """Drop an entry, if it still has that score; tells whether it did."""
    return FORGET.call([zset], member, score)


def routes() -> Command:
    """The names of the routes that have sessions."""
    return Command(("ZRANGE", keys.INDEX_ROUTES, 0, -1))


def page(cursor: Cursor, chosen: Chosen, limit: int, *, walk: bool) -> Command:
    """The next entries; None when routes have come or gone since the ZSETs were chosen; see page.lua."""
    return PAGE.call(
        [keys.INDEX_WALKS, keys.INDEX_ROUTES, *chosen.sources, *chosen.within],
        limit,
        PAGE_BUDGET,
        cursor.score,
        cursor.member,
        len(chosen.sources),
        cursor.token if walk else "",
        WALK_LEASE_SECONDS,
        "" if chosen.routes is None else chosen.routes,
    )


def missed(cursor: Cursor, limit: int) -> list[Command]:
    """The next of the sessions that moved up past a walk, and how many there are."""
    key, first = f"{keys.INDEX_WALKS}:{cursor.token}:missed", cursor.missed or 0
    return [
        Command(("LRANGE", key, first, first + limit - 1)),
        Command(("LLEN", key)),
        Command(("EXPIRE", key, WALK_LEASE_SECONDS)),
    ]


def count(zsets: list[str]) -> Command:
    """The living entries of some ZSETs; see count.lua."""
    return COUNT.call(zsets, LAG_SECONDS, MAX_DUE)


def created() -> Command:
    """How many sessions were created in the last hour and day; see created_counts.lua."""
    minute, hour = int(time.time()) // 60, int(time.time()) // 3600
    minutes = [keys.created("minute", minute - i) for i in range(-1, HOUR_MINUTES)]  # one ahead: clocks differ
    hours = [keys.created("hour", hour - i) for i in range(-1, DAY_HOURS)]
    return CREATED.call([*minutes, *hours], len(hours))


def created_per_hour(hour: int) -> Batch:
    """How many sessions were created in an hour, and in each of the 23 before it; see created_counts.lua."""
    return Batch([CREATED.call([keys.created("hour", hour - i)], 1) for i in range(DAY_HOURS)])


def enter(sessions: list[tuple[Session, int]], raws: Sequence[bytes] = (), *, only_tell: bool = False) -> Command:
    """Enter sessions, given with their milliseconds left, that the index lacks or has wrong; see index_batch.lua.

    `raws` are the values they were read from: one that has changed meanwhile is left out.
    """
    places = [key for session, _ in sessions for key in (*zsets(session)[1:], keys.session(session.id))]
    args = [
        arg
        for (session, left_ms), raw in zip(sessions, raws or repeat(b""), strict=False)
        for arg in (session.id, left_ms, keys.route_name(session.provider, session.model), raw)
    ]
    own = [keys.INDEX_ALL, keys.INDEX_ROUTES, keys.INDEX_WALKS]
    return ENTER.call([*own, *places], LAG_SECONDS, "" if only_tell else "1", *args)


def count_created(sessions: list[Session]) -> list[Command]:
    """Count sessions as created when they say they were, in the last hour and day."""
    counts: Counter[tuple[str, str]] = Counter()
    for session in sessions:
        name, age = keys.route_name(session.provider, session.model), time.time() - session.created_at
        if age < HOUR_MINUTES * 60:
            counts[keys.created("minute", session.created_at // 60), name] += 1
        if age < DAY_HOURS * 3600:
            counts[keys.created("hour", session.created_at // 3600), name] += 1
    kept_seconds = (DAY_HOURS + 2) * 3600
    return [
        command
        for (key, name), number in counts.items()
        for command in (Command(("HINCRBY", key, name, number)), Command(("EXPIRE", key, kept_seconds)))
    ]


def scan(cursor: bytes, pattern: str, count: int) -> Command:
    """A step of a scan of all keys: the next cursor, and keys."""
    return Command(("SCAN", cursor, "MATCH", pattern, "COUNT", count))


def scan_zset(zset: str, cursor: bytes, count: int) -> Command:
    """A step of a scan of a ZSET: the next cursor; member, score, member, score ..."""
    return Command(("ZSCAN", zset, cursor, "COUNT", count))


def read_route(name: bytes) -> tuple[str, str] | None:
    """Return provider and model of a route's name, None for any other text."""
    try:
        return _ROUTE.decode(name)
    except msgspec.MsgspecError:
        return None


def zsets(session: Session) -> tuple[str, str, str]:
    """Return the keys that have an entry of a session: of all, of its owner, of its route."""
    return keys.INDEX_ALL, keys.owner(session.external_id), keys.route(session.provider, session.model)


_ROUTE = msgspec.json.Decoder(tuple[str, str])
