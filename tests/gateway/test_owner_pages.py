"""The page of the owners in Django admin."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client

from sentinel_project.gateway import owner_pages
from sentinel_project.gateway.models import ApiKey
from sessions_sticky import Turn, Usage, sessions

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("session_cache")]

PAGE = "/admin/sessions_sticky/session/owners/"


def client(*permissions: str) -> Client:
    user = User.objects.create_user("eve", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    browser = Client()
    browser.force_login(user)
    return browser


@pytest.fixture
def talkers() -> None:
    """Turns of three owners; ann has sessions and two keys."""
    for name, tokens in (("ann", 5_000), ("<b>ben</b>", 9_000), ("", 10)):
        sessions.create(f"conv-{name}", "north", "m", name)
        fields: dict[str, Any] = {
            "conversation_id": f"conv-{name}",
            "owner": name,
            "usage": Usage(tokens, output=7),
        }
        sessions.record_turn(Turn(at=1_700_000_000, provider="north", model="m", outcome="hit", **fields))
    sessions.create("another", "north", "m", "ann")
    for _ in range(2):
        ApiKey.objects.issue("ann")
    ApiKey.objects.filter(pk=ApiKey.objects.latest("pk").pk).pause()


def test_owners_are_listed_by_their_tokens(talkers: None) -> None:
    response = client("view_session", "view_apikey").get(PAGE)
    rows = response.context["rows"]
    assert [(row.name, row.sessions, row.day.input, row.hour.turns) for row in rows] == [
        ("<b>ben</b>", 1, 9_000, 1),
        ("ann", 2, 5_000, 1),
        ("", 1, 10, 1),
    ]
    assert {key.state for key in rows[1].keys} == {"live", "paused"}
    assert "<b>ben" not in response.text
    assert "/pause/" not in response.text
    assert "?owner=ann" in response.text


def test_owners_are_listed_by_their_requests_when_asked(talkers: None) -> None:
    for _ in range(2):
        sessions.record_turn(
            Turn(conversation_id="conv-ann", owner="ann", at=1_700_000_000, provider="n", model="m", outcome="hit")
        )
    browser = client("view_session")
    assert [row.name for row in browser.get(PAGE, {"sort": "hour"}).context["rows"]] == ["ann", "<b>ben</b>", ""]
    assert [row.name for row in browser.get(PAGE, {"sort": "x"}).context["rows"]] == ["<b>ben</b>", "ann", ""]
    assert 'href="?sort=hour"' in browser.get(PAGE).text


def test_owners_lead_to_pausing_for_users_who_may(talkers: None) -> None:
    key = ApiKey.objects.exclude(paused_at=None).get()
    response = client("view_session", "view_apikey", "change_apikey").get(PAGE)
    assert f"/admin/gateway/apikey/{key.pk}/pause/" in response.text
    assert "Resume" in response.text


def test_owners_show_no_keys_to_users_who_may_not_view_them(talkers: None) -> None:
    response = client("view_session").get(PAGE)
    assert ApiKey.objects.all()[0].hint not in response.text
    assert "ann" in response.text


def test_owners_require_the_permission_to_view_sessions(talkers: None) -> None:
    assert client("view_apikey").get(PAGE).status_code == 403


def test_owners_beyond_the_first_are_counted(talkers: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner_pages, "MAX_SHOWN", 1)
    monkeypatch.setattr(owner_pages, "MAX_KEYS", 1)
    assert "2 more owners are not shown." in client("view_session").get(PAGE).text


def test_page_reports_it_when_there_was_no_request() -> None:
    assert "No owner has sent a request in the last day." in client("view_session").get(PAGE).text
