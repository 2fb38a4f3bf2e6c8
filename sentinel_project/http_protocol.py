"""The server side of one HTTP/1.1 connection, with limits on the resources of clients without a key.

`manage.py run` uses it; for uvicorn itself it is `--http sentinel_project.http_protocol:LimitedProtocol`.

One request is parsed at a time. The bytes after it wait, unparsed and bounded, until its response is complete. So
responses and refusals keep their order, and a lost connection ends at most one request.

The contract with uvicorn: it creates a protocol for each connection with `config`, `server_state`, `app_state` and
`_loop`, and calls `shutdown` when it stops; then it waits until `connections` and `tasks` of the state are empty. The
protocol maintains these two and `total_requests`, and reads the state's `default_headers` and four settings.
tests/http_server/test_uvicorn_contract.py fails when a release of uvicorn changes this.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any

from django.conf import settings

from sentinel_project.gateway.errors import ApiError, too_many_connections
from sentinel_project.http_exchange import CONTINUE, Exchange, error_response
from sentinel_project.http_request import Incoming, Request
from sentinel_project.http_scope import addresses
from sentinel_project.http_timers import HEAD_SECONDS, LINGER_SECONDS, PROBE_SECONDS, Delivery, Timer

MAX_WAITING_BYTES = 64 * 1024
"""Maximum unread part of a body, or of requests behind the current one; beyond it, reading pauses."""

UNLIMITED_PATHS = ("/healthz", "/readyz", "/metrics")
"""Served without a body also when there are too many connections: an orchestrator would restart a busy worker, and cut
its streams."""

logger = logging.getLogger(__name__)


class LimitedProtocol(asyncio.Protocol):
    """HTTP/1.1 with limits on headers (431), on the time a request takes to arrive (408), on connections (503)."""

    def __init__(
        self, config: Any, server_state: Any, app_state: dict[str, Any], _loop: asyncio.AbstractEventLoop | None = None
    ) -> None:
        self.transport: Any = None
        self.writable = asyncio.Event()
        self.writable.set()
        self._config, self._state, self._app_state = config, server_state, app_state
        self._loop = _loop or asyncio.get_running_loop()
        self._max_connections = config.limit_concurrency or settings.SENTINEL_MAX_CONNECTIONS
        self._addresses: dict[str, Any] = {}
        self._incoming = Incoming()
        self._exchange: Exchange | None = None
        self._has_eof = self._is_paused = self._is_ending = self._is_admitted = False
        self._arrival = Timer(self._loop, self._on_late)
        self._delivery = Delivery(self._loop)
        self._probing = Timer(self._loop, self._probe)

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers of every response; uvicorn renews the date among them."""
        headers: list[tuple[bytes, bytes]] = self._state.default_headers
        return headers

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for the first request."""
        self.transport = transport
        self._state.connections.add(self)
        self._is_admitted = self._has_room()
        self._addresses = addresses(transport)
        self._arrival.start(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the current exchange, and drop the requests after it."""
        self._state.connections.discard(self)
        self._end()
        self._delivery.cancel()
        self.writable.set()

    def data_received(self, data: bytes) -> None:
        """Use the bytes of the current request; keep those after it."""
        if not self._is_ending:
            self._incoming.waiting += data
            self._advance()

    def eof_received(self) -> bool:
        """Keep a half-closed connection open: its client may still read.

        A client that has left looks the same until the server writes, which `_probe` does. HTTP/1.0 clients and those
        that already receive an event stream cannot be probed; they count as gone.
        """
        exchange = self._exchange
        self._has_eof = (
            exchange is not None
            and exchange.is_received
            and exchange.request.version == "1.1"
            and not exchange.is_open_ended
            and self._addresses["scheme"] == "http"  # TLS cannot be half-closed
        )
        if self._has_eof:
            self._probing.start(PROBE_SECONDS)
        return self._has_eof

    def pause_writing(self) -> None:
        """Stop writing: the client does not read."""
        self.writable.clear()
        self._delivery.watch(self.transport)

    def resume_writing(self) -> None:
        """Resume writing: the client reads."""
        if not self._is_ending:
            self._delivery.cancel()
        self.writable.set()

    def resume_body(self) -> None:
        """Resume reading after the application has taken the body so far."""
        if self._incoming.body is not None:
            self._pause_reading(False)

    def finish(self) -> None:
        """Start the next request: the response is complete."""
        exchange, self._exchange = self._exchange, None
        self._state.total_requests += 1
        self._probing.pause()
        if exchange is None or exchange.is_persistent:
            self._advance()
        elif self._incoming.body is not None:
            self._linger()
        else:
            self.close()

    def close(self) -> None:
        """Close the connection once everything written is sent."""
        self._end()
        self._delivery.watch(self.transport)
        self.transport.close()

    def shutdown(self) -> None:
        """Close an idle connection; let others end with their current response."""
        if self._exchange is None:
            self.close()
        else:
            self._exchange.is_persistent = False

    def _advance(self) -> None:
        try:
            while self._incoming.waiting and not self._is_ending:
                if (body := self._incoming.body) is not None:
                    piece = self._incoming.take_piece(body)
                    if self._exchange is not None:  # else it was answered before its body was complete
                        self._exchange.feed(piece, is_last=body.is_complete)
                    if not body.is_complete:
                        break
                elif self._exchange is not None or not self._take_head():
                    break
        except ApiError as exc:
            self._refuse(exc)
        if not self._is_ending:
            self._await_next()

    def _take_head(self) -> bool:
        """Parse the waiting bytes of a head; return whether it is complete."""
        is_new = self._incoming.head is None
        request = self._incoming.take_request()
        if request is not None:
            self._begin(request)
        elif is_new:
            self._arrival.start(HEAD_SECONDS)
        return request is not None

    def _has_room(self) -> bool:
        return len(self._state.connections) <= self._max_connections

    def _begin(self, request: Request) -> None:
        # Connections keep the place that they once had: otherwise all would be refused as soon as one is too many.
        self._is_admitted = self._is_admitted or self._has_room()
        is_served = self._is_admitted and len(self._state.tasks) < self._max_connections
        if not is_served and not (request.path in UNLIMITED_PATHS and request.body.is_complete):
            logger.warning("Refused a request: SENTINEL_MAX_CONNECTIONS (%d) is reached", self._max_connections)
            self.transport.write(error_response(too_many_connections(), self.default_headers))
            self.close()
            return
        self._arrival.pause()
        about = {**self._addresses, "root_path": self._config.root_path, "state": self._app_state.copy()}
        self._exchange = Exchange(self, request, about)
        self._exchange.is_persistent &= is_served
        if request.body.is_complete:
            self._exchange.feed(b"", is_last=True)
        task = self._loop.create_task(self._exchange.run(self._config.loaded_app))
        self._state.tasks.add(task)
        task.add_done_callback(self._state.tasks.discard)

    def _await_next(self) -> None:
        """Set the time limit of the next bytes, and whether to continue reading."""
        exchange, is_full = self._exchange, False
        if self._incoming.body is not None:
            if not self._arrival.is_running:
                self._arrival.start(settings.SENTINEL_REQUEST_SECONDS)
            is_full = exchange is not None and exchange.unread > MAX_WAITING_BYTES
        elif exchange is not None:
            self._arrival.pause()
            if not exchange.is_persistent:
                self._incoming.waiting = b""
            is_full = len(self._incoming.waiting) > MAX_WAITING_BYTES
            if is_full or self._has_eof:
                self._probing.start(PROBE_SECONDS)
        elif self._has_eof:
            self.close()
            return
        elif self._incoming.head is None:
            self._arrival.start(self._config.timeout_keep_alive)
        self._pause_reading(is_full)

    def _pause_reading(self, pause: bool) -> None:
        if pause != self._is_paused and not self._has_eof:
            self._is_paused = pause
            (self.transport.pause_reading if pause else self.transport.resume_reading)()

    def _on_late(self) -> None:
        head = self._incoming.head
        if self._is_ending:
            self.transport.close()
        elif self._incoming.body is not None and self._is_paused:  # the application is slow, not the client
            self._arrival.start(HEAD_SECONDS)
        elif self._exchange is not None or (head is not None and head.has_begun):
            self._refuse(ApiError(408, "The request took too long to arrive", code="request_timeout"))
        else:  # idle
            self.close()

    def _probe(self) -> None:
        """Write an interim response: a client that reads ignores it, one that left resets the connection.

        For clients whose leaving the server cannot notice: half-closed ones, and while reading is paused. Once the
        response has begun, its own bytes have the same effect; only the next write would notice it.
        """
        if self._exchange is None or not (self._has_eof or self._is_paused):
            return
        if not self._exchange.is_started:
            self.transport.write(CONTINUE)
        elif self.transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.transport.abort()
            return
        self._probing.start_doubled()

    def _refuse(self, error: ApiError) -> None:
        """Answer the request that is arriving with an error, unless its response has begun, and close."""
        if self._incoming.body is not None and (self._exchange is None or self._exchange.is_started):
            self.close()
            return
        self.transport.write(error_response(error, self.default_headers))
        self._linger()

    def _linger(self) -> None:
        """Close the connection, but continue reading for a moment."""
        self._end()
        if not self.transport.can_write_eof():
            self.close()
            return
        self._pause_reading(False)
        self.transport.write_eof()
        self._arrival.start(LINGER_SECONDS)
        self._delivery.watch(self.transport)

    def _end(self) -> None:
        self._is_ending = True
        self._incoming = Incoming()
        self._arrival.cancel()
        self._probing.cancel()
        if self._exchange is not None:
            self._exchange.disconnect()
            self._exchange = None
