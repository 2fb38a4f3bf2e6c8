"""axe-core checks the pages in both themes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from sessions_sticky import sessions
from sessions_sticky.admin import changelist
from tests.sessions_sticky.admin.pages import BASE, page_of
from tests.sessions_sticky.indexed import fill

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Page

pytestmark = pytest.mark.slow


def violations(page: Page) -> list[str]:
    """What axe-core finds, each with the elements."""
    page.wait_for_load_state()
    found = Axe().run(page).response["violations"]
    return [f"{each['id']}: {[node['html'][:120] for node in each['nodes'][:5]]}" for each in found]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1_300, 390])
def test_pages_have_no_violations_for_axe(
    browse: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, scheme: str, width: int
) -> None:
    monkeypatch.setattr(changelist, "PAGE_SIZE", 10)  # the time of axe grows with the rows
    session = fill(sessions, 12)[0]
    sessions.create("ownerless", "mistral", "large", "")
    sessions.rebind(session, provider="mistral", model="large", reason="faster")
    page = browse(color_scheme=scheme, viewport={"width": width, "height": 900}).page
    page.goto(BASE)
    expect(page.get_by_role("link", name="Next")).to_be_visible()
    assert violations(page) == []
    page.goto(f"{BASE}?no_owner=1")
    page.get_by_label("Select conversation ownerless").check()
    assert violations(page) == []
    page.get_by_role("button", name="Move…").click()
    expect(page.get_by_text("1 session to move")).to_be_visible()
    assert violations(page) == []
    page.get_by_role("button", name="Move", exact=True).evaluate("each => { each.form.noValidate = true }")
    page.get_by_role("button", name="Move", exact=True).click()
    expect(page.locator(".sticky-errors")).to_have_count(2)
    assert violations(page) == []
    page.goto(page_of("conv-0"))
    assert violations(page) == []
    page.get_by_role("button", name="Delete…").click()
    expect(page.get_by_text("1 session will be deleted.")).to_be_visible()
    assert violations(page) == []


def test_list_has_no_violations_when_who_may_only_look_has_a_narrow_screen(browse: Callable[..., Any]) -> None:
    fill(sessions, 3)
    page = browse("view", viewport={"width": 390, "height": 900}).page
    page.goto(BASE)
    expect(page.get_by_role("link", name="conv-0")).to_be_visible()
    assert violations(page) == []
