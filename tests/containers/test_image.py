"""The image serves a chat with Valkey and PostgreSQL, as an ordinary user."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.containers.conftest import Image
from tests.gateway.live import wait_until_healthy
from tests.postgres import Postgres
from tests.servers import free_port, start_server

CHAT = {"model": "echo-small", "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture
def variables(postgres_programs: Path) -> Iterator[dict[str, str]]:
    """The environment of a gateway with servers of its own, which the container reaches over loopback."""
    with Postgres(postgres_programs) as postgres, start_server(tcp=True) as valkey:
        yield {"DATABASE_URL": postgres.url, "REDIS_URL": valkey.url, "SECRET_KEY": 60 * "x"}


def gateway_pid(port: str) -> int:
    """Return the id of `manage.py run` in the container; buildah, which has the same arguments, forwards no signal."""
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            arguments = each.read_text().split("\0")
            if "python" in Path(arguments[0]).name and port in arguments:
                found.append(int(each.parent.name))
    return min(found)


def test_image_serves_a_chat_and_stops_on_sigterm(image: Image, variables: dict[str, str], tmp_path: Path) -> None:
    program = [*image.config["Entrypoint"], *image.config["Cmd"]]
    port, log = free_port(), tmp_path / "log"
    with open(log, "wb") as out:
        process = subprocess.Popen(image.command(*program, "--port", str(port), **variables), stdout=out, stderr=out)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_healthy(url, process, log)
        createkey = image.command(*image.config["Entrypoint"], "createkey", "ann", **variables)
        key = subprocess.run(createkey, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(CHAT).encode(), headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert answer.headers["X-Session-Outcome"] == "ranked"
            assert json.load(answer)["choices"][0]["message"]["content"]
        with urllib.request.urlopen(f"{url}/readyz", timeout=30) as answer:
            assert answer.status == 200
        os.kill(gateway_pid(str(port)), signal.SIGTERM)
        assert process.wait(60) == 0, log.read_text()
        warnings = [line for line in log.read_text().splitlines() if "WARNING" in line and "ulimit" not in line]
        assert warnings == []
    finally:
        process.kill()
        process.wait()


def test_image_runs_as_a_user_who_can_write_nothing_but_data(image: Image) -> None:
    program = "import os; print(os.getuid(), *(os.access(p, os.W_OK) for p in ('/', '/app', '/opt/venv', '/data')))"
    done = subprocess.run(image.command("python", "-c", program), check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["10001", "False", "False", "False", "True"]
