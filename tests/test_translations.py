"""The German translation: complete, in step with the sources, compiled, and shown."""

from __future__ import annotations

import gettext
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from django.core.management import call_command
from django.test import Client

from sessions_sticky import sessions
from tests.missing import skip_or_fail
from tests.sessions_sticky.indexed import fill

if TYPE_CHECKING:
    import redis

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = [ROOT / "sessions_sticky", ROOT / "sentinel_project" / "gateway"]
CATALOGUE = Path("locale", "de", "LC_MESSAGES", "django.po")

packages = pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)


@pytest.fixture
def tools() -> None:
    """GNU gettext's programs; they may be missing, but not in CI."""
    if not shutil.which("xgettext") or not shutil.which("msgattrib"):
        skip_or_fail("no xgettext on PATH")


def extracted(package: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Bring a copy of a package's catalogue up to date with its sources; return the copy."""
    copy = folder / package.name
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.chdir(copy)
    call_command("makemessages", locale=["de"], no_location=True, no_obsolete=True, verbosity=0)
    return copy / CATALOGUE


def chosen(catalogue: Path, *options: str) -> list[str]:
    """The entries of a catalogue that `msgattrib` chooses, without the header."""
    command = ["msgattrib", *options, "--no-obsolete", "--no-wrap", str(catalogue)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    lines = [line for line in output.splitlines() if line.startswith("msgid ")]
    return [line for line in lines if line != 'msgid ""']


def compiled(catalogue: Path, folder: Path) -> dict[object, str]:
    """What `msgfmt` makes of a catalogue, checked."""
    target = folder / "compiled.mo"
    subprocess.run(["msgfmt", "--check-format", "-o", str(target), str(catalogue)], check=True)
    return messages(target)


def messages(catalogue: Path) -> dict[object, str]:
    """What a compiled catalogue holds, but for the header."""
    with catalogue.open("rb") as file:
        held: dict[object, str] = dict(gettext.GNUTranslations(file)._catalog)  # type: ignore[attr-defined]
    held.pop("")
    return held


@pytest.mark.slow
@packages
def test_every_text_has_a_translation(tools: None, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    catalogue = extracted(package, tmp_path, monkeypatch)
    assert chosen(catalogue, "--untranslated") == []
    assert chosen(catalogue, "--only-fuzzy") == []


@pytest.mark.slow
@packages
def test_catalogue_has_the_texts_of_the_sources_and_no_others(
    tools: None, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert compiled(extracted(package, tmp_path, monkeypatch), tmp_path) == messages(
        (package / CATALOGUE).with_suffix(".mo")
    )


@packages
def test_compiled_catalogue_is_that_of_the_source(tools: None, package: Path, tmp_path: Path):
    assert compiled(package / CATALOGUE, tmp_path) == messages((package / CATALOGUE).with_suffix(".mo"))


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("language", "heading", "lang"), [("de-AT,de;q=0.9", "Übersicht", "de"), ("fr", "Overview", "en")]
)
def test_pages_speak_the_language_of_the_browser(
    admin_client: Client, session_cache: redis.Redis, language: str, heading: str, lang: str
):
    page = admin_client.get("/admin/sessions_sticky/session/overview/", headers={"accept-language": language}).text
    assert f"<h1>{heading}</h1>" in page
    assert f'<html lang="{lang}"' in page


@pytest.mark.django_db
def test_pages_have_no_english_left_when_the_browser_is_german(admin_client: Client, session_cache: redis.Redis):
    for session in fill(sessions, 2):
        sessions.rebind(session, provider="mistral", model="large", reason="wartung")
    pages = ["", "overview/", "move-all/", "move-all/?from_provider=mistral&provider=openai&reason=x", "conv-1/change/"]
    for path in pages:
        page = admin_client.get(f"/admin/sessions_sticky/session/{path}", headers={"accept-language": "de"}).text
        content = page.partition('<div id="content"')[2].partition("<footer")[0]
        assert content
        for english in ("The ", " the ", "Session store", "Provider<", "Owner", "Reason", "Move", "Delete", "Created"):
            assert english not in content, path
