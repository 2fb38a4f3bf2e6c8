"""The menu and the breadcrumbs of the pages: each page belongs to one section."""

from __future__ import annotations

import re
from html import unescape
from typing import TYPE_CHECKING, Any

import pytest

from sessions_sticky import sessions
from tests.sessions_sticky.admin.pages import BASE, DELETE, MOVE, page_of, selected
from tests.sessions_sticky.jobs.calls import MOVE_ALL, finished, start

if TYPE_CHECKING:
    import redis
    from django.test import Client
    from django.test.client import _MonkeyPatchedWSGIResponse as Response

IDLE = {"all": "1", "provider": "openai", "idle_for": "0s"}
ALL = {"all": "1", "provider": "openai"}


@pytest.fixture(autouse=True)
def _bound(session_cache: redis.Redis) -> None:
    for name in ("one", "overview"):  # the second is also the name of a page
        sessions.create(name, "openai", "gpt-4", "ann")


def marked(response: Response) -> list[tuple[str, str]]:
    """The marked entries of the menu, each with the value of `aria-current`."""
    menu = response.text.partition('<nav class="sticky-sections"')[2].partition("</nav>")[0]
    return re.findall(r'aria-current="(\w+)">([^<]*)<', menu)


def trail(response: Response) -> list[str]:
    """The breadcrumbs after those of Django admin."""
    found = response.text.partition("sticky-trail")[2].partition("</ol>")[0]
    return [unescape(re.sub("<[^>]*>", "", each)).strip() for each in re.findall(r"<li.*?</li>", found)][2:]


@pytest.mark.parametrize(
    ("path", "section"),
    [("", "Sessions"), ("overview/", "Overview"), ("move-all/", "Move all"), ("operations/", "Operations")],
)
def test_menu_marks_the_page_when_it_has_an_entry(ada: Client, path: str, section: str) -> None:
    assert marked(ada.get(f"{BASE}{path}")) == [("page", section)]


@pytest.mark.parametrize("conversation_id", ["one", "overview", "missing"])
def test_menu_marks_the_list_when_the_page_is_of_a_session(ada: Client, conversation_id: str) -> None:
    response = ada.get(page_of(conversation_id))
    assert marked(response) == [("true", "Sessions")]
    assert trail(response) == ["Sessions", conversation_id]


def test_menu_marks_operations_when_the_page_is_of_one(ada: Client) -> None:
    job = finished(start(MOVE_ALL).key)
    for key in (job.key, "0" * 32):
        response = ada.get(f"{BASE}operations/{key}/")
        assert marked(response) == [("true", "Operations")]
        assert trail(response)[:-1] == ["Sessions", "Operations"]


@pytest.mark.parametrize("url", [MOVE, DELETE])
@pytest.mark.parametrize(
    ("section", "trail_of_it", "fields"),
    [
        ("Sessions", ["Sessions"], ALL),
        ("Bulk changes", ["Sessions", "Bulk changes"], IDLE),
        ("Bulk changes", ["Sessions", "Bulk changes"], {**ALL, "moved_from": "azure"}),
    ],
)
def test_confirmation_belongs_to_the_page_that_it_came_from(
    ada: Client, url: str, section: str, trail_of_it: list[str], fields: dict[str, str]
) -> None:
    response = ada.post(url, fields)
    assert marked(response) == [("true", section)]
    assert trail(response)[:-1] == trail_of_it


def test_confirmation_of_selected_sessions_belongs_to_the_list(ada: Client) -> None:
    session = sessions.get("one")
    assert session is not None
    response = ada.post(MOVE, selected([session]))
    assert marked(response) == [("true", "Sessions")]
    assert trail(response) == ["Sessions", "Move sessions"]


@pytest.mark.parametrize("url", [MOVE, DELETE, f"{BASE}move-back/"])
def test_cancel_leads_back_to_all_filters_when_the_list_lacks_them(ada: Client, url: str) -> None:
    conditions: dict[str, Any] = {"moved_from": "azure & co", "idle_for": "90s"}
    cancel = ada.post(url, {**ALL, **conditions}).context["cancel_url"]
    chosen = ada.get(cancel).context["chosen"]
    assert cancel.startswith(f"{BASE}bulk/?")
    assert chosen.filters.provider == "openai"
    assert chosen.condition_fields == conditions


def test_menu_marks_nothing_when_the_user_may_not_view(login: Any) -> None:
    session = sessions.get("one")
    assert session is not None
    response = login("change").post(MOVE, selected([session]))
    assert marked(response) == []
    assert trail(response) == ["Sessions", "Move sessions"]
