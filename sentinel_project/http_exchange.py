"""One request and its response, as the ASGI application sees them."""

from __future__ import annotations

import asyncio
import functools
import logging
import re
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any, Protocol, cast

from sentinel_project.gateway.errors import ApiError, internal_error
from sentinel_project.http_request import Request
from sentinel_project.http_scope import asgi_scope

logger = logging.getLogger(__name__)
access_logger = logging.getLogger("uvicorn.access")

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
DISCONNECT = {"type": "http.disconnect"}
EXCHANGE = "sentinel.exchange"
"""The extension in an ASGI scope with the `Exchange` itself: `take_body` costs less than a message."""
FRAMING = frozenset({b"connection", b"content-length", b"transfer-encoding"})
"""Headers that concern how the server frames the body."""
HEADER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+: [^\x00-\x08\x0a-\x1f\x7f]*\r\n")


class Connection(Protocol):
    """The parts of the connection that an exchange uses."""

    transport: asyncio.Transport
    writable: asyncio.Event

    @property
    def default_headers(self) -> Iterable[tuple[bytes, bytes]]:
        """The headers of every response."""

    def resume_body(self) -> None:
        """Resume reading after the application has taken the body so far."""

    def finish(self) -> None:
        """Start the next request: the response is complete."""

    def close(self) -> None:
        """Close the connection once everything written is sent."""


