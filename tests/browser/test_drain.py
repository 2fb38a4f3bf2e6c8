"""Moving all sessions of a provider in a browser: preview, progress, stopping, resuming."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from sessions_sticky import sessions
from tests.browser.test_accessibility import violations_on_all_screens
from tests.sessions_sticky.admin.pages import BASE
from tests.sessions_sticky.jobs.calls import MOVE_ALL, abandoned, fill, gate, jobs, quick_ticks

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Page

__all__ = ["quick_ticks"]

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_ticks")]

PAGE = f"{BASE}move-all/"


def ask(page: Page) -> None:
    page.goto(PAGE)
    page.get_by_label("Move from provider").fill("openai")
    page.get_by_label("Move to provider").fill("echo-one")
    page.get_by_label("Reason").fill("maintenance")
    page.get_by_role("button", name="Preview").click()


def bar(page: Page) -> Any:
    return page.get_by_role("progressbar")


def test_move_all_is_stopped_and_continued_over_a_reload(page: Page) -> None:
    fill(1_200)
    ask(page)
    expect(page.get_by_text("1,200 sessions will move.")).to_be_visible()
    with gate(500):
        page.get_by_role("button", name="Start").click()
        expect(bar(page)).to_have_attribute("value", "500")
        expect(page.get_by_text("500 of 1,200 sessions (41%)")).to_be_visible()
        expect(page.get_by_role("button", name="Pause refreshing")).to_be_visible()
        page.reload()
        expect(bar(page)).to_have_attribute("value", "500")
        page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text("Stopped: 500 of 1,200 sessions")).to_be_visible()
    page.reload()
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_text("Done: 1,200 of 1,200 sessions (100%)")).to_be_visible()
    expect(page.get_by_role("button", name="Stop")).to_have_count(0)
    expect(page.get_by_role("button", name="Pause refreshing")).to_have_count(0)
    page.reload()
    expect(page.get_by_text("Done: 1,200 of 1,200 sessions (100%)")).to_be_visible()
    expect(page.get_by_role("button", name="Pause refreshing")).to_have_count(0)
    assert sessions.filter(provider="echo-one").count() == 1_200
    page.get_by_role("link", name="All operations").click()
    expect(page.get_by_role("link", name="openai → echo-one")).to_be_visible()


def test_progress_updates_without_a_reload_until_it_is_done(page: Page) -> None:
    fill(1_200)
    ask(page)
    with gate(500):
        page.get_by_role("button", name="Start").click()
        expect(bar(page)).to_have_attribute("value", "500")
        page.evaluate("window.neverReloaded = true")
    expect(page.get_by_role("status")).to_have_text("Done")
    expect(bar(page)).to_have_attribute("value", "1200")
    assert page.evaluate("window.neverReloaded")


def test_page_follows_an_orphaned_operation_when_another_process_resumes_it(page: Page) -> None:
    fill(3)
    key = abandoned(MOVE_ALL)
    page.goto(f"{BASE}operations/{key}/")
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    jobs.resume(key)
    expect(page.get_by_text("Done: 3 of 3 sessions")).to_be_visible()


def test_viewer_sees_the_progress_and_no_button(browse: Callable[..., Any]) -> None:
    fill(1)
    key = abandoned(state="stopped")
    page = browse("view").page
    page.goto(PAGE)
    expect(page.get_by_role("button", name="Preview")).to_have_count(0)
    page.get_by_role("link", name="openai").click()
    expect(page.get_by_text("Stopped: 0 of 1 session")).to_be_visible()
    expect(page.get_by_role("button", name="Continue")).to_have_count(0)
    assert jobs.get(key).state == "stopped"  # type: ignore[union-attr]


def test_pages_have_no_violations_for_axe(page: Page) -> None:
    fill(3)
    key = abandoned(MOVE_ALL, state="stopped")
    page.goto(PAGE)
    expect(page.get_by_role("cell", name="Stopped")).to_be_visible()
    assert violations_on_all_screens(page) == []
    page.get_by_role("button", name="Preview").evaluate("each => { each.form.noValidate = true }")
    page.get_by_role("button", name="Preview").click()
    expect(page.locator(".sticky-errors")).to_have_count(3)
    assert violations_on_all_screens(page) == []
    ask(page)
    expect(page.get_by_role("button", name="Start")).to_be_visible()
    assert violations_on_all_screens(page) == []
    page.goto(f"{BASE}operations/{key}/")
    assert violations_on_all_screens(page) == []
