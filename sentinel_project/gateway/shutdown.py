"""End the requests in flight when the server has to stop.

On SIGTERM the worker takes no new connections, and closes each one after its next answer. Connections without a
request are closed after some seconds: closed at once, they would reset requests that are on their way. Requests still
in flight after `SENTINEL_DRAIN_SECONDS` end: a stream with an error event, the others with 503.

A server notifies its application of a stop only after the last answer (ASGI's lifespan), and closes connections before
that; hence the signals.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from sentinel_project.gateway.conf import settings
from sentinel_project.gateway.errors import ApiError

CLIENT_DISCONNECTED = "the client left"
"""The message of a cancellation for this reason; others come from a stop of the server."""
LINGER_SECONDS = 6
"""HTTP clients themselves give up an unused connection after 5 s (httpx, hence OpenAI's SDK) or 4 s (Node)."""
LOOK_SECONDS = 0.05

Handler = Callable[[int, Any], Any]


class Stopping:
    """Whether this worker is stopping, and its requests in flight."""

    def __init__(self) -> None:
        self.stop_requested = False
        self._over = False
        self._chats: set[asyncio.Task[Any]] = set()
        self._servers: dict[int, Handler] = {}

    def begin_chat(self, work: asyncio.Task[Any]) -> None:
        """Register the task of a chat, which is cancelled after the drain time."""
        self._chats.add(work)
        if self._over:
            work.cancel()

    def end_chat(self, work: asyncio.Task[Any]) -> None:
        """Unregister a finished task."""
        self._chats.discard(work)

    def listen(self) -> None:
        """Intercept the server's stop signals, if this is the main thread."""
        if threading.current_thread() is not threading.main_thread():
            return
        for signum in (signal.SIGTERM, signal.SIGINT):
            servers = signal.getsignal(signum)
            if callable(servers):
                self._servers[signum] = servers
                signal.signal(signum, partial(self._on_signal, asyncio.get_running_loop()))

    def unlisten(self) -> None:
        """Restore the server's signal handlers."""
        for signum, servers in self._servers.items():
            signal.signal(signum, servers)
        self._servers.clear()

    def caused(self, exc: asyncio.CancelledError) -> bool:
        """Return whether a chat was cancelled because the server stops."""
        return self.stop_requested and CLIENT_DISCONNECTED not in exc.args

    def error(self) -> ApiError:
        """Return the error for a request whose time is over. Takes back the cancellation that led here."""
        cast("asyncio.Task[Any]", asyncio.current_task()).uncancel()
        message, headers = "The gateway is being restarted; send the request again", {"Connection": "close"}
        return ApiError(503, message, code="gateway_restarting", retry_after=1, headers=headers)

    def end_chats(self) -> None:
        """Cancel the requests in flight."""
        self._over = True
        for work in list(self._chats):
            work.cancel()

    def _on_signal(self, loop: asyncio.AbstractEventLoop, signum: int, frame: Any) -> None:
        servers = self._servers[signum]
        if self.stop_requested:
            servers(signum, frame)
            return
        self.stop_requested = True
        drain = settings.SENTINEL_DRAIN_SECONDS
        linger = min(LINGER_SECONDS, drain / 2)  # what begins in it has as much time again
        if signum != signal.SIGTERM:
            linger = 0  # do not wait at a terminal
        loop.call_soon_threadsafe(loop.call_later, drain, self.end_chats)
        loop.call_soon_threadsafe(self._let_go, partial(servers, signum, frame), servers, loop.time() + linger)

    def _let_go(self, stop: Callable[[], Any], servers: Handler, until: float) -> None:
        """Stop uvicorn once its connections are closed; other servers do not reveal theirs."""
        server, loop = getattr(servers, "__self__", None), asyncio.get_running_loop()
        for listener in getattr(server, "servers", ()):
            listener.close()
        left = getattr(getattr(server, "server_state", None), "connections", ())
        if left and loop.time() < until:
            loop.call_later(LOOK_SECONDS, self._let_go, stop, servers, until)
        else:
            stop()


stopping = Stopping()
