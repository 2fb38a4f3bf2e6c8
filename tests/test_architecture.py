"""docs/architecture.md has the layers that import-linter enforces, and these name every module."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from sentinel_project.gateway.routing import reasons

ROOT = Path(__file__).parent.parent
BESIDE = {"apps", "migrations", "models", "urls"}
"""What Django finds by its name in an app."""
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
    found = modules(package.replace(".", "/"))
    assert sorted(named) == sorted(found - (BESIDE - set(named) if "apps" in found else set()))


def test_page_names_every_module_of_the_gateway():
    named = [name for row in rows("The gateway") for name in row]
    assert sorted(named) == sorted(modules("sentinel_project/gateway") - {"management", "migrations"})


def strings(path: Path) -> set[str]:
    """The strings of a module that are not documentation."""
    tree = ast.parse(path.read_text())
    documentation = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    nodes = {node for node in ast.walk(tree) if isinstance(node, ast.Constant)} - documentation
    return {node.value for node in nodes if isinstance(node.value, str)}


def test_root_of_the_apis_is_written_in_one_module():
    root = re.compile(r"\bv1(/|\b)")
    paths = [path for path in ROOT.joinpath("sentinel_project").rglob("*.py") if root.search(path.read_text())]
    with_root = {path for path in paths if any(root.search(text) for text in strings(path))}
    assert {path.relative_to(ROOT).as_posix() for path in with_root} == {"sentinel_project/gateway/apis/base.py"}


MOVES = {name: value for name, value in vars(reasons).items() if name.isupper()}
REASONS = {
    **{name: str(value) for name, value in MOVES.items()},
    **{f"reasons.{name}": str(value) for name, value in MOVES.items()},
    **{f"Spill.{name}": str(value) for name, value in reasons.Spill.__members__.items()},
}
"""Each reason by the expressions that name it."""


def dotted(node: ast.AST) -> str:
    """The text of a name, or of an attribute of one."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return f"{node.value.id}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def decided() -> set[tuple[str, str]]:
    """Each reason with the functions of the gateway that name it."""
    found = set()
    for path in set(ROOT.joinpath("sentinel_project/gateway").rglob("*.py")) - {Path(reasons.__file__)}:
        tree = ast.parse(path.read_text())
        functions = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
        for function in functions:
            named = {dotted(node) for node in ast.walk(function)}
            found |= {(REASONS[name], f"{path.stem}.{function.name}") for name in named & REASONS.keys()}
    return found


def test_page_names_the_functions_that_decide_each_reason():
    text = ROOT.joinpath("docs/architecture.md").read_text()
    section = text.split("\n### Where each reason is decided\n")[1].split("\n## ")[0]
    named = set()
    for line in section.splitlines():
        if line.startswith("| `"):
            reason, functions = (re.findall(r"`([^`]+)`", cell) for cell in line.strip("|").split("|"))
            named |= {(reason[0], function) for function in functions}
    assert named == decided()
    assert {reason for reason, _ in named} == set(REASONS.values())


GATEWAY = ROOT / "sentinel_project/gateway"


def steps() -> list[tuple[list[Path], list[str]]]:
    """The files and the names in each row of the table of CONTRIBUTING.md about APIs."""
    section = ROOT.joinpath("CONTRIBUTING.md").read_text().split("\n## Adding an API\n")[1].split("\n## ")[0]
    found = []
    for line in section.splitlines()[1:]:
        if line.startswith("| ") and not line.startswith(("| step", "| ---")):
            quoted = re.findall(r"`([\w./]+)`", line.strip("|").split("|")[1])
            paths = [text for text in quoted if text.endswith((".py", ".md"))]
            files = [ROOT / text if ROOT.joinpath(text).exists() else GATEWAY / text for text in paths]
            found.append((files, [text.removeprefix("Api.") for text in quoted if text not in paths]))
    return found


def test_steps_for_an_api_name_files_and_what_is_in_them():
    assert len(steps()) > 10
    for files, names in steps():
        assert files
        source = "".join(file.read_text() for file in files) + GATEWAY.joinpath("apis/base.py").read_text()
        assert [name for name in names if not re.search(rf"\b{name}\b", source)] == []