class Exchange:
    """Runs the application for one request: `receive` returns the body, `send` frames the response."""

    def __init__(self, connection: Connection, request: Request, about: dict[str, Any]) -> None:
        self.request = request
        self.is_persistent = request.is_persistent
        self.is_received = False
        self.is_started = False
        self.unread = 0
        """Bytes of the request's body that the application has not yet taken."""
        self._connection = connection
        self._about = about
        """The part of the ASGI scope that is not the request's: addresses, `root_path` and `state`."""
        self._on_disconnect: Callable[[], None] | None = None
        self._head = b""
        """The response's status and headers: they are sent with the first part of its body, in one system call."""
        self._pieces: list[bytes] = []
        self._changed = asyncio.Event()
        self._is_over = False
        self._awaits_continue = request.expects_continue
        self._is_bodiless = self._is_chunked = False
        self._left: int | None = None
        """Bytes that `Content-Length` still allows; None without one."""

    @property
    def is_open_ended(self) -> bool:
        """Whether a response of unknown length has begun."""
        return self.is_started and self._left is None

    async def run(self, app: Any) -> None:
        """Call the application. The exchange always ends with a response or a closed connection."""
        # Not an attribute: an exchange that refers to itself waits for the garbage collector.
        scope = asgi_scope(self.request, self._about)
        scope["extensions"] = {EXCHANGE: self}
        try:
            await app(scope, self.receive, self.send)
            if not self._is_over:
                logger.error("%s %r ended without a complete response", self.request.method, self.request.path)
        except asyncio.CancelledError:  # the server stops without waiting
            if not self._is_over:
                self._connection.close()
            raise
        except Exception:
            logger.exception("%s %r failed", self.request.method, self.request.path)
        if not self._is_over:
            self._fail()

    async def receive(self) -> dict[str, Any]:
        """Return the next part of the request's body, or the disconnect that ends the exchange."""
        if self._awaits_continue and not self._is_over:
            self._awaits_continue = False
            self._connection.transport.write(CONTINUE)
        if not self._is_over:
            self._connection.resume_body()
            await self._changed.wait()
            self._changed.clear()
        if self._is_over:
            return DISCONNECT
        body, self._pieces, self.unread = b"".join(self._pieces), [], 0
        return {"type": "http.request", "body": body, "more_body": not self.is_received}

    def take_body(self) -> bytes | None:
        """Return the whole body of the request if it is there, else None: then `receive` returns its parts."""
        if not self.is_received or self._is_over:
            return None
        body, self._pieces, self.unread = b"".join(self._pieces), [], 0
        return body

    async def send(self, message: Any) -> None:
        """Write a part of the response; nothing once the client has left."""
        if not self._connection.writable.is_set():
            await self._connection.writable.wait()
        if self._is_over:
            return
        if message["type"] == "http.response.start":
            self._start(message["status"], message.get("headers", ()))
        else:
            self._write(message.get("body", b""), is_last=not message.get("more_body", False))

    def feed(self, piece: bytes, *, is_last: bool) -> None:
        """Take a part of the request's body."""
        if piece:
            self._awaits_continue = False
            self._pieces.append(piece)
            self.unread += len(piece)
        self.is_received = is_last
        self._changed.set()

    def disconnect(self) -> None:
        """End the exchange without a response."""
        self._is_over = True
        self._changed.set()
        if self._on_disconnect is not None:
            self._on_disconnect()

    def call_on_disconnect(self, callback: Callable[[], None]) -> None:
        """Call a function once when the client leaves before its response is complete."""
        self._on_disconnect = callback
        if self._is_over:
            callback()

    def _start(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        lines: list[bytes] = []
        for cased, value in (*self._connection.default_headers, *headers):
            name = cased.lower()
            if name not in FRAMING or self._frame(name, value):
                lines.append(header_line(name, value))
        if self.request.method == "HEAD" or status in (204, 304):
            self._is_bodiless, self._left = True, 0
        elif self._left is None and self.request.version == "1.1":
            self._is_chunked = True
            lines.append(b"transfer-encoding: chunked\r\n")
        # An HTTP/1.0 client instead reads until the connection closes, as all of its connections do.
        if self._awaits_continue:
            self.is_persistent = False  # the client may or may not send the body
        if not self.is_persistent:
            lines.append(b"connection: close\r\n")
        self._log_access(status)
        self._head = b"".join([status_line(status), *lines, b"\r\n"])

    def _frame(self, name: bytes, value: bytes) -> bool:
        """Take a header that concerns the framing; return whether it is sent."""
        if name == b"content-length":
            self._left = int(value)
        elif name == b"connection":
            self.is_persistent = self.is_persistent and b"close" not in value.lower()
        return name == b"content-length"

    def _write(self, body: bytes, *, is_last: bool) -> None:
        if self._is_bodiless:
            body = b""
        elif self._is_chunked:
            body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if is_last:
                body += b"0\r\n\r\n"
        elif self._left is not None:
            self._left -= len(body)
            if self._left < 0 or (is_last and self._left):
                raise ValueError(f"The response's body differs from its Content-Length by {abs(self._left)} bytes")
        if self._head or body:
            self._connection.transport.write(self._head + body)
            self.is_started, self._head = True, b""
        if is_last:
            self._is_over = True
            self._changed.set()
            self._connection.finish()

    def _fail(self) -> None:
        self._on_disconnect = None
        if not self.is_started:
            self._connection.transport.write(error_response(internal_error(), self._connection.default_headers))
            self._log_access(500)
        self._connection.close()

    def _log_access(self, status: int) -> None:
        if access_logger.hasHandlers():  # `--no-access-log` removes them
            request, client = self.request, "%s:%s" % (self._about["client"] or ("", ""))
            target = request.target.decode("ascii")
            access_logger.info('%s - "%s %s HTTP/%s" %d', client, request.method, target, request.version, status)


@functools.lru_cache(maxsize=128)  # most headers are those of other responses
def header_line(name: bytes, value: bytes) -> bytes:
    """Return a header of a response. Raises `ValueError` for a character that would end or damage it."""
    line = b"%b: %b\r\n" % (name, value)
    if not HEADER.fullmatch(line):
        raise ValueError(f"A response header has a forbidden character: {line!r}")
    return line


@functools.cache
def status_line(status: int) -> bytes:
    """Return the first line of a response."""
    phrase = next((known.phrase for known in HTTPStatus if known == status), "")
    return f"HTTP/1.1 {status} {phrase}\r\n".encode("ascii")


def error_response(error: ApiError, default_headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the whole response for an error after which the connection closes."""
    reply = error.reply()
    body = cast("bytes", reply.body)
    headers = {**reply.headers, "Content-Length": len(body)}
    headers["Connection"] = "close, Upgrade" if "Upgrade" in headers else "close"
    lines = [f"{name}: {value}\r\n".encode("latin-1") for name, value in headers.items()]
    lines += [b"%b: %b\r\n" % header for header in default_headers]
    return b"".join([status_line(error.status), *lines, b"\r\n", body])
