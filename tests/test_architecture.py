"""docs/architecture.md has the layers that import-linter enforces, and these name every module."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BESIDE = {"apps", "migrations", "models", "urls"}
CONTRACTS = tomllib.loads(ROOT.joinpath("pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
LAYERS = {package: each["layers"] for each in CONTRACTS for package in each.get("containers", ())}


def rows(heading: str) -> Iterator[list[str]]:
    """The modules named in the first column of each row below a heading."""
    text = ROOT.joinpath("docs/architecture.md").read_text()
    section = text.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    for line in section.splitlines():
        if line.startswith("| `") and not line.startswith("| modules"):
            yield re.findall(r"`(\w+)`", line.split("|")[1])


def modules(folder: str) -> set[str]:
    paths = ROOT.joinpath(folder).iterdir()
    return {path.stem for path in paths if path.suffix == ".py" or path.joinpath("__init__.py").exists()} - {"__init__"}


def test_page_has_the_layers_that_are_enforced_in_their_order():
    layers = [set(layer.split(" | ")) for layer in LAYERS["sessions_sticky"]]
    assert [set(row) for row in rows("The layers of `sessions_sticky`")] == layers


@pytest.mark.parametrize("package", LAYERS)
def test_layers_name_every_module_of_the_package(package):
    named = [name for layer in LAYERS[package] for name in layer.split(" | ")]
    assert sorted(named) == sorted(modules(package.replace(".", "/")) - (BESIDE - set(named)))


def test_page_names_every_module_of_the_gateway():
    named = [name for row in rows("The gateway") for name in row]
    assert sorted(named) == sorted(modules("sentinel_project/gateway") - {"management", "migrations"})
