"""The overview, open in a browser."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from sessions_sticky import cache_config, sessions
from sessions_sticky.admin import overview
from tests.browser.test_accessibility import violations, violations_on_all_screens
from tests.conftest import patient_config
from tests.servers import start_server
from tests.sessions_sticky.admin.pages import BASE, PROPOSED
from tests.sessions_sticky.indexed import fill

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Page
    from pytest_django import Settings

pytestmark = pytest.mark.slow

PAGE = f"{BASE}overview/"
NEVER_RELOADED = "window.neverReloaded === true"
COUNT_REQUESTS = """() => {
    const original = window.fetch
    window.requests = 0
    window.fetch = (...args) => { window.requests += 1; return original(...args) }
}"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refresh the recent parts and all parts in turn, several times a second."""
    monkeypatch.setattr(overview, "REFRESH_SECONDS", 0.2)
    monkeypatch.setattr(overview, "WHOLE_EVERY", 2)


def open_overview(page: Page) -> None:
    page.goto(PAGE)
    page.evaluate("window.neverReloaded = true")


def open_with_stopped_clock(page: Page) -> None:
    """Open the overview with timers that run only in `requests_in_a_minute`, so that no request is under way."""
    page.clock.install(time=0)
    page.clock.pause_at(1_000)
    open_overview(page)
    page.evaluate(COUNT_REQUESTS)


def requests_in_a_minute(page: Page) -> int:
    """Let the timers of a minute run; return how many requests they sent."""
    before = page.evaluate("window.requests")
    page.clock.run_for(60_000)
    return int(page.evaluate("window.requests") - before)


def total(page: Page) -> Any:
    return page.locator(".sticky-totals dd").first


def test_figures_change_without_a_reload_when_sessions_come(page: Page) -> None:
    fill(sessions, 2)
    open_overview(page)
    expect(total(page)).to_have_text("2")
    page.get_by_text("As a table").click()
    fill(sessions, 5)
    sessions.create("other", "mistral", "large", "user-7")
    expect(total(page)).to_have_text("6")
    expect(page.get_by_role("link", name="mistral")).to_be_visible()
    expect(page.get_by_role("columnheader", name="Hour from")).to_be_visible()  # what was opened stays open
    assert page.evaluate(NEVER_RELOADED)


def test_keyboard_focus_stays_when_figures_change(page: Page) -> None:
    fill(sessions, 1)
    open_overview(page)
    link = page.get_by_role("link", name="openai")
    link.focus()
    fill(sessions, 4)
    expect(total(page)).to_have_text("4")
    expect(link).to_be_focused()


def test_figures_rest_when_paused(page: Page) -> None:
    fill(sessions, 1)
    open_with_stopped_clock(page)
    page.get_by_role("button", name="Pause refreshing").click()
    fill(sessions, 3)
    assert requests_in_a_minute(page) == 0
    page.clock.resume()
    page.get_by_role("button", name="Refresh again").click()
    expect(total(page)).to_have_text("3")


def test_figures_rest_when_the_tab_is_hidden(page: Page) -> None:
    open_with_stopped_clock(page)
    hide = "Object.defineProperty(document, 'hidden', {get: () => %s, configurable: true})"
    page.evaluate(hide % "true")
    assert requests_in_a_minute(page) == 0
    fill(sessions, 3)
    page.clock.resume()
    page.evaluate(hide % "false")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(total(page)).to_have_text("3")


def test_page_reports_an_unavailable_store_and_recovers(browse: Callable[..., Any], settings: Settings) -> None:
    watched = browse()
    page = watched.page
    with start_server() as server:
        settings.CACHES = {"default": patient_config(server.url)}
        sessions.create("conv-1", **PROPOSED)
        open_overview(page)
        server.kill()
        settings.CACHES = {"default": cache_config(server.url)}
        expect(page.get_by_role("status")).to_contain_text("The session store is unavailable")
        expect(total(page)).to_have_text("1")  # as it was before
        server.start()
        settings.CACHES = {"default": patient_config(server.url)}
        fill(sessions, 2)
        expect(page.get_by_role("status")).to_contain_text("The session store is available again.")
        expect(total(page)).to_have_text("2")
        assert page.evaluate(NEVER_RELOADED)
        page.close()  # it would complain once the server ends
    assert {text for text in watched.complaints if "503" not in text} == set()
    watched.complaints.clear()


def test_page_recovers_by_itself_when_it_was_opened_while_the_store_was_down(
    browse: Callable[..., Any], settings: Settings
) -> None:
    watched = browse()
    page = watched.page
    with start_server() as server:
        settings.CACHES = {"default": cache_config(server.url)}
        server.kill()
        open_overview(page)
        expect(page.get_by_role("alert")).to_contain_text("manage.py sessions doctor")
        assert violations(page) == []
        server.start()
        settings.CACHES = {"default": patient_config(server.url)}
        fill(sessions, 2)
        expect(total(page)).to_have_text("2")
        assert page.evaluate(NEVER_RELOADED)
        page.close()
    watched.complaints.clear()


def test_page_reports_a_logout(page: Page) -> None:
    open_overview(page)
    page.context.clear_cookies()
    expect(page.get_by_role("status")).to_contain_text("You have been logged out, or your permission was revoked")


def test_overview_has_no_violations_for_axe(page: Page) -> None:
    for session in fill(sessions, 3):
        sessions.rebind(session, provider="mistral", model="large", reason="faster")
    page.goto(PAGE)
    page.get_by_text("As a table").click()
    assert violations_on_all_screens(page) == []
