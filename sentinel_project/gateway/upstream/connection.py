"""The client side of one HTTP/1.1 connection: it sends a request, and passes on the response as it arrives.

httptools parses. A connection takes another request only after a response that ended where its framing says, to a
request that was sent whole, with no byte behind it. What a server can make grow is bounded.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any

import httptools

from sentinel_project.gateway.upstream.response import Disconnected, HttpError, InvalidResponse, Response

MAX_HEAD_BYTES = 64 * 1024
"""Maximum size of a response's headers, interim responses and trailers: some providers send their whole policy."""
MAX_HEADERS = 256
MAX_WRITE_BYTES = 256 * 1024
"""How much of a request is written at once; the rest follows as the server reads."""

COMPRESSIONS = {"gzip": True, "x-gzip": True, "deflate": True, "compress": False, "br": False, "zstd": False}
"""Codings that some servers use although none is asked for, and whether zlib reads them."""
MAX_INFLATED_BYTES = 16 * 2**20
"""Maximum size of one received part of a compressed body: a few kilobytes could otherwise fill the memory."""


def request_head(method: str, target: str, headers: Mapping[str, str]) -> bytes:
    """Return the first line and the headers of a request. Raises `ValueError` if one of them has a line break."""
    lines = [f"{method} {target} HTTP/1.1", *[f"{name}: {value}" for name, value in headers.items()], "", ""]
    head = "\r\n".join(lines)
    if not head.count("\r") == head.count("\n") == len(lines) - 1 or target.count(" "):
        raise ValueError("the headers of a request must not have line breaks, nor its target spaces")
    return head.encode()


