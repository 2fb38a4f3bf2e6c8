"""Split and parse server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from typing import Any

import msgspec

_END = re.compile(rb"\r?\n\r?\n|\r\r")
"""A line end and an empty line, with any of the three line ends."""
_LINE_END = re.compile(rb"\r\n|\n|\r")


class EventBuffer:
    """Buffers a stream's bytes and returns complete events; nothing may follow half an event."""

    def __init__(self) -> None:
        self.rest = bytearray()

    def take(self, chunk: bytes) -> bytes:
        """Add a chunk; return the bytes of all complete events, or nothing."""
        if not self.rest and chunk.endswith(b"\n\n"):
            return chunk  # the common case, without a search
        searched = max(0, len(self.rest) - 3)  # an empty line that began in the rest is up to four bytes long
        self.rest += chunk
        end = 0
        for match in _END.finditer(self.rest, searched):
            end = match.end()
        whole = bytes(self.rest[:end])
        del self.rest[:end]
        return whole


def split(whole: bytes) -> Iterator[bytes]:
    """Yield each event of `EventBuffer.take`'s bytes, with its line ends."""
    start = 0
    for match in _END.finditer(whole):
        yield whole[start : match.end()]
        start = match.end()
    if start < len(whole):
        yield whole[start:]


def encode(value: Any, name: str = "") -> bytes:
    """Return an event whose data is `value` as JSON; without a name unless one is given."""
    line = f"event: {name}\n".encode() if name else b""
    return b"%bdata: %b\n\n" % (line, msgspec.json.encode(value))


def data(event: bytes) -> bytes:
    """Return an event's data, its lines joined; empty for comments and events without data."""
    return b"\n".join(_fields(event, b"data"))


def name(event: bytes) -> bytes:
    """Return an event's name; empty when it has none."""
    return next(_fields(event, b"event"), b"")


def _fields(event: bytes, field: bytes) -> Iterator[bytes]:
    for line in _LINE_END.split(event.removeprefix(codecs.BOM_UTF8)):  # a stream may begin with one
        key, _, value = line.partition(b":")
        if key == field:
            yield value.removeprefix(b" ")
