"""The index of sessions by provider and model, and by owner; its requests to Redis.

There are three kinds of ZSETs: all sessions, those of each route (provider and model), and those of each owner. The
member is the conversation id, the score the expiry. The session key is the truth: entries are verified against it. All
index keys share one slot of a Redis Cluster, so that entries, history and counters change atomically.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import msgspec

from sessions_sticky import keys
from sessions_sticky.conf import conf
from sessions_sticky.connections.commands import Command, ReplyT_co, Script, ScriptCall
from sessions_sticky.session import Session
from sessions_sticky.stores.history import MAX_EVENTS, PlannedChange

LAG_SECONDS = 60
"""How far an entry may lag behind its session: the minimum interval of refreshes by one process."""
MAX_DUE = 1_000
"""Maximum number of entries in one step of counting whose sessions must be read to know whether they are alive."""
COUNTED_SECONDS = 24 * 3600
"""How old a session may be that is counted as created: the counters are of the last day."""

REFRESH = Script("change", "refresh")
MARK_DELETED = Script("mark", "mark_deleted")
DROP_ENTRY = Script("drop_entry")
PAGE = Script("page")
COUNT = Script("count")
READ = Script("read")


Counts = Literal["", "created", "done"]
"""What a change counts."""


class ChangeKeys(NamedTuple):
    """KEYS of the scripts that change a session; see change.lua."""

    session: str
    marker: str
    trail: str
    all: str
    routes: str
    history: str
    owner: str
    route: str
    former_owner: str
    former_route: str
    counter: str
    hour_counter: str
    conversation_history: str


class ChangeOptions(NamedTuple):
    """The first ARGV of the scripts that change a session; see change.lua."""

    conversation_id: str
    ttl: int
    lag: int | Literal[""]
    history_length: int
    event: bytes
    route_name: str
    counts: Counts
    max_events: int


@dataclass(slots=True)
class SessionChange(ScriptCall[ReplyT_co]):
    """The call of a script that changes a session and, through change.lua, its index, history and counters.

    `script_args` are the arguments of the script itself. A Redis Cluster runs it in two parts, `on_session` and
    `on_index`.
    """

    names: ChangeKeys
    options: ChangeOptions
    script_args: tuple[Any, ...]

    @property
    def on_session(self) -> ScriptCall[ReplyT_co]:
        """The change of the session alone."""
        options = ChangeOptions(self.options.conversation_id, self.options.ttl, "", 0, b"", "", "", 0)
        return self.script.call([self.names.session], *options, *self.script_args)

    def on_index(self, left_ms: int | Literal[""], mode: Literal["", "keep"]) -> ScriptCall[int]:
        """The change of index, history and counters alone; see refresh.lua for the arguments."""
        return REFRESH.call(without_session(self.names), *self.options, left_ms, b"", mode)


class RefreshTracker:
    """Tracks when this process last refreshed each index entry. Two generations bound its memory."""

    def __init__(self) -> None:
        self._young: dict[str, float] = {}
        self._old: dict[str, float] = {}
        self._since = 0.0

    def needs_refresh(self, conversation_id: str, now: float) -> bool:
        """Return whether an entry is due at `now`, in `time.monotonic()` seconds."""
        marked = self._young.get(conversation_id) or self._old.get(conversation_id)
        return marked is None or now - marked >= LAG_SECONDS

    def mark(self, conversation_id: str, now: float) -> None:
        """Record that an entry was refreshed."""
        if now - self._since >= LAG_SECONDS:
            self._young, self._old, self._since = {}, self._young, now
        self._young[conversation_id] = now


def change(
    script: Script,
    conversation_id: str,
    ttl: int,
    planned: PlannedChange,
    *script_args: bytes | str | int,
    counter: str = "",
    record: bool = True,
    is_bulk: bool = False,
) -> SessionChange[Any]:
    """Return the call of a script that changes a session, and its index, history and counters.

    `script_args` are the script's own arguments. `record` adds the change to the history and to the counters: to
    `counter`, if given, else a new session to those of the time of its `created_at`. A change that `is_bulk` is only in
    the history of its conversation.
    """
    now = planned.after or planned.before
    unused = keys.index_all()  # a script needs all its KEYS, in one slot
    places = zsets(now)[1:] if now else (unused, unused)
    former_places = zsets(planned.before)[1:] if planned.before else places
    counts, counters = _counters(planned if record else None, counter)
    names = ChangeKeys(
        *(keys.session(conversation_id), keys.deleted(conversation_id), keys.trail(conversation_id)),
        *(keys.index_all(), keys.index_routes(), keys.history()),
        *places,
        *former_places,
        *counters,
        keys.history_of(conversation_id),
    )
    options = ChangeOptions(
        conversation_id,
        ttl,
        LAG_SECONDS if conf.index else "",
        0 if is_bulk else conf.history_length,
        planned.to_json() if record and conf.history_length else b"",
        keys.route_name(now.provider, now.model) if now else "",
        counts,
        MAX_EVENTS if planned.in_conversation_history else 0,
    )
    argv = (*options, *script_args)
    command = ("EVALSHA", script.sha, len(names), *names, *argv)
    return SessionChange(command, script, names, argv, names, options, script_args)


def _counters(planned: PlannedChange | None, counter: str) -> tuple[Counts, tuple[str, str]]:
    """Return the option `counts` and the two counters of a change."""
    if planned is not None and counter:
        return "done", (counter, counter)
    created_at = planned.after.created_at if planned and planned.kind == "created" and planned.after else 0
    if time.time() - created_at < COUNTED_SECONDS:
        return "created", (keys.created("minute", created_at // 60), keys.created("hour", created_at // 3600))
    return "", (keys.index_all(), keys.index_all())


def refresh(
    session: Session,
    left_ms: int,
    ttl: int,
    *,
    raw: bytes = b"",
    before: Session | None = None,
    only_missing: bool = False,
) -> SessionChange[int]:
    """Set the entries of a session, or (`only_missing`) add missing ones; remove it from the places of `before`.

    `raw` is the value that was read: if it has changed since, nothing happens; empty skips the check. Replies 1 if the
    session was not in its route's ZSET, else 0.
    """
    as_it_is = PlannedChange("created", before, session, "", "")
    mode = "missing" if only_missing else ""
    return change(REFRESH, session.id, ttl, as_it_is, left_ms, raw, mode, record=False)


def without_session(names: ChangeKeys) -> ChangeKeys:
    """Return keys in the slot of the index."""
    unused = keys.index_all()
    return names._replace(session=unused, marker=unused, trail=unused)


def read_sessions(members: Sequence[bytes]) -> ScriptCall[list[Any]]:
    """Read the values and remaining idle times of the sessions of some entries; see read.lua."""
    return READ.call([keys.session_prefix().encode() + member for member in members])


def scores(session: Session) -> list[Command[bytes | None]]:
    """Read the scores of a session's entries, then that of its route."""
    commands: list[Command[bytes | None]] = [Command(("ZSCORE", zset, session.id)) for zset in zsets(session)]
    return [*commands, Command(("ZSCORE", keys.index_routes(), keys.route_name(session.provider, session.model)))]


