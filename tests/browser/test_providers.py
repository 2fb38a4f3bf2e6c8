"""The page of the providers, open in a browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from sentinel_project.gateway.providers import controls, outages
from sentinel_project.gateway.providers.current import providers
from sentinel_project.gateway.providers.failures import Cools
from sentinel_project.gateway.providers.health import Health
from sentinel_project.gateway.providers.slots import Failure
from sentinel_project.gateway.routing import process
from tests.browser.test_accessibility import violations_on_all_screens
from tests.sessions_sticky.admin.pages import BASE

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis
    from playwright.sync_api import Page

pytestmark = pytest.mark.slow

PAGE = f"{BASE}providers/"


@pytest.fixture(autouse=True)
def _failing(session_cache: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One provider fails, and had an outage before."""
    health = Health(30, providers)
    monkeypatch.setattr(process, "health", health)
    health.failed("echo-one", "echo-small", Failure(Cools.PROVIDER, error="HTTP 503 overloaded"))
    outages._record("echo-one", 1_700_000_000.0, 1_700_000_090.0, "upstream_unreachable (ConnectFailed)")
    controls.take_over({})
    yield
    controls.take_over({})


def test_provider_is_drained_after_a_question(page: Page) -> None:
    page.goto(PAGE)
    section = page.get_by_role("region", name="echo-two")
    section.get_by_role("button", name="Drain").click()
    expect(page.get_by_text("It will take no new conversations. Existing ones stay")).to_be_visible()
    page.get_by_role("button", name="Drain").click()
    expect(page.get_by_text("All workers follow within a second.")).to_be_visible()
    expect(section.get_by_text("Draining")).to_be_visible()
    section.get_by_role("button", name="Release").click()
    page.get_by_role("button", name="Release").click()
    expect(section.get_by_text("Draining")).to_have_count(0)


def test_pages_have_no_violations_for_axe(page: Page) -> None:
    for path in (PAGE, f"{PAGE}change/?provider=echo-one&action=hold", f"{BASE}overview/"):
        page.goto(path)
        assert violations_on_all_screens(page) == []
