"""API keys in a browser: made, shown once, revoked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from sentinel_project.gateway.models import ApiKey
from tests.browser.test_accessibility import violations_on_all_screens

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.slow

LIST = "/admin/gateway/apikey/"
OWNER = '<b>Ann</b> "Ö" 🙂'


def make(page: Page) -> str:
    """Make a key; return what the page shows."""
    page.goto(f"{LIST}add/")
    page.get_by_label("Owner:").fill(OWNER)
    page.get_by_role("button", name="Create key").click()
    page.wait_for_url(f"**{LIST}")  # not the form's: a reload would make another key
    return page.get_by_label("API key", exact=True).input_value()


def test_key_is_shown_once_and_works_when_it_was_made(page: Page) -> None:
    key = make(page)
    assert ApiKey.objects.is_live(key)
    expect(page.get_by_text(OWNER)).to_be_visible()
    page.reload()
    expect(page.get_by_role("link", name=key[:16])).to_be_visible()
    assert key not in page.content()
    assert ApiKey.objects.count() == 1


def test_key_is_not_shown_again_when_going_back(page: Page) -> None:
    key = make(page)
    page.get_by_role("link", name="I have saved it").click()
    expect(page.get_by_role("link", name=key[:16])).to_be_visible()
    page.go_back()
    page.wait_for_load_state()
    assert key not in page.content()
    kept = [str(page.context.cookies()), page.evaluate("JSON.stringify([localStorage, sessionStorage])")]
    assert not [text for text in kept if key in text]


def test_key_is_copied_when_asked(page: Page) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    key = make(page)
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("status")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == key


def test_key_is_revoked_after_a_question(page: Page) -> None:
    key = make(page)
    page.goto(LIST)
    page.get_by_role("link", name=key[:16]).click()
    page.get_by_role("link", name="Revoke").click()
    expect(page.get_by_text("cannot be undone")).to_be_visible()
    assert ApiKey.objects.is_live(key)
    page.get_by_role("button", name="Revoke").click()
    expect(page.get_by_text("1 API key was revoked.")).to_be_visible()
    assert not ApiKey.objects.is_live(key)
    expect(page.get_by_role("link", name="Revoke")).to_have_count(0)


def test_pages_of_ours_have_no_violations_for_axe(page: Page) -> None:
    make(page)
    assert violations_on_all_screens(page) == []
    page.goto(f"{LIST}{ApiKey.objects.get().pk}/revoke/")
    assert violations_on_all_screens(page) == []
