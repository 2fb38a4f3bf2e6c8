"""The list and the page of one session, as an operator uses them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from sessions_sticky import keys, sessions
from tests.sessions_sticky.admin.pages import BASE, PROPOSED, page_of, wait_for_jobs
from tests.sessions_sticky.indexed import write_raw

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis
    from playwright.sync_api import Locator, Page

pytestmark = pytest.mark.slow


def fill(number: int, **fields: str) -> None:
    for each in range(number):
        sessions.create(f"conv-{each:03}", **{**PROPOSED, **fields})


def rows(page: Page) -> Locator:
    return page.locator(".sticky-table tbody tr")


def link(page: Page, name: str) -> Locator:
    return page.get_by_role("link", name=name, exact=True)


def button(page: Page, name: str) -> Locator:
    return page.get_by_role("button", name=name, exact=True)


def test_list_is_filtered_when_a_provider_and_an_owner_are_chosen(page: Page) -> None:
    fill(3)
    sessions.create("other", "mistral", "large", "user-7")
    sessions.create("another", "mistral", "large", "user-8")
    page.goto(BASE)
    expect(rows(page)).to_have_count(5)
    page.get_by_label("Provider").select_option("mistral")
    button(page, "Filter").click()
    expect(rows(page)).to_have_count(2)
    page.get_by_role("textbox", name="Owner").fill("user-7")
    button(page, "Filter").click()
    expect(rows(page)).to_have_count(1)
    expect(rows(page).first).to_contain_text("other")
    link(page, "Clear filters").click()
    expect(rows(page)).to_have_count(5)
    link(page, "user-8").click()
    expect(rows(page)).to_have_count(1)


def test_search_redirects_to_a_session_or_reports_that_there_is_none(page: Page) -> None:
    fill(2)
    page.goto(BASE)
    page.get_by_label("Conversation id or owner").fill("conv-001")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(re.escape(page_of("conv-001"))))
    page.goto(BASE)
    page.get_by_label("Conversation id or owner").fill("missing")
    button(page, "Find").click()
    expect(page.get_by_label("Conversation id or owner")).to_have_value("missing")
    expect(page.get_by_role("main")).to_contain_text("owner is exactly “missing”, and no id contains it.")
    expect(rows(page)).to_have_count(0)
    page.get_by_label("Conversation id or owner").fill("v-00")
    button(page, "Find").click()
    expect(rows(page)).to_have_count(2)


def test_list_is_walked_when_it_has_several_pages(page: Page) -> None:
    fill(120)
    page.goto(BASE)
    first = rows(page).locator("th").all_inner_texts()
    expect(link(page, "First page")).to_have_count(0)
    link(page, "Next").click()
    expect(link(page, "First page")).to_be_visible()
    second = rows(page).locator("th").all_inner_texts()
    link(page, "Next").click()
    expect(rows(page)).to_have_count(20)
    expect(link(page, "Next")).to_have_count(0)
    third = rows(page).locator("th").all_inner_texts()
    assert sorted(first + second + third) == [f"conv-{each:03}" for each in range(120)]
    page.go_back()
    assert rows(page).locator("th").all_inner_texts() == second
    link(page, "Previous").click()
    expect(page.get_by_text("1-50 of 120")).to_be_visible()
    assert rows(page).locator("th").all_inner_texts() == first
    page.go_back()
    link(page, "First page").click()
    expect(rows(page)).to_have_count(50)


def test_selected_rows_move_when_the_form_is_filled_in(page: Page) -> None:
    fill(3)
    page.goto(BASE)
    expect(button(page, "Move…")).to_be_disabled()
    expect(button(page, "Delete…")).to_be_disabled()
    page.get_by_label("Select conversation conv-000").check()
    page.get_by_label("Select conversation conv-002").check()
    expect(page.get_by_text("2 selected")).to_be_visible()
    expect(button(page, "Move…")).to_be_enabled()
    button(page, "Move…").click()
    expect(page.get_by_text("2 sessions to move")).to_be_visible()
    page.get_by_role("combobox", name="Provider").fill("mistral")
    page.get_by_label("Reason").fill("a test")
    button(page, "Move").click()
    expect(page.locator(".messagelist")).to_contain_text("2 sessions were moved to mistral.")
    assert sessions.filter(provider="mistral", model="gpt-4").count() == 2


def test_all_that_match_move_when_the_preview_is_confirmed(page: Page) -> None:
    fill(70)
    sessions.create("other", "mistral", "large", "user-7")
    page.goto(f"{BASE}?provider=openai")
    page.get_by_label("All that match the filters").check()
    expect(page.get_by_label("Select conversation conv-069")).to_be_disabled()
    button(page, "Move…").click()
    page.get_by_role("combobox", name="Provider").fill("mistral")
    page.get_by_role("combobox", name="Model").fill("large")
    page.get_by_label("Reason").fill("openai is down")
    button(page, "Continue").click()
    expect(page.get_by_text("70 sessions will move.")).to_be_visible()
    assert sessions.filter(provider="openai").count() == 70
    button(page, "Move").click()
    expect(page).to_have_url(re.compile("operation"))
    expect(page.locator("#content-start")).to_contain_text("70")
    wait_for_jobs()
    assert sessions.filter(provider="mistral", model="large").count() == 71


def test_selection_follows_the_box_of_the_page_when_it_is_ticked(page: Page) -> None:
    fill(3)
    page.goto(BASE)
    whole = page.get_by_label("Select all on this page")
    whole.check()
    expect(page.locator("input[name=selected]:checked")).to_have_count(3)
    page.get_by_label("Select conversation conv-001").uncheck()
    assert whole.evaluate("box => box.indeterminate")
    page.get_by_label("Select conversation conv-001").check()
    expect(whole).to_be_checked()
    button(page, "Delete…").click()
    expect(page.get_by_text("3 sessions will be deleted.")).to_be_visible()
    button(page, "Delete").click()
    expect(page.get_by_text("No sessions yet")).to_be_visible()


def test_detail_shows_what_happens_when_a_session_is_kept_alive_moved_and_released(
    page: Page, session_cache: redis.Redis
) -> None:
    write_raw(session_cache, "conv/1", 100)
    page.goto(page_of("conv/1"))
    left = page.locator("[data-sticky-left] span")
    expect(left).to_have_text(re.compile(r"^1 min \d+ s$"))
    before = left.inner_text()
    expect(left).not_to_have_text(before)
    button(page, "Extend").click()
    expect(left).to_have_text("23 h 59 min")
    page.get_by_role("combobox", name="Provider").fill("mistral")
    page.get_by_label("Reason").fill("slow today")
    button(page, "Move").click()
    expect(page.locator(".messagelist")).to_contain_text("1 session was moved to mistral.")
    event = page.locator(".sticky-timeline li").first
    expect(event).to_contain_text("Moved from openai, model gpt-4, to mistral, model gpt-4")
    expect(event).to_contain_text("Reason: slow today")
    expect(event).to_contain_text("by ada")
    expect(page.locator("pre")).to_contain_text('"provider":"mistral"')
    link(page, "Operator changes").click()
    expect(page.locator("#change-history")).to_contain_text("Moved from openai, gpt-4 to mistral, gpt-4: slow today")
    page.go_back()
    button(page, "Delete…").click()
    link(page, "Cancel").click()
    button(page, "Delete…").click()
    button(page, "Delete").click()
    expect(page.locator(".messagelist")).to_contain_text("1 session was deleted.")
    assert not session_cache.exists(keys.session("conv/1"))


def test_time_left_runs_out_when_the_session_expires(page: Page, session_cache: redis.Redis) -> None:
    write_raw(session_cache, "conv-1", 100)
    page.clock.install()
    page.goto(page_of("conv-1"))
    expect(page.locator("[data-sticky-left] span")).to_have_text(re.compile(r"^1 min \d+ s$"))
    page.clock.fast_forward(100_000)
    expect(page.locator("[data-sticky-left] span")).to_have_text("expired")


def test_pages_work_when_there_is_no_javascript(browse: Callable[..., Any]) -> None:
    fill(2)
    page = browse(java_script_enabled=False).page
    page.goto(BASE)
    expect(page.locator("[data-sticky-page]")).to_be_hidden()
    page.get_by_label("Select conversation conv-000").check()
    button(page, "Delete…").click()
    button(page, "Delete").click()
    expect(rows(page)).to_have_count(1)
    page.goto(page_of("conv-001"))
    expect(page.locator("[data-sticky-left] span")).to_have_text(re.compile(r"^(24 h 0|23 h 59) min$|^1 d 0 h$"))


def test_user_sees_no_button_that_is_not_for_them_when_they_may_only_view(browse: Callable[..., Any]) -> None:
    fill(1)
    page = browse("view").page
    page.goto(BASE)
    expect(rows(page)).to_have_count(1)
    expect(page.locator("#content input[type=checkbox]")).to_have_count(0)
    expect(page.locator("#content").get_by_role("button")).to_have_text(["Find", "Filter"])
    link(page, "conv-000").click()
    expect(page.locator("pre")).to_be_visible()
    expect(page.locator("#content").get_by_role("button")).to_have_count(0)


def test_hostile_values_are_text_when_the_browser_shows_them(page: Page) -> None:
    evil = '<img src=x onerror="window.hacked = true">'
    for conversation_id in (evil, "..", ".", "a/../b", "%2e%2e", "\u202eabc", "😀" * 256):
        sessions.create(conversation_id, evil, evil, evil)
        page.goto(BASE)
        page.locator(".sticky-table th.sticky-id a").first.click()
        expect(page.locator(".sticky-heading bdi")).to_have_text(conversation_id)
        assert page.evaluate("window.hacked") is None
        assert page.locator("#content img").count() == 0
        button(page, "Extend").click()
        expect(page.locator(".messagelist")).to_contain_text("The session was extended")
        sessions.delete(conversation_id)  # of two that were used within a second the id decides which is the first


def test_list_is_used_by_keyboard_when_there_is_no_mouse(page: Page) -> None:
    fill(2)
    page.goto(BASE)
    page.get_by_label("Select conversation conv-001").focus()
    page.keyboard.press("Space")
    button(page, "Move…").focus()
    outline = button(page, "Move…").evaluate("each => getComputedStyle(each).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("Enter")
    expect(page.get_by_text("1 session to move")).to_be_visible()


@pytest.mark.parametrize("width", [360, 800, 1_100])
def test_pages_fit_when_the_screen_is_narrow(browse: Callable[..., Any], width: int) -> None:
    fill(3)
    sessions.create("x" * 256, **PROPOSED)
    page = browse(viewport={"width": width, "height": 740}).page
    for path in (BASE, page_of("x" * 256)):
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [1_240, 1_270, 1_280])
def test_list_fits_beside_the_sidebar_when_the_words_are_long(
    browse: Callable[..., Any], session_cache: redis.Redis, width: int
) -> None:
    sessions.create("x" * 36, "anthropic", "claude-sonnet-4-5-20250929", "user-7")
    sessions.create("y" * 36, "azure-openai-west-europe", "mistral-large-latest-2411", "support-desk-emea-tier-2")
    session_cache.expire(keys.session("x" * 36), 43_000)
    page = browse(viewport={"width": width, "height": 740}, locale="de-DE").page
    page.goto(BASE)
    expect(page.get_by_text(re.compile(r"vor 12 Std\. \d+ Min\."))).to_be_visible()
    room = page.locator(".sticky-list").evaluate("each => each.clientWidth - each.querySelector('table').offsetWidth")
    assert room >= 0
