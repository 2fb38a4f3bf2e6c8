"""Parse HTTP/1.1 requests from the bytes of a connection, without I/O.

httptools parses each request's head, and only the head: for it a request that offers an upgrade ends there, and the
body is the next request (MagicStack/httptools#124, Kludex/uvicorn#2722). This module and http_body.py find the ends of
head and body: a parser never sees the bytes of two requests. RFC 9112 is applied strictly where recipients could
disagree.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

import httptools

from sentinel_project.gateway.errors import ApiError
from sentinel_project.http_body import Body, ChunkedBody, FixedBody, invalid

MAX_HEAD_BYTES = 64 * 1024
"""Maximum size of a request line with its headers; nginx allows 32 KiB, h11 64 KiB."""
MAX_HEADERS = 128

VERSIONS = (b"HTTP/1.1", b"HTTP/1.0")
END_OF_HEAD = b"\r\n\r\n"
LENGTH = re.compile(rb"[0-9]{1,18}\Z")


class Request:
    """The head of a request, and the framing of its body."""

    def __init__(self, parsed: _Head, parser: httptools.HttpRequestParser) -> None:
        self.method = parser.get_method().decode("ascii")
        if self.method == "CONNECT":
            raise ApiError(501, "CONNECT is not supported: this is not a proxy", code="method_not_supported")
        self.version = parser.get_http_version()
        self.headers = parsed.headers
        try:
            url = httptools.parse_url(parsed.target)
        except httptools.HttpParserInvalidURLError as exc:
            raise invalid(f"its target is {parsed.target[:100]!r}") from exc
        self.target = parsed.target
        self.raw_path = url.path or b"/"
        self.path = self.raw_path.decode("ascii")
        if "%" in self.path:
            self.path = unquote(self.path)
        self.query = url.query or b""
        self._fields = dict(self.headers)
        self.is_persistent = self.version == "1.1" and b"close" not in self._tokens(b"connection")
        expected = self._fields.get(b"expect", b"")
        self.expects_continue = self.version == "1.1" and expected.lower() == b"100-continue"
        if self._offers_websocket():
            message, headers = "There are no WebSockets here: use HTTP", {"Upgrade": "HTTP/1.1"}
            raise ApiError(426, message, code="websocket_not_supported", headers=headers)
        self.body = self._framing()

    def _offers_websocket(self) -> bool:
        """Return whether this is a WebSocket handshake; offers of other protocols are to be ignored (RFC 9110, 7.8)."""
        return (
            self.method == "GET"
            and self.version == "1.1"
            and b"upgrade" in self._tokens(b"connection")
            and b"websocket" in self._tokens(b"upgrade")
        )

    def _tokens(self, wanted: bytes) -> set[bytes]:
        if wanted not in self._fields:
            return set()
        values = b",".join(value for name, value in self.headers if name == wanted)
        return {token.strip().lower() for token in values.split(b",")}

    def _framing(self) -> Body:
        length, coding = self._fields.get(b"content-length"), self._fields.get(b"transfer-encoding")
        if length is coding:
            return FixedBody(0)  # no body
        if len(self._fields) < len(self.headers):
            names = [name for name, _ in self.headers]
            if names.count(b"content-length") > 1 or names.count(b"transfer-encoding") > 1:
                raise invalid("Content-Length and Transfer-Encoding must not be repeated")
        if coding is None:
            if not LENGTH.match(length or b""):
                raise invalid(f"Content-Length must be a number, not {length!r:.50}")
            return FixedBody(int(length or b""))
        if length is not None or self.version != "1.1":
            raise invalid("Transfer-Encoding is not allowed with Content-Length or in HTTP/1.0")
        if coding.lower() != b"chunked":
            raise _unsupported_coding(coding)
        return ChunkedBody()


class Incoming:
    """The bytes of a connection that were not used yet. One request is parsed at a time."""

    def __init__(self) -> None:
        self.waiting = b""
        self.body: Body | None = None
        """The body of the last request; None once it is complete."""
        self.head: HeadReader | None = None
        """The head that is arriving."""

    def take_request(self) -> Request | None:
        """Parse the waiting bytes of a head; return the request once it is complete. Raises `ApiError`."""
        self.head = self.head or HeadReader()
        request, self.waiting = self.head.feed(self.waiting)
        if request is not None:
            self.head, self.body = None, None if request.body.is_complete else request.body
        return request

    def take_piece(self, body: Body) -> bytes:
        """Return the waiting bytes of `body`, decoded. Raises `ApiError`."""
        piece, self.waiting = body.take(self.waiting)
        if body.is_complete:
            self.body = None
        return piece


class HeadReader:
    """Collects the head of one request."""

    def __init__(self) -> None:
        self._head = _Head()
        self._parser = httptools.HttpRequestParser(self._head)
        self._received = b""

    @property
    def has_begun(self) -> bool:
        """Whether anything but empty lines has arrived."""
        return bool(self._received)

    def feed(self, data: bytes) -> tuple[Request | None, bytes]:
        """Return the request once its head is complete, and the bytes behind its head; raises `ApiError`."""
        fed = len(self._received)
        # Empty lines before a request line are allowed.
        received = self._received + data if fed else data.lstrip(b"\r\n")
        end = received.find(END_OF_HEAD, max(0, fed - len(END_OF_HEAD) + 1))
        stop = len(received) if end < 0 else end + len(END_OF_HEAD)
        self._received = received[:stop]
        self._parse(received[fed:stop])
        if stop > MAX_HEAD_BYTES or len(self._head.headers) > MAX_HEADERS:
            message = f"The headers are larger than {MAX_HEAD_BYTES} bytes or more than {MAX_HEADERS}"
            raise ApiError(431, message, code="headers_too_large")
        if end < 0:
            return None, b""
        self._check_version()
        if not self._head.is_complete or self._head.begun != 1:
            raise invalid("its head is malformed")
        return Request(self._head, self._parser), received[stop:]

    def _parse(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # for the parser the head of an upgrade offer, or of CONNECT, is a whole request
        except httptools.HttpParserError as exc:
            if b" HTTP/" in self._received:
                self._check_version()
            coding = next((value for name, value in self._head.headers if name == b"transfer-encoding"), b"chunked")
            if coding.lower() != b"chunked":
                raise _unsupported_coding(coding) from exc
            raise invalid(str(exc)) from exc

    def _check_version(self) -> None:
        """Raise `ApiError` for another version; llhttp accepts HTTP/2.0, and RTSP/1.0 as version 1.0."""
        line, is_whole, _ = self._received.partition(b"\r\n")
        _, _, version = line.rpartition(b" ")
        if is_whole and version not in VERSIONS:
            message = f"The request line must end with HTTP/1.1 or HTTP/1.0, not {version[:20].decode('latin-1')!r}"
            raise ApiError(505, message, code="http_version_not_supported")


class _Head:
    """The callbacks of httptools."""

    def __init__(self) -> None:
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.begun = 0
        self.is_complete = False

    def on_message_begin(self) -> None:
        self.begun += 1

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.is_complete = True


def _unsupported_coding(coding: bytes) -> ApiError:
    """Return the error for a transfer coding other than `chunked`."""
    message = f"Transfer-Encoding must be chunked, not {coding[:100].decode('latin-1')!r}"
    return ApiError(501, message, code="unsupported_transfer_encoding")
