"""Keys made, shown once and revoked in Django admin."""

from __future__ import annotations

import logging

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.sessions.models import Session as BrowserSession
from django.test import Client

from sentinel_project.gateway.models import ApiKey
from tests.gateway.test_keys import LIST, user_with

pytestmark = pytest.mark.django_db

ADD = f"{LIST}add/"
ALL = ["view_apikey", "add_apikey", "change_apikey"]


def make(client: Client, owner: str = "ann"):
    """Fill in the form."""
    return client.post(ADD, {"owner": owner})


def revoking(key: ApiKey) -> str:
    """Return the page that revokes a key."""
    return f"{LIST}{key.pk}/revoke/"


@pytest.fixture
def key() -> ApiKey:
    ApiKey.objects.issue("ann")
    return ApiKey.objects.get()


def test_add_shows_a_key_that_works_when_the_owner_is_allowed():
    answer = make(user_with("add_apikey"), "Ann <b>Ö</b> 🙂")
    secret = answer.context["secret"]
    assert answer.status_code == 200
    assert answer.content.decode().count(secret) == 2
    assert "<b>Ö</b>" not in answer.content.decode()
    assert ApiKey.objects.is_live(secret)
    assert ApiKey.objects.get().owner == "Ann <b>Ö</b> 🙂"
    assert "no-store" in answer["Cache-Control"]


@pytest.mark.slow
def test_add_leaves_the_key_nowhere_when_it_was_shown(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    client = user_with(*ALL)
    answer = make(client)
    secret, key = answer.context["secret"], ApiKey.objects.get()
    pages = [
        client.get(path).content.decode() for path in (LIST, f"{LIST}{key.pk}/change/", f"{LIST}{key.pk}/history/")
    ]
    stored = [*ApiKey.objects.values_list(), *LogEntry.objects.values_list(), *BrowserSession.objects.values_list()]
    decoded = [session.get_decoded() for session in BrowserSession.objects.all()]
    kept = [
        *pages,
        str(stored),
        str(decoded),
        str(answer.headers),
        str(answer.cookies),
        str(client.cookies),
        caplog.text,
    ]
    assert not [text for text in kept if secret in text or secret[20:] in text]


def test_add_is_logged_when_a_key_is_made():
    make(user_with("add_apikey"))
    (entry,) = LogEntry.objects.all()
    assert (entry.user.username, entry.object_id, entry.is_addition()) == ("eve", str(ApiKey.objects.get().pk), True)


@pytest.mark.parametrize("owner", ["", " ", 257 * "x", "a\nb", "\x1b[2J", "a\u202eb"])
def test_add_creates_nothing_and_gives_the_reason_when_the_owner_is_invalid(owner):
    answer = make(user_with("add_apikey"), owner)
    assert answer.context["errors"]
    assert not ApiKey.objects.exists()


@pytest.mark.parametrize("permissions", [[], ["view_apikey", "change_apikey", "delete_apikey"]])
def test_add_is_refused_when_the_user_may_not(permissions):
    client = user_with(*permissions)
    assert client.get(ADD).status_code == make(client).status_code == 403
    assert not ApiKey.objects.exists()
    assert ADD not in client.get("/admin/").content.decode()


def test_add_is_refused_when_the_request_is_forged():
    forged = Client(enforce_csrf_checks=True)
    forged.cookies = user_with(*ALL).cookies
    assert make(forged).status_code == 403
    assert not ApiKey.objects.exists()


def test_page_shows_the_last_use_like_other_times(key: ApiKey):
    ApiKey.objects.update(last_used_at="2026-01-02T03:04:00Z")
    page = user_with("view_apikey").get(f"{LIST}{key.pk}/change/").text
    assert "2026-01-02 03:04:00 UTC" in page
    assert "+00:00" not in page


def test_list_shows_never_when_a_key_was_not_used(key: ApiKey):
    client = user_with("view_apikey")
    assert "never" in client.get(LIST).content.decode()
    ApiKey.objects.update(last_used_at="2026-01-02T03:04:00Z")
    page = client.get(LIST).content.decode()
    assert "2026-01-02 03:04:00 UTC" in page
    assert "never" not in page


@pytest.mark.parametrize(("state", "owners"), [("live", {"ben"}), ("revoked", {"ann"}), ("", {"ann", "ben"})])
def test_list_shows_the_keys_of_a_state_when_asked(key: ApiKey, state, owners):
    ApiKey.objects.all().revoke()
    ApiKey.objects.issue("ben")
    found = user_with("view_apikey").get(LIST, {"state": state} if state else {}).context["cl"].queryset
    assert {each.owner for each in found} == owners


def test_revoke_asks_first_when_the_user_may_change(key: ApiKey):
    client = user_with(*ALL)
    assert revoking(key) in client.get(f"{LIST}{key.pk}/change/").content.decode()
    assert "cannot be undone" in client.get(revoking(key)).content.decode()
    key.refresh_from_db()
    assert key.revoked_at is None


def test_revoke_revokes_and_logs_when_posted(key: ApiKey):
    client = user_with(*ALL)
    page = client.post(revoking(key), follow=True)
    assert page.redirect_chain == [(f"{LIST}{key.pk}/change/", 302)]
    assert "1 API key was revoked." in page.content.decode()
    assert revoking(key) not in page.content.decode()
    key.refresh_from_db()
    assert key.revoked_at is not None
    assert LogEntry.objects.get().change_message == "Revoked."


@pytest.mark.parametrize("permissions", [[], ["view_apikey"], ["view_apikey", "add_apikey", "delete_apikey"]])
def test_revoke_is_refused_when_the_user_may_not_change(key: ApiKey, permissions):
    client = user_with(*permissions)
    assert client.get(revoking(key)).status_code == client.post(revoking(key)).status_code == 403
    assert revoking(key) not in client.get(f"{LIST}{key.pk}/change/").content.decode()
    key.refresh_from_db()
    assert key.revoked_at is None


def test_revoke_redirects_home_when_there_is_no_such_key():
    assert user_with(*ALL).post(f"{LIST}999/revoke/")["Location"] == "/admin/"


def test_revoke_is_refused_when_the_request_is_forged(key: ApiKey):
    forged = Client(enforce_csrf_checks=True)
    forged.cookies = user_with(*ALL).cookies
    assert forged.post(revoking(key)).status_code == 403
    key.refresh_from_db()
    assert key.revoked_at is None
