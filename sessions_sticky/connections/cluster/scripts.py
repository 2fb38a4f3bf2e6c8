"""On a Redis Cluster: what one server does in one script, done in steps, for a session and the index lie apart.

The session's own step comes first and decides; index and history follow. Whoever is killed in between leaves an entry
missing or stale, which is healed as any other drift: when it is read, when the session is used, by `reindex`. Each step
is a generator of lists of commands and is resumed with the replies, errors among them; see `exchange`. Pure.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Generator, Sequence
from functools import cache
from itertools import chain
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from sessions_sticky import keys
from sessions_sticky.connections.cluster.slot_map import Answers, At, Parcels, Slots, exchange
from sessions_sticky.connections.commands import Command, Script
from sessions_sticky.exceptions import SessionStoreUnavailable

logger = logging.getLogger("sessions_sticky")

FAILURES = (RedisError, OSError, SessionStoreUnavailable)
"""What stands in the place of a reply: one that a server refuses or does not give, or is not asked for."""

Steps = Generator[Sequence[Command | At], list[Any], Any]

ALONE = {name: Script("read_session", "session_only", name) for name in ("bind", "set", "replace", "remove")}
"""The scripts that change a session, without what they note of it elsewhere."""


def together(commands: Sequence[Command], slots: Slots) -> Generator[Parcels, Answers, list[Any]]:
    """Take all commands step by step, side by side; return the replies, an error in the place of what met it."""
    replies: list[Any] = [None] * len(commands)
    running = {at: _steps(command, slots) for at, command in enumerate(commands)}
    answers: dict[int, Any] = dict.fromkeys(running)
    while running:
        wanted: dict[int, Sequence[Command | At]] = {}
        for at, steps in list(running.items()):
            try:
                wanted[at] = steps.send(answers[at])
            except StopIteration as done:
                replies[at] = done.value
                del running[at]
            except FAILURES as exc:
                replies[at] = exc
                del running[at]
        if wanted:
            found = iter((yield from exchange([command for part in wanted.values() for command in part], slots)))
            answers = {at: [next(found) for _ in part] for at, part in wanted.items()}
    return replies


def _steps(command: Command, slots: Slots) -> Steps:
    if command.args[0] == "SCAN":
        return _scan(command, slots)
    if command.args[0] != "EVALSHA":
        return _plain(command)
    name = Script.known[command.args[1]].names[-1]
    if name in ALONE:
        return _change(command)
    return {"refresh": _refresh, "index_batch": _enter, "read": _read}.get(name, _plain)(command)


def _plain(command: Command) -> Steps:
    (reply,) = yield [command]
    return reply


def _change(command: Command) -> Steps:
    script, names, args = _parts(command)
    kind, session_key, ttl = script.names[-1], names[0], args[1]
    if kind == "remove":
        # First, or a process that remembers the session could make it again in between. A full Redis refuses it, which
        # must not keep anybody from deleting.
        (marked,) = yield [Command(("SET", names[1], b"1", "EX", ttl))]
        _check(marked, but=ResponseError)
    (reply,) = yield [ALONE[kind].call([session_key], *args)]
    if not _is_made(kind, _check(reply)):
        return reply
    left_ms: Any = "" if kind == "remove" else int(ttl) * 1000
    if kind == "replace":
        (told_ms,) = yield [Command(("PTTL", session_key))]
        left_ms = told_ms if isinstance(told_ms, int) and told_ms > 0 else left_ms
    keep = "1" if kind == "replace" else ""
    (noted,) = yield [_note(script.sha).call(_elsewhere(names), *args[:7], left_ms, keep)]
    if isinstance(noted, Exception):
        logger.warning("index and history not told of a change: %s: %s", type(noted).__name__, noted)
    return reply


def _is_made(kind: str, reply: Any) -> bool:
    """Tell whether a script has made its change; see those in `ALONE`."""
    return kind == "set" or (reply is None if kind == "bind" else bool(reply[0]))


@cache
def _note(sha: str) -> Script:
    return Script(*Script.known[sha].names[:-1], "update_index")


def _refresh(command: Command) -> Steps:
    script, names, args = _parts(command)
    raw = args[8]
    if raw:
        (found,) = yield [Command(("GET", names[0]))]
        if _check(found, but=ResponseError) != raw:
            return 0
    (reply,) = yield [script.call(_elsewhere(names), *args[:8], "", *args[9:])]
    return reply


def _enter(command: Command) -> Steps:
    script, names, args = _parts(command)
    places = [names[at : at + 3] for at in range(3, len(names), 3)]
    told = [args[at : at + 4] for at in range(2, len(args), 4)]
    found = yield [Command(("GET", session_key)) for *_, session_key in places]
    raws = [_check(raw, but=ResponseError) for raw in found]
    kept = [at for at, (*_, raw) in enumerate(told) if not raw or raw == raws[at]]
    its_names = [name for at in kept for name in (*places[at][:2], keys.INDEX_ALL)]
    its_args = [arg for at in kept for arg in (*told[at][:3], "")]
    (late,) = yield [script.call([*names[:3], *its_names], *args[:2], *its_args)]
    return [kept[abs(place) - 1] + 1 if place > 0 else -(kept[abs(place) - 1] + 1) for place in _check(late)]


def _read(command: Command) -> Steps:
    script, names, _ = _parts(command)
    clock, *found = yield [script.call([name]) for name in (keys.INDEX_ALL, *names)]
    return [_check(clock)[0], *chain(*(_check(reply)[1:] for reply in found))]


def _scan(command: Command, slots: Slots) -> Steps:
    """Scan one server after the other; the cursor tells which is the turn of, and of which servers."""
    _, cursor, *args = command.args
    primaries = slots.primaries
    these = b"%08x" % zlib.crc32(repr(primaries).encode())
    those, number, its_cursor = (these, 0, b"0") if cursor == b"0" else _read_cursor(cursor)
    if those != these:
        raise RedisConnectionError("the cluster's primaries have changed under way: begin again")
    (reply,) = yield [At(primaries[number], Command(("SCAN", its_cursor, *args)))]
    its_cursor, names = _check(reply)
    if its_cursor == b"0":
        number += 1
    return [b"0" if number == len(primaries) else b"%s:%d:%s" % (these, number, its_cursor), names]


def _read_cursor(cursor: bytes) -> tuple[bytes, int, bytes]:
    those, number, its_cursor = cursor.split(b":")
    return those, int(number), its_cursor


def _parts(command: Command) -> tuple[Script, tuple[Any, ...], tuple[Any, ...]]:
    _, sha, number, *rest = command.args
    return Script.known[sha], tuple(rest[:number]), tuple(rest[number:])


def _elsewhere(names: Sequence[Any]) -> list[Any]:
    """Return a script's keys without those of the session, which lie in other slots."""
    return [keys.INDEX_ALL, keys.INDEX_ALL, *names[2:]]


def _check(reply: Any, *, but: tuple[type[Exception], ...] | type[Exception] = ()) -> Any:
    """Return a reply; raise it when it is an error."""
    if isinstance(reply, Exception) and not isinstance(reply, but):
        raise reply
    return reply
