"""What fits into the pages, on a desk and on a phone."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from django.utils import timezone

from sentinel_project.gateway.models import ApiKey
from sessions_sticky import Turn, Usage, sessions
from sessions_sticky.jobs.job import Job, Plan
from sessions_sticky.jobs.records import Records
from sessions_sticky.queries.bulk import Move
from sessions_sticky.queries.filters import Filters
from tests.sessions_sticky.admin.pages import BASE, page_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis
    from playwright.sync_api import Page

pytestmark = pytest.mark.slow

PAGES = ["", "overview/", "move-all/", "operations/", "events/", "owners/", "providers/"]
KEYS = "/admin/gateway/apikey/"
LONG_ID = "tenant-0000/user-8c9e6679-7425-40de-944b-e07fc1f90ae7/thread-1"
BROKEN_WORDS = """() => {
    const broken = []
    const texts = document.createTreeWalker(document.querySelector("#content"), NodeFilter.SHOW_TEXT)
    while (texts.nextNode()) {
        const text = texts.currentNode, parent = text.parentElement
        if (!parent.checkVisibility() || parent.closest("svg, option, pre, .sticky-id")) continue
        for (const word of text.data.matchAll(/[^\\s/-]+/g)) {
            const range = document.createRange()
            range.setStart(text, word.index)
            range.setEnd(text, word.index + word[0].length)
            if (new Set([...range.getClientRects()].map(each => each.top)).size > 1) broken.push(word[0])
        }
    }
    return broken
}"""
"""Finds words of more than one line, other than conversation ids."""
CUT = """() => [...document.querySelectorAll("#content :is(td, th, text, dd)")].filter(each => {
    const room = each.closest(".results, .sticky-card, #content").getBoundingClientRect()
    const box = each.getBoundingClientRect()
    return box.width && (box.left < room.left || box.right > room.right + 0.5)
}).map(each => each.textContent.trim())"""
"""Finds cells and labels of charts that are cut by their frame."""


@pytest.fixture
def in_use(session_cache: redis.Redis, transactional_db: None) -> None:
    """A gateway in use: long names, moves, an operation with many sessions, turns, and keys in each state."""
    moved = sessions.create("thread-081592", "azure-eu", "gpt-5", "support-desk")
    moved = sessions.rebind(moved, provider="anthropic", model="claude-sonnet-4-5", reason="azure-eu is over its quota")
    sessions.acting_as("administrator").rebind(moved, provider="openai", model="gpt-5-mini", reason="asked for")
    for number, owner in enumerate(("support-desk", "mobile-app", "research")):
        sessions.create(f"{LONG_ID}{number}", "anthropic", "claude-sonnet-4-5", owner)
        ApiKey.objects.issue(owner)
    usage = Usage(input=1_200_000, read=960_000, output=40_000)
    turn = {"owner": "support-desk", "provider": "anthropic", "model": "claude-sonnet-4-5", "bound_provider": "openai"}
    for minutes in range(60):
        reason = "provider unreachable for 90 s"
        at, id_ = time.time() - 60 * minutes, "thread-081592" if minutes < 3 else None
        sessions.record_turn(Turn(**turn, conversation_id=id_, at=at, outcome="spilled", reason=reason, usage=usage))
    plan = Plan(Filters("azure-eu"), Move("azure-us", None, "azure-eu is being switched off"))
    job = Job.begin("ab" * 16, plan, actor="administrator", expected=40_173)
    Records(sessions._store).write(msgspec.structs.replace(job, state="done", done=40_173))
    now = timezone.now()
    ApiKey.objects.update(last_used_at=now, requests_per_minute=60, tokens_per_minute=100_000)
    ApiKey.objects.filter(owner="mobile-app").update(paused_at=now)
    ApiKey.objects.filter(owner="research").update(revoked_at=now)


@pytest.mark.usefixtures("in_use")
@pytest.mark.parametrize("width", [1_280, 390])
def test_pages_break_no_word_and_cut_nothing(browse: Callable[..., Any], width: int) -> None:
    page = browse(viewport={"width": width, "height": 900}, locale="de").page  # its words are longer
    wrong = []
    for path in (*(f"{BASE}{each}" for each in PAGES), page_of("thread-081592"), KEYS):
        page.goto(path)
        for kind, script in (("broken", BROKEN_WORDS), ("cut", CUT)):
            wrong += [f"{path}: {kind} {each!r}" for each in page.evaluate(script)]
        if page.evaluate("document.documentElement.scrollWidth") > width:
            wrong.append(f"{path}: too wide")
    assert wrong == []


@pytest.mark.usefixtures("in_use")
def test_labels_of_charts_are_readable_at_each_width(page: Page) -> None:
    page.goto(f"{BASE}overview/")
    for width in (1_600, 1_280, 800, 390):
        page.set_viewport_size({"width": width, "height": 900})
        labels = page.locator(".sticky-axis")
        heights = labels.evaluate_all("all => all.map(each => each.getBoundingClientRect().height)")
        assert len(heights) >= 8
        assert 10 < min(heights) <= max(heights) < 24, width
