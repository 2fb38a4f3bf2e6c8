"""Run the embedded server as long as a process uses it.

Called as a script by `embedded`: `supervisor.py USERS_LOCK SERVER_LOCK_FD COMMAND...`. Each `manage.py run` shares
USERS_LOCK; a process that gets it alone knows that all of them have ended, also those that were killed with -9. Only
the standard library: it starts in 20 ms.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress

STOP_SECONDS = 10
"""How long the server may take to save before it is killed."""
PR_SET_PDEATHSIG = 1
"""From Linux's `prctl.h`."""


def supervise(users_lock: str, server_lock_fd: int, command: list[str]) -> None:
    """Run `command`; stop it when `users_lock` is free, end when it ends.

    The command inherits `server_lock_fd`, so that lock is taken exactly as long as the server lives.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    server = subprocess.Popen(  # noqa: S603
        command,
        pass_fds=[server_lock_fd],
        preexec_fn=_end_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509 - no thread runs yet
    )
    threading.Thread(target=lambda: os._exit(server.wait()), daemon=True).start()
    # Held until this process ends: a process that waits for the lock must not find a stopping server.
    lock = open(users_lock, "ab")  # noqa: SIM115
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
    finally:
        server.terminate()
        try:
            server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _end_with_parent() -> None:
    with suppress(ImportError):  # some builds of Python have no ctypes
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


if __name__ == "__main__":
    supervise(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
