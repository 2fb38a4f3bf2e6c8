"""The gateway as its users run it: `uvicorn sentinel_project.asgi:application`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tests import programs
from tests.programs import ROOT, Program
from tests.servers import free_port, with_timeout
from tests.waiting import SECONDS

MODELS = ("model-a", "model-b")
PROTOCOL = ("--http", "sentinel_project.http_protocol:LimitedProtocol")
"""As docs/production.md starts it."""
PREPARE = """
import os, django
from django.core.management import call_command
os.environ["DJANGO_SETTINGS_MODULE"] = "sentinel_project.settings"
django.setup()
call_command("migrate", verbosity=0)
call_command("createkey", "ann")
call_command("createkey", "ben")
"""
"""As `manage.py` would, in one process, for the start of one takes most of the time."""


def environment(folder: Path, **variables: str) -> dict[str, str]:
    """Return an environment with nothing of this one but where programs are; the store may take its time."""
    if url := variables.get("REDIS_URL"):
        variables["REDIS_URL"] = with_timeout(url)
    return {
        "PATH": os.environ.get("PATH", ""),
        "PYTHONPATH": str(ROOT),
        "SENTINEL_DATA_DIR": str(folder),
        "DATABASE_URL": f"sqlite:///{folder / 'db.sqlite3'}",
        "SECRET_KEY": "only-for-the-tests-" + 40 * "x",
        **variables,
    }


def provider_entry(name: str, url: str, models: Sequence[str] = MODELS, **fields: Any) -> str:
    """Return a provider's table in the gateway's configuration."""
    entry = {"name": name, "base_url": url, "models": models, **fields}
    return "[[provider]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in entry.items())


def manage(*arguments: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run `manage.py` to its end."""
    return programs.run(str(ROOT / "manage.py"), *arguments, env=env)


def prepare(env: dict[str, str]) -> tuple[str, str]:
    """Migrate the database of an environment; return two keys in it, of ann and of ben."""
    command = [sys.executable, "-c", PREPARE]  # not forked: its end puts the write-ahead log into the file
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ann, ben = done.stdout.split()
    return ann, ben


@cache
def database() -> tuple[bytes, str, str]:
    """Return a migrated database, made once, and the keys of ann and of ben in it."""
    with tempfile.TemporaryDirectory() as folder:
        keys = prepare(environment(Path(folder)))
        return Path(folder, "db.sqlite3").read_bytes(), *keys


def wait_until_healthy(url: str, process: Program, log: Path, *, path: str = "/healthz") -> None:
    """Wait until a server answers; fail with its log when it ends or takes too long."""
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            urllib.request.urlopen(f"{url}{path}", timeout=5).close()
            return
        except OSError:  # refused, or a machine so busy that it took too long
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)


class LiveGateway:
    """One uvicorn process; a context manager. `key` and `other_key` belong to two owners, ann and ben."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.env = environment(folder, **variables)
        self.folder = folder
        self.log = folder / "log"
        content, self.key, self.other_key = database()
        (folder / "db.sqlite3").write_bytes(content)
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        uvicorn = ["-m", "uvicorn", "sentinel_project.asgi:application", *PROTOCOL, "--port", str(port)]
        env = {**self.env, "PYTHONWARNINGS": "error"}
        with open(self.log, "wb") as log:
            self.process = Program(
                *uvicorn, "--timeout-graceful-shutdown", "1", env=env, cwd=folder, stdout=log, stderr=log
            )
        wait_until_healthy(self.url, self.process, self.log)

    def create_key(self, owner: str) -> str:
        """Return a new key."""
        done = manage("createkey", owner, env=self.env)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()[-1]

    def count_requests(self) -> int:
        """Return the number of requests in the server's log so far."""
        return self.log.read_text().count(' HTTP/1.1" ')

    def __enter__(self) -> LiveGateway:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(SECONDS)
        finally:
            self.process.kill()
