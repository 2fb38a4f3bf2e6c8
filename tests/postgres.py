"""A PostgreSQL server of the tests' own."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg

from tests.servers import free_port
from tests.waiting import SECONDS


def find_programs() -> Path | None:
    """Return the folder of the newest installed `initdb` and `postgres`; Debian does not put it on PATH."""
    if program := shutil.which("postgres"):
        return Path(program).resolve().parent
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda each: float(each.parent.parent.name))
    return found[-1].parent if found else None


class Postgres:
    """A server with an empty database on a loopback port that outlives `restart`; a context manager that kills it.

    PostgreSQL does not run as root: started by root, it runs as the user `postgres`, whom Debian's package makes.
    """

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self.folder = Path(tempfile.mkdtemp(prefix="postgres-", dir="/tmp"))
        self._user = "postgres" if os.geteuid() == 0 else None
        if self._user:
            os.chown(self.folder, pwd.getpwnam(self._user).pw_uid, -1)
        self.port = free_port()
        self.url = f"postgres://sentinel@127.0.0.1:{self.port}/postgres"
        initdb = ["initdb", "--pgdata=data", "--username=sentinel", "--auth=trust", "--encoding=UTF8", "--no-sync"]
        subprocess.run(self._command(*initdb), cwd=self.folder, user=self._user, check=True, capture_output=True)
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def _command(self, program: str, *options: str) -> list[str]:
        return [str(self._programs / program), *options]

    def start(self) -> None:
        """Start, and wait until it answers."""
        options = ["-D", "data", "-p", str(self.port), "-h", "127.0.0.1", "-k", str(self.folder), "-F"]
        with open(self.folder / "log", "wb") as log:
            self._process = subprocess.Popen(
                self._command("postgres", *options), cwd=self.folder, user=self._user, stdout=log, stderr=log
            )
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                psycopg.connect(self.url).close()
                return
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, (self.folder / "log").read_text()
                time.sleep(0.05)

    def kill(self) -> None:
        """End it at once, with its open connections."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait()
            self._process = None

    def __enter__(self) -> Postgres:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
