"""docs/architecture.md names every module, in the layers that import-linter enforces."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BESIDE = {"apps", "migrations", "models", "urls"}
PACKAGES = ("identity", "jobs", "queries", "stores", "connections", "connections.cluster")
SECTIONS = {
    "sessions_sticky": "The layers of `sessions_sticky`",
    **{f"sessions_sticky.{name}": f"Inside `{name}`" for name in PACKAGES},
}
"""Where the page has the table of a package."""


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


@pytest.mark.parametrize("package", SECTIONS)
def test_page_has_the_layers_that_are_enforced_in_their_order(package):
    contracts = tomllib.loads(ROOT.joinpath("pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = [each["layers"] for each in contracts if each.get("containers") == [package]]
    assert [set(row) for row in rows(SECTIONS[package])] == [set(layer.split(" | ")) for layer in layers]


@pytest.mark.parametrize("package", SECTIONS)
def test_page_names_every_module_of_the_app(package):
    named = [name for row in rows(SECTIONS[package]) for name in row]
    beside = BESIDE if package == "sessions_sticky" else set()
    assert sorted(named) == sorted(modules(package.replace(".", "/")) - beside)


def test_page_names_every_module_of_the_gateway():
    named = [name for row in rows("The gateway") for name in row]
    assert sorted(named) == sorted(modules("sentinel_project/gateway") - {"management", "migrations"})
