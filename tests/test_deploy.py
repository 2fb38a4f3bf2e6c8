"""The files for containers agree with the rest of the repository."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from sentinel_project.gateway.providers.file import load_providers
from sessions_sticky import __version__
from tests.gateway.live import ROOT

PIN = re.compile(r"^([a-z0-9._-]+(?:\[[a-z,]+\])?==[^\s;]+)", re.MULTILINE)


def test_pins_of_the_image_are_those_of_the_tests() -> None:
    image, tests = (
        set(PIN.findall((ROOT / name).read_text())) for name in ("deploy/requirements.txt", "requirements.txt")
    )
    assert image
    assert image <= tests


@pytest.mark.parametrize("name", ["compose.yaml", "deploy/kubernetes.yaml"])
def test_variables_are_documented_settings(name: str) -> None:
    settings = (ROOT / "docs" / "reference" / "gateway-settings.md").read_text()
    used = set(
        re.findall(
            r"\b(?:SENTINEL_[A-Z_]+|SECRET_KEY|ALLOWED_HOSTS|REDIS_URL|DATABASE_URL)\b", (ROOT / name).read_text()
        )
    )
    assert used >= {"SECRET_KEY", "REDIS_URL", "DATABASE_URL", "SENTINEL_PROVIDERS"}
    assert not [variable for variable in used if f"`{variable}`" not in settings]


def test_manifest_names_the_image_of_this_version() -> None:
    assert f"image: sentinel-gateway:{__version__}\n" in (ROOT / "deploy" / "kubernetes.yaml").read_text()


def test_providers_of_the_manifest_can_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = (ROOT / "deploy" / "kubernetes.yaml").read_text()
    block = re.search(r"providers\.toml: \|\n((?: {4}.*\n)+)", manifest)
    assert block
    (tmp_path / "providers.toml").write_text(textwrap.dedent(block[1]))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-only-for-the-tests")
    assert [each.name for each in load_providers(str(tmp_path / "providers.toml"))] == ["openai"]
