"""The page of help."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from sessions_sticky.admin import registry
from sessions_sticky.admin.help import GLOSSARY
from tests.docs.blocks import DOCS
from tests.sessions_sticky.admin.pages import BASE

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis
    from django.test import Client


def test_help_explains_the_words_and_is_linked_from_each_page(ada: Client, session_cache: redis.Redis) -> None:
    text = ada.get(f"{BASE}help/").text
    assert "<dt>Spill over</dt><dd>Let another provider answer once." in text
    for path in ("", "overview/", "move-all/", "operations/", "events/", "bulk/", "help/", "missing/change/"):
        assert f'href="{BASE}help/"' in ada.get(f"{BASE}{path}").text


def test_help_has_the_links_of_the_project(ada: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "links", [])
    assert ">More<" not in ada.get(f"{BASE}help/").text
    registry.register_link("All <models>", "admin:index")
    assert '<a href="/admin/">All &lt;models&gt;</a>' in ada.get(f"{BASE}help/").text


def test_help_needs_the_permission_to_view(login: Callable[..., Client]) -> None:
    assert login("change").get(f"{BASE}help/").status_code == 403


def test_glossary_of_the_docs_begins_with_that_of_the_page() -> None:
    rows = re.findall(r"^\| ([a-z ,]+) \| (.*) \|$", (DOCS / "reference" / "glossary.md").read_text(), re.MULTILINE)
    assert rows[1 : len(GLOSSARY) + 1] == [(str(term).lower(), str(meaning)) for term, meaning in GLOSSARY]
