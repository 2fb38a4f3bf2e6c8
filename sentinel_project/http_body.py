"""The framing of request bodies, by length or in chunks; performs no I/O."""

from __future__ import annotations

import re
from typing import Protocol

from sentinel_project.gateway.errors import ApiError

MAX_CHUNK_LINE_BYTES = 4096
"""Maximum size of a chunk's first line with its extensions, and of a trailer."""
MAX_OVERHEAD_BYTES = 64 * 1024
"""By how many bytes these lines together may exceed the body itself."""

CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?\Z")
TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*\Z")


class Body(Protocol):
    """The framing of a request's body."""

    is_complete: bool

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """Return the decoded body within `data` and the bytes not yet used; raises `ApiError`."""


class FixedBody:
    """A body of a known length, which may be 0."""

    def __init__(self, length: int) -> None:
        self._left = length
        self.is_complete = not length

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """Return the decoded body within `data` and the bytes not yet used."""
        body, rest = data[: self._left], data[self._left :]
        self._left -= len(body)
        self.is_complete = not self._left
        return body, rest


class ChunkedBody:
    """A body in chunks. Extensions and trailers are checked and dropped."""

    def __init__(self) -> None:
        self.is_complete = False
        self._left = 0
        self._is_in_chunk = self._is_in_trailers = False
        self._overhead = -MAX_OVERHEAD_BYTES

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """Return the decoded body within `data` and the bytes not yet used; raises `ApiError`."""
        pieces: list[bytes] = []
        at, given = 0, len(data)
        while at < given and not self.is_complete:
            if self._left:
                piece = data[at : at + self._left]
                pieces.append(piece)
                at += len(piece)
                self._left -= len(piece)
                self._overhead -= len(piece)
                continue
            end = data.find(b"\r\n", at, at + MAX_CHUNK_LINE_BYTES)
            if end < 0:
                if given - at >= MAX_CHUNK_LINE_BYTES:
                    message = f"A chunk's size line or a trailer has more than {MAX_CHUNK_LINE_BYTES} bytes"
                    raise ApiError(413, message, code="request_too_large")
                break
            self._take_line(data[at:end])
            self._overhead += end + 2 - at
            at = end + 2
            if self._overhead > 0:
                message = f"Chunk sizes, extensions and trailers exceed a body by more than {MAX_OVERHEAD_BYTES} bytes"
                raise ApiError(413, message, code="request_too_large")
        return b"".join(pieces), data[at:]

    def _take_line(self, line: bytes) -> None:
        if self._is_in_chunk:
            if line:
                raise invalid("a chunk is longer than its size")
            self._is_in_chunk = False
        elif self._is_in_trailers:
            if line and not TRAILER.match(line):
                raise invalid("a trailer is malformed")
            self.is_complete = not line
        elif size := CHUNK_SIZE.match(line):
            self._left = int(size[1], 16)
            self._is_in_chunk = self._left > 0
            self._is_in_trailers = not self._left
        else:
            raise invalid("a chunk's size is malformed")


def invalid(reason: str) -> ApiError:
    """Return the error for bytes that are not HTTP/1.1."""
    return ApiError(400, f"The request is not valid HTTP/1.1: {reason}", code="invalid_http")
