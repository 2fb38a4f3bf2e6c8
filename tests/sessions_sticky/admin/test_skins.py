"""Projects with another look for Django admin: each page is reachable and shows its controls."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import sessions_sticky
from tests.sessions_sticky.projects import run_project

STATIC = Path(sessions_sticky.__file__).parent / "static" / "sessions_sticky"
TEMPLATES = Path(sessions_sticky.__file__).parent / "templates" / "admin" / "sessions_sticky"

URLS = """
from django.contrib import admin
from django.urls import path

urlpatterns += [path("admin/", admin.site.urls)]
"""
VISIT = """
import re
from django.contrib.auth.models import User
from django.test import Client
from sessions_sticky import sessions
from sessions_sticky.jobs.job import Plan
from sessions_sticky.jobs.service import Jobs
from sessions_sticky.queries.filters import Filters
from sessions_sticky.testing import valkey

client = Client()
client.force_login(User.objects.create_superuser("ann"))
base = "/admin/sessions_sticky/session/"
with valkey():
    sessions.create("conv-1", "openai", "gpt-4", "ann")
    job = Jobs().start(Plan(Filters(provider="azure")), actor="ann")
    Jobs().wait(job, 10)
    waiting, found = [base], {}
    while waiting:
        path = waiting.pop()
        page = client.get(path)
        text = page.content.decode()
        links = {link.partition("?")[0] for link in re.findall(rf'href="({base}[^"]*)"', text)}
        found[path] = [page.status_code, text.count("sticky-button"), sorted(links), "sticky-body" in text]
        waiting += [link for link in links if link not in found and link not in waiting]
print(json.dumps({"operation": f"{base}operations/{job.key}/", "found": found}))
"""
BASE = "/admin/sessions_sticky/session/"


@pytest.mark.slow
@pytest.mark.parametrize("skin", ["unfold", "jazzmin", None])
def test_every_page_is_reached_from_the_list_with_any_skin(tmp_path: Path, skin: str | None) -> None:
    settings = f'INSTALLED_APPS.insert(0, "{skin}")\n' if skin else ""
    visited = run_project(tmp_path, VISIT, settings=settings, urls=URLS)
    found = visited["found"]
    sections = [BASE, f"{BASE}move-all/", f"{BASE}overview/"]
    assert {*sections, f"{BASE}conv-1/change/", visited["operation"]} <= set(found)
    assert all(found[path][1] for path in (BASE, f"{BASE}move-all/", f"{BASE}conv-1/change/"))
    for path, (status, _, links, is_ours) in found.items():
        assert (path, status, is_ours) == (path, 200, not path.endswith("/history/"))
        if is_ours:
            assert set(sections) <= set(links), path


@pytest.mark.parametrize("sheet", sorted(STATIC.glob("*.css")), ids=lambda path: path.name)
def test_style_has_a_fallback_for_each_variable_of_django_admin(sheet: Path) -> None:
    variables = re.findall(r"var\((--[a-z-]+)([,)])", sheet.read_text())
    assert variables
    assert [name for name, then in variables if then == ")" and not name.startswith("--sticky-")] == []


def test_templates_fill_the_block_that_follows_the_links_to_the_sections() -> None:
    pages = [path for path in TEMPLATES.glob("*.html") if "sessions_sticky/base.html" in path.read_text()]
    assert len(pages) > 5
    assert [path.name for path in pages if "{% block page %}" not in path.read_text()] == []
    assert [path.name for path in pages if "{% block content %}" in path.read_text()] == []
