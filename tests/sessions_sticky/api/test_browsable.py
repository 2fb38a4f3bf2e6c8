"""The browsable API; tests/sessions_sticky/test_other_projects.py has whole projects with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.sessions_sticky.api.calls import BASE, CALLS

if TYPE_CHECKING:
    from rest_framework.test import APIClient

RENDERERS = ["rest_framework.renderers.JSONRenderer", "rest_framework.renderers.BrowsableAPIRenderer"]


@pytest.fixture
def browsable(settings: Any) -> None:
    settings.REST_FRAMEWORK = {**settings.REST_FRAMEWORK, "DEFAULT_RENDERER_CLASSES": RENDERERS}


@pytest.mark.parametrize(
    ("path", "status"), [("", 200), ("id/conv-1/", 200), ("id/missing/", 404), ("touch/conv-1/", 405)]
)
def test_browser_gets_html_where_the_project_is_browsable(
    api: APIClient, bound: bytes, browsable: None, path: str, status: int
) -> None:
    response = api.get(f"{BASE}{path}", HTTP_ACCEPT="text/html,*/*;q=0.8")
    assert (response.status_code, response.headers["Content-Type"]) == (status, "text/html; charset=utf-8")
    assert response.headers["Cache-Control"] == "no-store"


def test_browser_gets_json_where_the_templates_are_missing(
    api: APIClient, bound: bytes, browsable: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sessions_sticky.api.base.apps.is_installed", lambda name: name != "rest_framework")
    assert CALLS["retrieve"].by(api, ACCEPT="text/html,*/*;q=0.8").headers["Content-Type"] == "application/json"
    assert CALLS["retrieve"].by(api, ACCEPT="text/html").status_code == 406