class Connection(asyncio.Protocol):
    """One connection; `on_idle` is called with it when it can take another request."""

    def __init__(self, on_idle: Callable[[Connection], None]) -> None:
        self.has_answered = False
        """Whether a valid part of a response has come since the request."""
        self.idle_since = 0.0
        self._on_idle = on_idle
        self._transport: Any = None
        self._parser = httptools.HttpResponseParser(self)
        # Some servers send these; RFC 9112 lets a client accept them.
        self._parser.set_dangerous_leniencies(lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True)
        self._response: Response | None = None
        self._unsent = memoryview(b"")
        self._overhead = 0
        self._fields: list[tuple[bytes, bytes]] = []
        self._is_until_close = self._can_reuse = self._is_compressed = False
        self._inflater: Any = None
        self._is_reading_paused = self._is_writing_paused = False

    @property
    def is_closed(self) -> bool:
        """Whether it can take no request."""
        closed: bool = self._transport.is_closing()
        return closed

    async def send(self, head: bytes, body: bytes) -> Response:
        """Send a request, and return its response when the headers are there. Raises `HttpError`."""
        if self.is_closed:
            raise Disconnected("closed before the request")
        response = self._response = Response(self)
        self._overhead, self._fields = 0, []
        self.has_answered = self._is_until_close = self._can_reuse = self._is_compressed = False
        self._inflater = None
        first = MAX_WRITE_BYTES if len(body) > MAX_WRITE_BYTES else len(body)
        self._transport.write(head + body[:first])
        if first < len(body):
            self._unsent = memoryview(body)[first:]
            self._write()
        try:
            while not response.status:
                await response.wait()
        except BaseException:
            response.close()  # unless it is complete: then the connection may have another request
            raise
        return response

    def close(self) -> None:
        """Close the connection at once; without TLS's closing handshake, which waits for the server."""
        self._transport.abort()

    def pause_reading(self, pause: bool) -> None:
        """Pause or resume reading."""
        if pause != self._is_reading_paused and not self._transport.is_closing():
            self._is_reading_paused = pause
            (self._transport.pause_reading if pause else self._transport.resume_reading)()

    def _write(self) -> None:
        while self._unsent and not self._is_writing_paused and not self._transport.is_closing():
            piece, self._unsent = self._unsent[:MAX_WRITE_BYTES], self._unsent[MAX_WRITE_BYTES:]
            self._transport.write(piece)

    def _end(self, error: HttpError | None = None) -> None:
        """End the exchange; keep the connection if its response ended in order."""
        response, self._response = self._response, None
        is_sent = not self._unsent and not self._transport.get_write_buffer_size()
        self._unsent = memoryview(b"")
        if error is not None:
            self._can_reuse = False
            if response is not None:
                response.fail(error)
        if self._can_reuse and is_sent:
            self.pause_reading(False)
            self._on_idle(self)
        else:
            self.close()

    # Called by the event loop

    def connection_made(self, transport: Any) -> None:
        """Keep the transport."""
        self._transport = transport

    def pause_writing(self) -> None:
        """Stop writing: the server does not read."""
        self._is_writing_paused = True

    def resume_writing(self) -> None:
        """Write more of the request."""
        self._is_writing_paused = False
        self._write()

    def data_received(self, data: bytes) -> None:
        """Parse a part of the response; what is not one closes the connection."""
        response = self._response
        if response is None:
            self.close()
            return
        self._overhead += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            self._end(InvalidResponse(str(exc.__context__ or exc)))
        else:
            self.has_answered = True
            if response.is_complete:
                self._end()
            elif self._overhead > MAX_HEAD_BYTES:
                self._end(InvalidResponse(f"more than {MAX_HEAD_BYTES} bytes around the body"))
        response.wake()

    def eof_received(self) -> None:
        """End the response at once: the loop would first send the rest of the request, which may never be read."""
        self.connection_lost(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the response: in order only if it lasts until the connection is closed."""
        if self._response is not None:
            if exc is None and self._is_until_close and self._is_whole:
                self._response.is_complete = True
            self._end(Disconnected(str(exc or "closed before the end of the response")))

    # Called by httptools

    def on_message_begin(self) -> None:
        """Refuse a response behind the one to the request."""
        self._receiving()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header until the head is complete, or a trailer until the next request."""
        self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        """Begin the response; drop the headers of an interim one (1xx)."""
        response, status = self._receiving(), self._parser.get_status_code()
        self.has_answered = True  # also with a response that is refused below
        fields, self._fields = self._fields, []
        is_long = self._overhead > MAX_HEAD_BYTES and sum(map(len, chain.from_iterable(fields))) > MAX_HEAD_BYTES
        if is_long or len(fields) > MAX_HEADERS:
            raise InvalidResponse(f"more than {MAX_HEADERS} headers, or {MAX_HEAD_BYTES} bytes of them")
        if status < 100:
            raise InvalidResponse("a status below 100")
        if status < 200:
            return
        response.status = status
        response.headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in fields[::-1]}
        if self._parser.get_http_version() not in ("1.0", "1.1"):
            raise InvalidResponse("another version than HTTP/1.0 and HTTP/1.1")
        if response.headers.get("transfer-encoding", "chunked").strip().lower() != "chunked":
            raise InvalidResponse("another transfer coding than chunked")
        coding = response.headers.get("content-encoding", "").lower()
        self._is_compressed = coding in COMPRESSIONS
        if self._is_compressed and not COMPRESSIONS[coding]:
            raise InvalidResponse(f"compressed as {coding}, which was not asked for")
        self._is_until_close = not response.headers.keys() & {"content-length", "transfer-encoding"}

    def on_body(self, data: bytes) -> None:
        """Pass on a part of the body."""
        self._overhead = 0
        if data := self._inflate(data) if self._is_compressed else data:
            self._receiving().feed(data)

    def on_message_complete(self) -> None:
        """Complete the response, unless it is an interim one."""
        response = self._receiving()
        if not self._is_whole:
            raise InvalidResponse("a compressed body that ends too early")
        if response.status:
            response.is_complete = True
            self._can_reuse = self._parser.should_keep_alive()

    def _inflate(self, data: bytes) -> bytes:
        self._inflater = inflater = self._inflater or zlib.decompressobj(zlib.MAX_WBITS | 32)  # gzip's header or zlib's
        try:
            inflated: bytes = inflater.decompress(data, MAX_INFLATED_BYTES)
        except zlib.error as exc:
            raise InvalidResponse(f"a damaged compressed body ({exc})") from exc
        if inflater.unconsumed_tail or inflater.unused_data:
            raise InvalidResponse(f"more than {MAX_INFLATED_BYTES} bytes in a compressed part, or any behind it")
        return inflated

    @property
    def _is_whole(self) -> bool:
        """Whether a compressed body has ended, if any of it has come."""
        return self._inflater is None or bool(self._inflater.eof)

    def _receiving(self) -> Response:
        if self._response is None or self._response.is_complete:
            raise InvalidResponse("a second response to one request")
        return self._response
