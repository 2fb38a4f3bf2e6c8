"""What an operator sees while the store is down, and when it is back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from sessions_sticky import cache_config, sessions
from tests.conftest import patient_config
from tests.servers import start_server
from tests.sessions_sticky.admin.pages import BASE, PROPOSED

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_django import Settings

pytestmark = pytest.mark.slow


def test_list_reports_an_unavailable_store_and_recovers(browse: Callable[..., Any], settings: Settings) -> None:
    watched = browse()
    page = watched.page
    with start_server() as server:
        settings.CACHES = {"default": patient_config(server.url)}
        sessions.create("conv-1", **PROPOSED)
        page.goto(BASE)
        expect(page.get_by_role("link", name="conv-1")).to_be_visible()
        server.kill()
        settings.CACHES = {"default": cache_config(server.url)}
        page.reload()
        expect(page.get_by_role("heading", name="Session store unavailable")).to_be_visible()
        expect(page.get_by_role("alert")).to_contain_text("manage.py sessions doctor")
        expect(page.get_by_text("No sessions yet")).to_have_count(0)
        server.start()
        settings.CACHES = {"default": patient_config(server.url)}
        sessions.create("conv-2", **PROPOSED)
        page.get_by_role("link", name="Try again").click()
        expect(page.get_by_role("link", name="conv-2")).to_be_visible()
    status_503 = "Failed to load resource: the server responded with a status of 503 (Service Unavailable)"
    assert watched.complaints == [status_503]
    watched.complaints.clear()
