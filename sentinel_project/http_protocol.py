"""What the HTTP server bears of one client: uvicorn's own protocol has no limit on headers and on time.

`manage.py run` uses it; for uvicorn itself it is `--http sentinel_project.http_protocol:LimitedProtocol`. No key is
needed to send headers, so without it anybody can fill the memory, or keep connections forever.
"""

from __future__ import annotations

import asyncio
from typing import Any

from django.conf import settings
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from sentinel_project.gateway.errors import ApiError, too_large

HEAD_SECONDS = 10
"""How long a connection may take to send a request's headers, also its first; nginx's default is 60."""
STUCK_SECONDS = 60
"""How long a client may leave its answer unread; nginx's `send_timeout` is the same."""
MAX_HEAD_BYTES = 64 * 1024
"""Of a request line and its headers; nginx takes 32 KiB, h11 64 KiB."""
MAX_HEADERS = 128


class LimitedProtocol(HttpToolsProtocol):
    """HTTP/1.1 with limits on headers (431), on the time a request takes to arrive (408), on connections (503)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.limit_concurrency is None:
            self.limit_concurrency = settings.SENTINEL_MAX_CONNECTIONS
        self.ws_protocol_class = None  # there are no WebSockets: who asks for one gets a plain answer
        self._in_head = self._in_body = False
        self._received = 0
        self._late: asyncio.TimerHandle | None = None
        self._stuck: asyncio.TimerHandle | None = None
        self._refusal = ApiError(400, "The request is not HTTP", code="invalid_http")

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._wait(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._arrived()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what comes of a request."""
        super().data_received(data)
        if self._in_head or self._in_body:
            self._received += len(data)
            if self._received > MAX_HEAD_BYTES and not self.transport.is_closing():
                self._look_at_size()
        if self._late is None and (self._in_head or self._is_idle()):  # idle: empty lines, which end uvicorn's wait
            self._wait(HEAD_SECONDS)

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._in_head, self._received = True, 0

    def on_headers_complete(self) -> None:
        """Take a request whose headers are within the limits."""
        self._in_head, self._in_body = False, True
        length = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if length > MAX_HEAD_BYTES or len(self.headers) > MAX_HEADERS:
            self._refusal = _head_too_large()
            raise ValueError  # the parser ends, and `send_400_response` is called
        super().on_headers_complete()
        self._wait(settings.SENTINEL_REQUEST_SECONDS)

    def on_message_complete(self) -> None:
        """End a request."""
        self._in_body = False
        self._arrived()
        super().on_message_complete()

    def pause_writing(self) -> None:
        """Wait for a client that does not read."""
        super().pause_writing()
        self._wait_for_reader()

    def resume_writing(self) -> None:
        """Wait no more: it reads."""
        super().resume_writing()
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None

    def send_400_response(self, msg: str) -> None:
        """Refuse what the parser refused."""
        self._refuse(self._refusal)

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: it would advise to install WebSockets, as often as anybody asks for one."""

    def _look_at_size(self) -> None:
        """Refuse headers without an end; and chunks, for what comes between and behind them counts in no body."""
        if self._in_head:
            self._refuse(_head_too_large())
        elif self._received > 2 * settings.DATA_UPLOAD_MAX_MEMORY_SIZE + MAX_HEAD_BYTES and self._is_chunked():
            if self.cycle.response_started:
                self.transport.close()
            else:
                self._refuse(too_large(settings.DATA_UPLOAD_MAX_MEMORY_SIZE))

    def _is_chunked(self) -> bool:
        return any(name == b"transfer-encoding" for name, _ in self.headers)

    def _is_idle(self) -> bool:
        return not self._in_body and (self.cycle is None or self.cycle.response_complete)

    def _wait(self, seconds: float) -> None:
        self._arrived()
        self._late = self.loop.call_later(seconds, self._too_late)

    def _arrived(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _wait_for_reader(self) -> None:
        unread = self.transport.get_write_buffer_size()
        self._stuck = self.loop.call_later(STUCK_SECONDS, self._look_at_reader, unread)

    def _look_at_reader(self, unread: int) -> None:
        if self.transport.get_write_buffer_size() < unread:
            self._wait_for_reader()
        else:
            self.transport.abort()

    def _too_late(self) -> None:
        if self.flow.read_paused:  # the delay is the server's own: an earlier request of the connection goes on
            self._wait(HEAD_SECONDS)
        elif not self._in_head and (not self._in_body or self.cycle.response_started):
            self.transport.close()  # nothing was asked, or it is answered already
        else:
            self._refuse(ApiError(408, "The request took too long to arrive", code="request_timeout"))

    def _refuse(self, error: ApiError) -> None:
        body = error.response().content
        head = [b"content-type: application/json", b"content-length: %d" % len(body), b"connection: close"]
        self.transport.write(STATUS_LINE[error.status] + b"\r\n".join([*head, b"", body]))
        self.transport.close()


def _head_too_large() -> ApiError:
    message = f"The headers are larger than {MAX_HEAD_BYTES} bytes or more than {MAX_HEADERS}"
    return ApiError(431, message, code="headers_too_large")
