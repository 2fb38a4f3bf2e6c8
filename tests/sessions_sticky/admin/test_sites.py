"""Projects with an `AdminSite` of their own, as the default one or beside it: no page leads to another site."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.sessions_sticky.projects import run_project

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

SETTINGS = """
INSTALLED_APPS[INSTALLED_APPS.index("django.contrib.admin")] = "theirs.configs.OwnAdminConfig"
"""
FILES = {
    "configs": """
from django.contrib.admin.apps import AdminConfig


class OwnAdminConfig(AdminConfig):
    default_site = "theirs.sites.OwnSite"
""",
    "sites": """
from django.contrib.admin import AdminSite


class OwnSite(AdminSite):
    site_header = "Ours"


backoffice = AdminSite(name="backoffice")
""",
}
URLS = """
from django.contrib import admin
from django.urls import path
from sessions_sticky.admin import SessionAdmin
from sessions_sticky.models import Session
from theirs.sites import backoffice

backoffice.register(Session, SessionAdmin)
urlpatterns += [path("own/", admin.site.urls), path("backoffice/", backoffice.urls)]
"""
VISIT = """
import re
from django.contrib import admin
from django.contrib.auth.models import User
from django.test import Client
from sessions_sticky import sessions
from sessions_sticky.testing import valkey

client = Client()
client.force_login(User.objects.create_superuser("ann"))
found = {"site": admin.site.site_header}
with valkey():
    for site in ("/own/", "/backoffice/"):
        base = f"{site}sessions_sticky/session/"
        session = sessions.create("conv-1", "openai", "gpt-4", "ann", replace=True)
        sessions.create("conv-2", "azure", "gpt-4", "ann", replace=True)
        move_all = {"from_provider": "azure", "provider": "openai", "reason": "r"}
        move = {"selected": [session.to_json().decode()], "to-provider": "azure", "to-model": "m", "to-reason": "r"}
        answers = [client.post(f"{base}move-all/", move_all), client.post(f"{base}move/", {**move, "confirmed": "1"})]
        redirects = [answer["Location"] for answer in answers]
        waiting, visited, others = [base, *redirects], {}, set()
        while waiting:
            path = waiting.pop()
            text = client.get(path).content.decode()
            links = {link.partition("?")[0] for link in re.findall(r'(?:href|action|data-[a-z-]+)="(/[^"]*)"', text)}
            visited[path] = client.get(path).status_code
            others |= {link for link in links if not link.startswith((site, "/static/")) and link != "/"}
            waiting += [link for link in links if link.startswith(base) and link not in visited and link not in waiting]
        found[site] = {"visited": visited, "others": sorted(others), "redirects": redirects}
print(json.dumps(found))
"""


def test_every_link_and_redirect_stays_in_its_site(tmp_path: Path) -> None:
    found = run_project(tmp_path, VISIT, settings=SETTINGS, urls=URLS, files=FILES)
    assert found.pop("site") == "Ours"
    for site, pages in found.items():
        base = f"{site}sessions_sticky/session/"
        assert pages["others"] == []
        assert all(path.startswith(base) for path in pages["redirects"])
        assert {base, f"{base}overview/", f"{base}move-all/", f"{base}conv-1/change/"} <= pages["visited"].keys()
        assert set(pages["visited"].values()) <= {200, 302, 405}
