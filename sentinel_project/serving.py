"""Serves the ASGI application with uvicorn, in this process or in several."""

from __future__ import annotations

import ipaddress
import logging
import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException
from typing import Any

import uvicorn
from django.conf import settings
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

try:
    import resource
except ImportError:  # Windows has no such limit
    resource = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

BACKLOG = 2048
KEEP_ALIVE_SECONDS = 75
"""Longer than proxies keep connections (usually 60 s), so that no request meets a closing connection."""
GRACE_SECONDS = 5
"""How long a stopping worker may run after the drain time, at which the gateway ends its chats."""
START_SECONDS = 30
"""How long a new worker may take to start before a restart is given up: under load uvicorn's 5 s are too short."""

FILES_PER_CONNECTION = 2
"""Files per chat: the client's connection and the one to its provider."""
OTHER_FILES = 256
"""Other files: the store's connections, the database, logs, metrics."""


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket: a second command on its port fails, and early requests wait.

    Port 0 takes a free one. Raises `OSError`.
    """
    family, _, _, _, address = min(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE))
    return socket.create_server(address[:2], family=family, backlog=BACKLOG)


def serve(listener: socket.socket, *, workers: int, debug: bool, drain_seconds: int, ready: Callable[[], None]) -> bool:
    """Serve until SIGINT or SIGTERM; return whether it could. Calls `ready` once requests are answered.

    SIGHUP replaces the workers if there are several and no terminal, whose end would send it; otherwise it stops, too.
    """
    config = uvicorn.Config(
        "sentinel_project.asgi:application" if workers == 1 else f"{__name__}:worker",
        factory=workers > 1,
        http="sentinel_project.http_protocol:LimitedProtocol",
        server_header=False,
        workers=workers,
        lifespan="on",
        access_log=False,
        log_level="info" if debug else "warning",
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=drain_seconds + GRACE_SECONDS,
    )
    _raise_file_limit()
    nohup = hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    server: Any = uvicorn.Server(config) if workers == 1 else _Workers(config, [listener])
    if workers == 1:
        # uvicorn does the same a little later. A signal in between must not raise: anywhere, that can be swallowed.
        signal.signal(signal.SIGINT, server.handle_exit)
        signal.signal(signal.SIGTERM, server.handle_exit)
    if hasattr(signal, "SIGHUP") and (workers == 1 or nohup or _has_terminal()):
        # uvicorn would restart its workers, which would outlive the terminal.
        signal.signal(signal.SIGHUP, signal.SIG_IGN if nohup else lambda *_: signal.raise_signal(signal.SIGTERM))
    threading.Thread(target=_call_when_answering, args=[ready, *listener.getsockname()[:2]], daemon=True).start()
    if workers == 1:
        server.run([listener])
        return bool(server.started)
    server.run()
    return all(process.exitcode != STARTUP_FAILURE for process in server.processes)


def _has_terminal() -> bool:
    """Return whether this process belongs to a terminal; services and containers do not."""
    try:
        os.close(os.open(os.ctermid(), os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _raise_file_limit() -> None:
    """Raise the limit of open files as far as it goes; workers inherit it. Warn where connections may exceed it."""
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_PER_CONNECTION * settings.SENTINEL_MAX_CONNECTIONS + OTHER_FILES
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        soft = allowed
    if soft != resource.RLIM_INFINITY and soft < wanted:
        logger.warning(
            "A worker may open %d files; SENTINEL_MAX_CONNECTIONS=%d may need %d. Raise the limit (ulimit -n).",
            *(soft, settings.SENTINEL_MAX_CONNECTIONS, wanted),
        )


def _call_when_answering(ready: Callable[[], None], host: str, port: int) -> None:
    if ipaddress.ip_address(host).is_unspecified:
        host = "localhost"
    with suppress(OSError, HTTPException), closing(HTTPConnection(host, port)) as client:
        client.request("GET", "/healthz")  # waits in the backlog until a worker serves
        client.getresponse()
        ready()


class _Workers(Multiprocess):
    """uvicorn's supervisor; a stop closes the listening socket, or connections would wait until they time out."""

    def restart_all(self) -> None:
        answer_seconds = self.config.timeout_worker_healthcheck
        self.config.timeout_worker_healthcheck = START_SECONDS  # also how long a worker may not answer
        try:
            super().restart_all()
        finally:
            self.config.timeout_worker_healthcheck = answer_seconds

    def terminate_all(self) -> None:
        for listener in self.sockets:
            listener.close()
        super().terminate_all()


def worker() -> Any:
    """Return the application for a worker process, which ends with its parent, even after kill -9."""
    from sentinel_project.asgi import application

    threading.Thread(target=_end_with_parent, daemon=True).start()
    return application


def _end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
