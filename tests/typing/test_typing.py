from __future__ import annotations

import ast
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import sessions_sticky
from sessions_sticky import testing
from tests.missing import skip_or_fail

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parent
EXAMPLE = FOLDER / "chat.py"
MYPY = ["mypy", "--strict", "--config-file=", "--follow-imports=silent", str(EXAMPLE)]
PYRIGHT = ["basedpyright", "--project", str(FOLDER), "--pythonpath", sys.executable]


def imported_by_the_example(module):
    tree = ast.parse(EXAMPLE.read_text())
    froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == module]
    return {alias.name for node in froms for alias in node.names}


def check(command):
    if find_spec(command[0]) is None:
        skip_or_fail(f"{command[0]} is not installed")
    environment = {**os.environ, "MYPYPATH": str(FOLDER.parents[1])}
    ran = subprocess.run(
        [sys.executable, "-m", *command],
        capture_output=True,
        text=True,
        env=environment,
        cwd=FOLDER.parents[1],
        check=False,
    )
    return ran.returncode, ran.stdout + ran.stderr


def test_example_uses_every_public_name():
    assert imported_by_the_example("sessions_sticky") == set(sessions_sticky.__all__)
    made_here = [name for name, value in vars(testing).items() if getattr(value, "__module__", "") == testing.__name__]
    public = {name for name in made_here if not name.startswith("_")} - {"Runner", "valkey_cache"}
    assert imported_by_the_example("sessions_sticky.testing") == public


@pytest.mark.parametrize("command", [MYPY, PYRIGHT], ids=["mypy", "pyright"])
def test_type_checker_sees_every_public_name(command, tmp_path):
    status, output = check([*command, f"--cache-dir={tmp_path}"] if command is MYPY else command)
    assert status == 0, output