def drop_entry(zset: str, member: bytes, score: str) -> ScriptCall[int]:
    """Drop an entry if it still has that score; replies 1 if it had."""
    return DROP_ENTRY.call([zset], member, score)


def page(zsets: list[str], limit: int, score: str, member: str) -> ScriptCall[Any]:
    """Read the entries after the one with that score and member, latest expiry first; see page.lua."""
    return PAGE.call(zsets, limit, score, member)


def count(zsets: list[str]) -> ScriptCall[Any]:
    """Count the live entries of some ZSETs; see count.lua."""
    return COUNT.call(zsets, LAG_SECONDS, MAX_DUE)


def scan(cursor: bytes, pattern: str, count: int) -> Command[tuple[bytes, list[bytes]]]:
    """Take a step of a scan of all keys: the next cursor, and keys."""
    return Command(("SCAN", cursor, "MATCH", pattern, "COUNT", count))


def scan_zset(zset: str, cursor: bytes, count: int, pattern: bytes = b"*") -> Command[tuple[bytes, list[bytes]]]:
    """Take a step of a scan of a ZSET: the next cursor; member, score, member, score ... of those that match."""
    return Command(("ZSCAN", zset, cursor, "MATCH", pattern, "COUNT", count))


def read_route(name: bytes) -> tuple[str, str] | None:
    """Return provider and model of a route's name, None for any other text."""
    try:
        return _ROUTE.decode(name)
    except msgspec.MsgspecError:
        return None


def zsets(session: Session) -> tuple[str, str, str]:
    """Return the keys of the indexes that have an entry of a session: all, its owner's, its route's."""
    return keys.index_all(), keys.owner(session.external_id), keys.route(session.provider, session.model)


_ROUTE = msgspec.json.Decoder(tuple[str, str])
