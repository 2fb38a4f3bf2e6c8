"""The client side of one HTTP/1.1 connection: it sends a request, and passes on the response as it arrives.

httptools parses. A connection takes another request only after a response that ended where its framing says, to a
request that was sent whole, with no byte behind it. What a server can make grow is bounded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import httptools

MAX_HEAD_BYTES = 64 * 1024
"""Maximum size of a response's headers, interim responses and trailers: some providers send their whole policy."""
MAX_HEADERS = 256
MAX_UNREAD_BYTES = 128 * 1024
"""How much of a response waits for its reader; beyond it, reading pauses."""
MAX_WRITE_BYTES = 256 * 1024
"""How much of a request is written at once; the rest follows as the server reads."""


class HttpError(Exception):
    """A request got no whole response. Operators see the class's name."""


class Disconnected(HttpError):
    """The server closed the connection before the end of its response."""


class InvalidResponse(HttpError):
    """What the server sent is not an HTTP/1.1 response, or exceeds a limit."""


def request_head(method: str, target: str, headers: Mapping[str, str]) -> bytes:
    """Return the first line and the headers of a request. Raises `ValueError` if one of them has a line break."""
    lines = [f"{method} {target} HTTP/1.1", *[f"{name}: {value}" for name, value in headers.items()], "", ""]
    head = "\r\n".join(lines)
    if not head.count("\r") == head.count("\n") == len(lines) - 1 or target.count(" "):
        raise ValueError("the headers of a request must not have line breaks, nor its target spaces")
    return head.encode()


class Response:
    """A response as it arrives. Names of headers are in lower case; of repeated ones the first counts."""

    def __init__(self, connection: Connection) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.is_complete = False
        self._connection = connection
        self._chunks: list[bytes] = []
        self._unread = 0
        self._is_discarded = False
        self._error: HttpError | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def read(self) -> bytes:
        """Return what has arrived of the body, after a wait if that is nothing; b"" at its end. Raises `HttpError`."""
        while not self._chunks and not self.is_complete:
            await self.wait()
        body = b"".join(self._chunks)
        self._chunks.clear()
        self._unread = 0
        if not self.is_complete:
            self._connection.pause_reading(False)
        return body

    def close(self) -> None:
        """Close the connection, unless the response is complete."""
        if not self.is_complete:
            self._connection.close()

    def discard(self, seconds: float) -> None:
        """Drop the rest of the body; close the connection unless the response ends within some seconds."""
        self._is_discarded = True
        if not self.is_complete:
            self._connection.pause_reading(False)
            asyncio.get_running_loop().call_later(seconds, self.close)

    async def wait(self) -> None:
        """Wait for more of the response; raises `HttpError` if none will come."""
        if self._error is not None:
            raise self._error
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    def wake(self) -> None:
        """End the wait."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def feed(self, data: bytes) -> None:
        """Add a part of the body."""
        if self._is_discarded:
            return
        self._chunks.append(data)
        self._unread += len(data)
        if self._unread > MAX_UNREAD_BYTES:
            self._connection.pause_reading(True)

    def fail(self, error: HttpError) -> None:
        """Set the error that is raised after what has arrived, unless that is all."""
        self._error = error
        self.wake()


class Connection(asyncio.Protocol):
    """One connection; `on_idle` is called with it when it can take another request."""

    def __init__(self, on_idle: Callable[[Connection], None]) -> None:
        self.has_answered = False
        """Whether a byte has come since the request."""
        self.idle_since = 0.0
        self._on_idle = on_idle
        self._transport: Any = None
        self._parser = httptools.HttpResponseParser(self)
        self._response: Response | None = None
        self._unsent = memoryview(b"")
        self._overhead = self._header_bytes = self._header_count = 0
        self._is_until_close = self._can_reuse = False
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
        self._overhead = self._header_bytes = self._header_count = 0
        self.has_answered = self._is_until_close = self._can_reuse = False
        first = MAX_WRITE_BYTES if len(body) > MAX_WRITE_BYTES else len(body)
        self._transport.write(head + body[:first])
        if first < len(body):
            self._unsent = memoryview(body)[first:]
            self._write()
        try:
            while not response.status:
                await response.wait()
        except BaseException:
            self.close()
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
        while self._unsent and not self._is_writing_paused:
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
        self.has_answered = True
        self._overhead += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            self._end(InvalidResponse(str(exc.__context__ or exc)))
        else:
            if response.is_complete:
                self._end()
            elif self._overhead > MAX_HEAD_BYTES:
                self._end(InvalidResponse(f"more than {MAX_HEAD_BYTES} bytes around the body"))
        response.wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the response: in order only if it lasts until the connection is closed."""
        if self._response is not None:
            self._response.is_complete = exc is None and self._is_until_close
            self._end(Disconnected(str(exc or "closed before the end of the response")))

    # Called by httptools

    def on_message_begin(self) -> None:
        """Refuse a response behind the one to the request."""
        self._receiving()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header of the response, the first of its name; drop trailers."""
        response = self._receiving()
        self._header_count += 1
        self._header_bytes += len(name) + len(value)
        if self._header_count > MAX_HEADERS or self._header_bytes > MAX_HEAD_BYTES:
            raise InvalidResponse(f"more than {MAX_HEADERS} headers, or {MAX_HEAD_BYTES} bytes of them")
        if not response.status:
            response.headers.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))

    def on_headers_complete(self) -> None:
        """Begin the response; drop the headers of an interim one (1xx)."""
        response, status = self._receiving(), self._parser.get_status_code()
        if status < 200:
            response.headers.clear()
            return
        response.status = status
        coding = response.headers.get("transfer-encoding", "chunked")
        if coding.lower() != "chunked" or response.headers.get("content-encoding", "identity").lower() != "identity":
            raise InvalidResponse("an encoding that was not asked for")
        self._is_until_close = not response.headers.keys() & {"content-length", "transfer-encoding"}

    def on_body(self, data: bytes) -> None:
        """Pass on a part of the body."""
        self._overhead = 0
        self._receiving().feed(data)

    def on_message_complete(self) -> None:
        """Complete the response, unless it is an interim one."""
        response = self._receiving()
        if response.status:
            response.is_complete = True
            self._can_reuse = self._parser.should_keep_alive()

    def _receiving(self) -> Response:
        if self._response is None or self._response.is_complete:
            raise InvalidResponse("a second response to one request")
        return self._response
