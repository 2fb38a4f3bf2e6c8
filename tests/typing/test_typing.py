from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import sessions_sticky
from sessions_sticky import testing
from tests.docs.blocks import DOCS
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


def documented_imports():
    """Return a program with the imports of the pages, and with one of each class that they refer to by its path."""
    pages = "".join(page.read_text() for page in sorted(DOCS.rglob("*.md")))
    written = re.findall(r"^from sessions_sticky\S* import .+", pages, re.MULTILINE)
    paths = re.findall(r"(?:^::: |\]\[)(sessions_sticky[a-z_.]*)\.([A-Z]\w+)", pages, re.MULTILINE)
    imports = {*written, *(f"from {module} import {name}" for module, name in paths)}
    return "".join(f"def _{n}() -> None:\n    {line}\n" for n, line in enumerate(sorted(imports)))


@pytest.mark.parametrize("command", [MYPY, PYRIGHT], ids=["mypy", "pyright"])
def test_type_checker_sees_every_public_name(command, tmp_path):
    if command is MYPY:
        imports = tmp_path / "imports.py"
        imports.write_text(documented_imports())
        command = [*MYPY, str(imports), f"--cache-dir={tmp_path}"]
    status, output = check(command)
    assert status == 0, output
