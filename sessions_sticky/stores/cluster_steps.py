"""Run scripts in steps on a Redis Cluster, where sessions and index are on different servers.

The step of the session comes first and decides; its index and history follow. A process that is killed in between
leaves an entry missing or stale; reading it, using the session and `reindex` repair it. Steps are generators: they
yield commands and receive the replies, including errors. Performs no I/O.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Generator, Sequence
from itertools import chain
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from sessions_sticky import keys
from sessions_sticky.connections.cluster.slot_map import FAILURES, Answers, At, CommandsByNode, Slots, exchange
from sessions_sticky.connections.commands import Command, ScriptCall
from sessions_sticky.stores import index, trail
from sessions_sticky.stores.base import NO_KEY
from sessions_sticky.stores.index import SessionChange

logger = logging.getLogger("sessions_sticky")

Steps = Generator[Sequence[Command[Any] | At], list[Any], Any]


def run_all(commands: Sequence[Command[Any]], slots: Slots) -> Generator[CommandsByNode, Answers, list[Any]]:
    """Run the steps of all commands in parallel; return the replies, with an error for each failed command."""
    replies: list[Any] = [None] * len(commands)
    running = {at: _steps(command, slots) for at, command in enumerate(commands)}
    answers: dict[int, Any] = dict.fromkeys(running)
    while running:
        wanted: dict[int, Sequence[Command[Any] | At]] = {}
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


def _steps(command: Command[Any], slots: Slots) -> Steps:
    if isinstance(command, SessionChange):
        return _refresh(command) if command.script is index.REFRESH else _change(command)
    if isinstance(command, ScriptCall) and command.script is index.READ:
        return _read(command)
    if isinstance(command, ScriptCall) and command.script is trail.RECORD:
        return _record_turn(command)
    return _scan(command, slots) if command.args[0] == "SCAN" else _one_step(command)


def _one_step(command: Command[Any]) -> Steps:
    (reply,) = yield [command]
    return reply


def _change(call: SessionChange[Any]) -> Steps:
    """Change a session with one of bind, set, replace and remove."""
    kind, names, ttl = call.script.names[-1], call.names, call.options.ttl
    if kind == "remove":
        # First, or a process that remembers the session could restore it in between. A full Redis refuses it, which
        # must not prevent the deletion.
        (marked,) = yield [index.MARK_DELETED.call([names.marker], call.script_args[1], ttl)]
        _check(marked, but=ResponseError)
    (reply,) = yield [call.on_session]
    if not _is_done(kind, _check(reply)):
        return reply
    if kind == "remove":
        on_index = call.on_index("", "")
    elif kind == "replace":
        (left_ms,) = yield [Command(("PTTL", names.session))]
        on_index = call.on_index(left_ms if isinstance(left_ms, int) and left_ms >= 0 else ttl * 1000, "keep")
    else:
        on_index = call.on_index(ttl * 1000, "")
    recorded, *_ = yield [on_index] if kind == "replace" else [on_index, Command(("DEL", names.trail))]
    if isinstance(recorded, Exception):
        logger.warning("index and history not updated after a change: %s: %s", type(recorded).__name__, recorded)
    return reply


def _is_done(kind: str, reply: Any) -> bool:
    """Return whether the reply of a script reports a change."""
    return kind == "set" or (reply is None if kind == "bind" else bool(reply[0]))


def _refresh(call: SessionChange[int]) -> Steps:
    left_ms, raw, mode = call.script_args
    if raw:
        (found,) = yield [Command(("GET", call.names.session))]
        if _check(found, but=ResponseError) != raw:
            return 0
    (reply,) = yield [index.REFRESH.call(index.without_session(call.names), *call.options, left_ms, b"", mode)]
    return reply


def _read(call: ScriptCall[Any]) -> Steps:
    clock, *found = yield [call.script.call([key]) for key in (keys.index_all(), *call.keys)]
    return [_check(clock)[0], *chain(*(_check(reply)[1:] for reply in found))]


def _record_turn(call: ScriptCall[trail.Recorded]) -> Steps:
    """Add a turn to a trail on another server; after a concurrent deletion the trail stays until it expires."""
    name, session = call.keys
    (left_ms,) = yield [Command(("PTTL", session))]
    if _check(left_ms) == NO_KEY:
        return None
    ttl_ms, *own = call.argv
    (reply,) = yield [call.script.call([name], ttl_ms if left_ms < 0 else left_ms, *own)]
    return reply


def _scan(command: Command[Any], slots: Slots) -> Steps:
    """Scan one server after the other; the cursor contains the current server and the list of servers."""
    _, cursor, *args = command.args
    primaries = slots.primaries
    these = b"%08x" % zlib.crc32(repr(primaries).encode())
    those, number, its_cursor = (these, 0, b"0") if cursor == b"0" else _read_cursor(cursor)
    if those != these:
        raise RedisConnectionError("the cluster's primaries have changed during the scan: start again")
    (reply,) = yield [At(primaries[number], Command(("SCAN", its_cursor, *args)))]
    its_cursor, names = _check(reply)
    if its_cursor == b"0":
        number += 1
    return [b"0" if number == len(primaries) else b"%s:%d:%s" % (these, number, its_cursor), names]


def _read_cursor(cursor: bytes) -> tuple[bytes, int, bytes]:
    those, number, its_cursor = cursor.split(b":")
    return those, int(number), its_cursor


def _check(reply: Any, *, but: tuple[type[Exception], ...] | type[Exception] = ()) -> Any:
    """Return a reply; raise it if it is an error."""
    if isinstance(reply, Exception) and not isinstance(reply, but):
        raise reply
    return reply
