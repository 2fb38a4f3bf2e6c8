"""axe-core checks the pages at two widths and in both themes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import expect

from sessions_sticky import sessions
from sessions_sticky.admin import changelist
from tests.sessions_sticky.admin.pages import BASE, page_of
from tests.sessions_sticky.indexed import fill

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Page

pytestmark = pytest.mark.slow


WIDTHS = (1_300, 390)
COLORS = {"runOnly": ["color-contrast", "link-in-text-block"]}
"""The rules with the tag cat.color that run by default. A theme has other colors, and nothing else."""
RUN = """async options => {
    document.getAnimations().forEach(each => each.finish()) // transitions to the colors of another theme
    const found = await axe.run({resultTypes: ["violations"], ...options})
    return found.violations.map(each => `${each.id}: ${each.nodes.slice(0, 5).map(node => node.html.slice(0, 120))}`)
}"""
IS_TOO_WIDE = "document.documentElement.scrollWidth > document.documentElement.clientWidth"


def violations(page: Page) -> list[str]:
    """What axe-core finds, each with the elements."""
    page.wait_for_load_state()
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE_SCRIPT)
    return list(page.evaluate(RUN, {}))


def violations_on_all_screens(page: Page) -> list[str]:
    """What axe-core finds on wide and narrow screens in both themes, and where the page is too wide; ends narrow."""
    found = []
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        found += [f"{width} {each}" for each in violations(page)]
        page.emulate_media(color_scheme="dark")
        found += [f"{width} dark {each}" for each in page.evaluate(RUN, COLORS)]
        page.emulate_media(color_scheme="light")
        if page.evaluate(IS_TOO_WIDE):
            found.append(f"{width}: too wide")
    return found


def test_pages_have_no_violations_for_axe(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changelist, "PAGE_SIZE", 10)  # the time of axe grows with the rows
    session = fill(sessions, 12)[0]
    sessions.create("ownerless", "mistral", "large", "")
    sessions.rebind(session, provider="mistral", model="large", reason="faster")
    page.goto(BASE)
    expect(page.get_by_role("link", name="Next")).to_be_visible()
    assert violations_on_all_screens(page) == []
    page.goto(f"{BASE}?no_owner=1")
    page.get_by_label("Select conversation ownerless").check()
    assert violations_on_all_screens(page) == []
    page.get_by_role("button", name="Move…").click()
    expect(page.get_by_text("1 session to move")).to_be_visible()
    assert violations_on_all_screens(page) == []
    page.get_by_role("button", name="Move", exact=True).evaluate("each => { each.form.noValidate = true }")
    page.get_by_role("button", name="Move", exact=True).click()
    expect(page.locator(".sticky-errors")).to_have_count(2)
    assert violations_on_all_screens(page) == []
    page.goto(page_of("conv-0"))
    assert violations_on_all_screens(page) == []
    page.get_by_role("button", name="Delete…").click()
    expect(page.get_by_text("1 session will be deleted.")).to_be_visible()
    assert violations_on_all_screens(page) == []


def test_list_has_no_violations_when_who_may_only_look_has_a_narrow_screen(browse: Callable[..., Any]) -> None:
    fill(sessions, 3)
    page = browse("view", viewport={"width": 390, "height": 900}).page
    page.goto(BASE)
    expect(page.get_by_role("link", name="conv-0")).to_be_visible()
    assert violations(page) == []
