"""Commands that go out together, blocking; `async_client` does the same on the event loop."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from hiredis import pack_command
from redis import Connection
from redis.exceptions import ReadOnlyError, ResponseError

from sessions_sticky.connections.commands import Command

PART_BYTES = 16_384
"""Written at a time: what Redis reads at a time, so that it works on the first part while we pack the next."""


def write(connection: Connection, commands: Iterable[Command]) -> None:
    """Send commands, to be followed by `read`."""
    connection.send_packed_command(_parts(commands))


def read(connection: Connection, number: int) -> list[Any]:
    """Return the replies to as many commands, as Redis gives them; a `ResponseError` stands in the place of one."""
    return [_reply(connection) for _ in range(number)]


def _reply(connection: Connection) -> Any:
    try:
        return connection.read_response()
    except ResponseError as exc:
        if isinstance(exc, ReadOnlyError):  # no primary any more; a new connection may lead to the one that is
            connection.mark_for_reconnect()
        return exc


def _parts(commands: Iterable[Command]) -> Iterator[bytes]:
    part = bytearray()
    for command in commands:
        part += pack_command(command.args)
        if len(part) >= PART_BYTES:
            yield bytes(part)
            part.clear()
    yield bytes(part)
