"""The gateway as one command that serves with several processes on one port."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.gateway.live import PROTOCOL, database, environment, wait_until_healthy
from tests.programs import ROOT, Program
from tests.servers import free_port
from tests.waiting import SECONDS, wait_until

UVICORN = (
    "-m",
    "uvicorn",
    "sentinel_project.asgi:application",
    "--no-access-log",
    "--timeout-keep-alive",
    "75",
    *PROTOCOL,
)
RUN = (str(ROOT / "manage.py"), "run")


class Fleet:
    """A context manager that stops it. `key` is ann's; `program` is UVICORN or RUN."""

    def __init__(self, folder: Path, workers: int, *options: str, program: tuple[str, ...], **variables: str) -> None:
        content, self.key, _ = database()
        (folder / "db.sqlite3").write_bytes(content)
        self._workers, self._folder = workers, folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "log"
        # Warnings are errors in what is run, but for the supervisor's own child: multiprocessing's tracker.
        command = [*program, "--port", str(self.port), "--workers", str(workers), *options]
        env = environment(folder, **{"PYTHONWARNINGS": "error", **variables})
        with open(self.log, "wb") as log, open(os.devnull) as null:  # a session of its own, as of a service
            self.process = Program(*command, env=env, cwd=folder, stdin=null.fileno(), stdout=log, stderr=log)
        try:
            wait_until_healthy(self.url, self.process, self.log)
            wait_until(lambda: len(self.serving()) == workers)
        except BaseException:
            self.__exit__()
            raise

    def workers(self) -> list[int]:
        """Return the process ids of those that serve or start, oldest first."""
        if self._workers == 1:
            return [self.process.pid]
        return [pid for pid in _children(self.process.pid) if "spawn_main" in _command(pid)]

    def serving(self) -> list[int]:
        """Return those of them that have started: they export the state of providers."""
        return [pid for pid in self.workers() if (self._folder / f"metrics/gauge_livemostrecent_{pid}.db").exists()]

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(SECONDS)
        finally:
            self.process.kill()
            self.process.wait()


def _children(pid: int) -> list[int]:
    """Return the children of a process that live; none of one that has ended."""
    found = []
    for each in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = each.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent) == pid and state != "Z":
            found.append(int(each.parent.name))
    return sorted(found)


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""
