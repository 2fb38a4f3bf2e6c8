"""Every package is under a licence that is allowed, as LICENCES.md says, and pinned by its hash."""

from __future__ import annotations

import importlib.util
import re
from importlib.metadata import distributions
from types import ModuleType

import pytest
from packaging.requirements import Requirement

from tests.gateway.live import ROOT


def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("licences", ROOT / ".ci" / "licences.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


licences = _script()
REQUIREMENTS = (ROOT / "requirements.txt").read_text()


@pytest.mark.parametrize("name", licences.names())
def test_licence_is_allowed_and_listed_when_a_package_is_required(name: str) -> None:
    found = licences.licence(name)
    parts = re.split(r" AND | OR ", re.sub("[()]", "", found))
    assert set(parts) <= licences.ALLOWED, f"{name}: {found or 'says nothing'}"
    assert f"| {name} | {found} |\n" in licences.PAGE.read_text(), "run .ci/licences.py"


def test_page_lists_nothing_else_when_it_is_made() -> None:
    listed = re.findall(r"^\| ([a-z0-9][a-z0-9._-]*) \| ", licences.PAGE.read_text(), re.MULTILINE)
    assert [name for name in listed if name != "package"] == licences.names()


@pytest.mark.parametrize(
    "text", ["AGPL-3.0-only", "GNU General Public License", "", "UNKNOWN", "MIT-like", "BSD-4-Clause"]
)
def test_licence_is_refused_when_it_resembles_an_allowed_one(text: str) -> None:
    assert licences._spdx(text) not in licences.ALLOWED


def test_requirement_is_pinned_by_hash_when_it_is_written() -> None:
    entries = re.split(r"\n(?=\S)", re.sub(r"^#.*\n", "", REQUIREMENTS, flags=re.MULTILINE).strip())
    assert len(entries) > 50
    for entry in entries:
        pin = r"[a-z0-9._-]+(\[[a-z0-9,._-]+\])?==\S+( ;.*)?( \\)?\n\s+--hash=sha256:[0-9a-f]{64}"
        assert re.match(pin, entry), entry[:100]


@pytest.mark.slow
def test_requirement_is_pinned_with_its_extras_when_a_package_asks_for_them() -> None:
    """Otherwise pip before 23.3 takes its newest version, for which there is no hash, and fails."""
    installed = [found for found in distributions() if found.name.lower() in licences.names()]
    asked = [Requirement(text) for found in installed for text in found.requires or ()]
    pinned = [each for each in asked if each.extras and (each.marker is None or each.marker.evaluate({"extra": ""}))]
    assert pinned
    for wanted in pinned:
        assert f"\n{wanted.name}[{','.join(sorted(wanted.extras))}]==" in REQUIREMENTS


def test_requirements_name_no_place_when_they_are_written() -> None:
    for text in (REQUIREMENTS, (ROOT / "requirements.in").read_text()):
        assert not re.search(r"--index-url|--find-links|https?://|file:", text)
