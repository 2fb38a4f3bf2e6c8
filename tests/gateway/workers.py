"""Several workers of the gateway, each a uvicorn process on a port of its own, over one Redis and one database."""

from __future__ import annotations

import json
import re
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.gateway.live import PROTOCOL, database, environment, provider_entry, wait_until_healthy
from tests.programs import Program
from tests.servers import free_port
from tests.waiting import SECONDS


def providers_file(folder: Path, urls: Mapping[str, str], *, key_env: str | None = None) -> str:
    """Write the configuration of some upstreams; return its path."""
    key = {"api_key_env": key_env} if key_env else {}
    file = folder / f"{'-'.join(urls)}.toml"
    file.write_text("".join(provider_entry(name, url, **key) for name, url in urls.items()))
    return str(file)


class Worker:
    """One process; a context manager that ends it. `group` are all that count together, itself included."""

    def __init__(self, folder: Path, env: dict[str, str], *, grace_seconds: int = 1) -> None:
        port = free_port()
        self.group = [self]
        self.url = f"http://127.0.0.1:{port}"
        self.log = folder / f"log-{port}"
        command = [
            "-m",
            "uvicorn",
            "sentinel_project.asgi:application",
            *PROTOCOL,
            "--port",
            str(port),
            "--timeout-graceful-shutdown",
            str(grace_seconds),
        ]
        command += ["--no-access-log", "--backlog", "2048"]
        with open(self.log, "wb") as log:
            self.process = Program(*command, env={**env, "PYTHONWARNINGS": "error"}, cwd=folder, stdout=log, stderr=log)

    def wait(self) -> None:
        """Wait until it answers."""
        wait_until_healthy(self.url, self.process, self.log)

    def metrics(self) -> dict[str, float]:
        """Return the samples of /metrics, by name with labels in alphabetical order, also the other workers' last."""
        time.sleep(0.2)  # they write them every 0.1 s
        for each in self.group:
            with suppress(OSError):  # one that ends writes them as it does
                each.finish_due()
        lines = self.get("/metrics").splitlines()
        samples = (line.rpartition(" ") for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in samples}

    def finish_due(self) -> None:
        """Wait until its event loop has done what was due before this call, however busy the machine is."""
        for _ in range(2):  # what is due begins before the first answer
            self.get("/healthz")

    def get(self, path: str) -> str:
        """Return the body of a page."""
        with urllib.request.urlopen(f"{self.url}{path}", timeout=SECONDS) as answer:
            return str(answer.read().decode())

    def status(self, field: str) -> int:
        """Return a number from /proc/PID/status: `Threads`, `VmRSS` in KiB."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"^{field}:\s+(\d+)", text, re.MULTILINE)
        assert found
        return int(found[1])

    def request_lines(self) -> list[dict[str, Any]]:
        """Return its log lines of requests, one object each."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(SECONDS)
        finally:
            self.kill()


class Workers:
    """Workers on common ground; a context manager. `key` is ann's."""

    def __init__(self, folder: Path, count: int, *, grace_seconds: int = 1, **variables: str) -> None:
        content, self.key, _ = database()
        self._grace_seconds = grace_seconds
        self.folder = folder
        self._variables = variables
        (folder / "db.sqlite3").write_bytes(content)
        self.each: list[Worker] = []
        self.each += [self._start() for _ in range(count)]
        for worker in self.each:
            worker.wait()

    @property
    def urls(self) -> list[str]:
        """Where they answer."""
        return [worker.url for worker in self.each]

    def add(self, **variables: str) -> Worker:
        """Start one more, with other variables."""
        worker = self._start(**variables)
        self.each.append(worker)
        worker.wait()
        return worker

    def replace(self, worker: Worker, **variables: str) -> Worker:
        """Stop one and start another in its place."""
        self.each.remove(worker)
        worker.__exit__()
        return self.add(**variables)

    def _start(self, **variables: str) -> Worker:
        env = environment(self.folder, **{**self._variables, **variables})
        worker = Worker(self.folder, env, grace_seconds=self._grace_seconds)
        worker.group = self.each
        return worker

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for worker in self.each:
            worker.process.send_signal(signal.SIGTERM)
        for worker in self.each:
            worker.__exit__()


def total(samples: Mapping[str, float], name: str, *parts: str) -> float:
    """Add up the samples of a metric whose labels contain all `parts`."""
    return sum(
        value for sample, value in samples.items() if _is(sample, name) and all(part in sample for part in parts)
    )


def _is(sample: str, name: str) -> bool:
    return sample == name or sample.startswith(name + "{")


def names(samples: Iterable[str]) -> set[str]:
    """Return the names of samples without their labels."""
    return {sample.partition("{")[0] for sample in samples}
