"""Making keys, and the admin's page of them."""

from __future__ import annotations

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.core.management import CommandError, call_command
from django.test import Client

from sentinel_project.gateway.models import ApiKey, digest

pytestmark = pytest.mark.django_db

LIST = "/admin/gateway/apikey/"


def user_with(*permissions: str, staff: bool = True) -> Client:
    """Return the browser of a user who has these permissions."""
    user = User.objects.create_user("eve", is_staff=staff)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions, content_type__app_label="gateway"))
    client = Client()
    client.force_login(user)
    return client


def revoke(client: Client, *keys: ApiKey):
    """Choose keys on the admin's page and revoke them."""
    chosen = [key.pk for key in keys]
    return client.post(LIST, {"action": "revoke", "_selected_action": chosen}, follow=True)


@pytest.fixture
def key() -> ApiKey:
    ApiKey.objects.issue("ann")
    return ApiKey.objects.get()


def test_createkey_prints_the_key_alone_on_the_last_line_when_run(capsys):
    call_command("createkey", "ann")
    printed = capsys.readouterr().out.splitlines()[-1]
    stored = ApiKey.objects.get()
    assert printed.startswith("sk-sentinel-")
    assert (stored.owner, stored.digest, stored.revoked_at) == ("ann", digest(printed), None)
    assert printed not in "".join(map(str, ApiKey.objects.values_list("owner", "digest", "hint").get()))


def test_createkey_makes_another_key_when_the_owner_has_one(capsys):
    call_command("createkey", "ann")
    call_command("createkey", "ann")
    first, second = capsys.readouterr().out.splitlines()
    assert first != second
    assert ApiKey.objects.filter(owner="ann").count() == 2


@pytest.mark.parametrize("owner", ["", 257 * "x", "a\nb", "a\x00b", "\x1b[2J"])
def test_createkey_refuses_and_makes_nothing_when_the_owner_is_not_allowed(owner):
    with pytest.raises(CommandError, match="must have 1 to 256 printable characters"):
        call_command("createkey", owner)
    assert not ApiKey.objects.exists()


@pytest.mark.parametrize("owner", [256 * "é", "user@example.org", "Ann Ö. 🙂"])
def test_createkey_accepts_an_owner_when_it_is_printable(owner, capsys):
    call_command("createkey", owner)
    assert ApiKey.objects.get().owner == owner


def test_revoke_leaves_the_date_when_the_key_is_revoked_already(key: ApiKey):
    assert ApiKey.objects.all().revoke() == 1
    at = ApiKey.objects.get().revoked_at
    assert ApiKey.objects.all().revoke() == 0
    assert ApiKey.objects.get().revoked_at == at


def test_is_live_returns_whether_a_key_works():
    key = ApiKey.objects.issue("ann")
    assert ApiKey.objects.is_live(key)
    assert not ApiKey.objects.is_live(key + "x")
    ApiKey.objects.all().revoke()
    assert not ApiKey.objects.is_live(key)


def test_admin_lists_keys_without_what_they_open_when_the_user_may_view(key: ApiKey):
    page = user_with("view_apikey").get(LIST).content.decode()
    assert "ann" in page
    assert key.hint in page
    assert key.digest not in page
    assert "Revoke selected" not in page


@pytest.mark.parametrize("path", [LIST, f"{LIST}?q=ann", f"{LIST}?state=live"])
def test_admin_finds_keys_when_asked(key: ApiKey, path):
    assert key.hint in user_with("view_apikey", "change_apikey").get(path).content.decode()


def test_admin_revokes_and_logs_when_the_user_may_change(key: ApiKey):
    other = ApiKey.objects.get(digest=digest(ApiKey.objects.issue("ben")))
    page = revoke(user_with("view_apikey", "change_apikey"), key)
    assert "1 API key was revoked." in page.content.decode()
    key.refresh_from_db()
    other.refresh_from_db()
    assert key.revoked_at is not None
    assert other.revoked_at is None
    (entry,) = LogEntry.objects.all()
    assert (entry.user.username, entry.object_id, entry.change_message) == ("eve", str(key.pk), "Revoked.")


@pytest.mark.parametrize("permissions", [[], ["view_apikey"], ["view_apikey", "delete_apikey"]])
def test_admin_revokes_nothing_when_the_user_may_not_change(key: ApiKey, permissions):
    revoke(user_with(*permissions), key)
    key.refresh_from_db()
    assert key.revoked_at is None
    assert not LogEntry.objects.exists()


def test_admin_shows_nothing_when_the_user_is_not_staff(key: ApiKey):
    for client in (Client(), user_with("view_apikey", "change_apikey", staff=False)):
        answer = client.get(LIST)
        assert answer.status_code == 302
        assert "/admin/login/" in answer["Location"]


def test_admin_revokes_nothing_when_the_request_is_forged(key: ApiKey):
    forged = Client(enforce_csrf_checks=True)
    forged.cookies = user_with("view_apikey", "change_apikey").cookies
    assert revoke(forged, key).status_code == 403
    key.refresh_from_db()
    assert key.revoked_at is None


def test_admin_edits_only_limits_when_the_user_may_do_all(key: ApiKey):
    client = user_with("view_apikey", "change_apikey", "add_apikey", "delete_apikey")
    client.post(f"{LIST}{key.pk}/change/", {"owner": "eve", "digest": "x", "revoked_at": "", "tokens_per_minute": "7"})
    changed = ApiKey.objects.get()
    assert (changed.owner, changed.digest, changed.tokens_per_minute) == ("ann", key.digest, 7)
    assert key.digest not in client.get(f"{LIST}{key.pk}/change/").content.decode()


@pytest.mark.parametrize("limit", ["0", "-1", "x", "2147483648", "1.5"])
def test_admin_refuses_a_limit_when_it_is_not_a_number_from_1(key: ApiKey, limit):
    client = user_with("view_apikey", "change_apikey")
    assert client.post(f"{LIST}{key.pk}/change/", {"requests_per_minute": limit}).status_code == 200
    assert ApiKey.objects.get().requests_per_minute is None


def test_admin_keeps_a_revocation_when_limits_are_saved_at_the_same_time(key: ApiKey, monkeypatch):
    save = ApiKey.save

    def revoke_first(self, **options):
        ApiKey.objects.all().revoke()
        save(self, **options)

    monkeypatch.setattr(ApiKey, "save", revoke_first)
    user_with("view_apikey", "change_apikey").post(f"{LIST}{key.pk}/change/", {"requests_per_minute": "5"})
    changed = ApiKey.objects.get()
    assert (changed.state, changed.requests_per_minute) == ("revoked", 5)


def test_admin_changes_nothing_when_the_key_is_revoked(key: ApiKey):
    ApiKey.objects.all().revoke()
    client = user_with("view_apikey", "change_apikey")
    assert client.post(f"{LIST}{key.pk}/change/", {"requests_per_minute": "5"}).status_code == 403
    client.post(f"{LIST}{key.pk}/pause/")
    assert (ApiKey.objects.get().requests_per_minute, ApiKey.objects.get().paused_at) == (None, None)


def test_admin_pauses_and_resumes_a_key_after_a_question(key: ApiKey):
    client, page = user_with("view_apikey", "change_apikey"), f"{LIST}{key.pk}/pause/"
    states = []
    for _ in range(2):
        assert "?" in client.get(page).content.decode()
        states.append(ApiKey.objects.get().state)
        client.post(page)
    assert [*states, ApiKey.objects.get().state] == ["live", "paused", "live"]
    messages = LogEntry.objects.order_by("pk").values_list("change_message", flat=True)
    assert list(messages) == ["Paused.", "Resumed."]
    client.post(f"{LIST}{key.pk}/revoke/", headers={"accept-language": "de"})
    assert LogEntry.objects.latest("pk").change_message == "Widerrufen."


@pytest.mark.parametrize("permissions", [[], ["view_apikey"], ["add_apikey", "delete_apikey"]])
def test_admin_pauses_nothing_when_the_user_may_not_change(key: ApiKey, permissions):
    assert user_with(*permissions).post(f"{LIST}{key.pk}/pause/").status_code == 403
    assert ApiKey.objects.get().paused_at is None


@pytest.mark.parametrize(("action", "before", "after"), [("pause", "live", "paused"), ("resume", "paused", "live")])
def test_admin_changes_selected_keys_when_an_action_is_run(key: ApiKey, action, before, after):
    other = ApiKey.objects.get(digest=digest(ApiKey.objects.issue("ben")))
    if before == "paused":
        ApiKey.objects.all().pause()
    client = user_with("view_apikey", "change_apikey")
    client.post(LIST, {"action": action, "_selected_action": [key.pk]}, follow=True)
    key.refresh_from_db()
    other.refresh_from_db()
    assert (key.state, other.state) == (after, before)


def test_admin_lists_keys_by_state(key: ApiKey):
    for owner in ("ben", "cid"):
        ApiKey.objects.issue(owner)
    ApiKey.objects.filter(owner="ben").pause()
    ApiKey.objects.filter(owner__in=["cid"]).pause()
    ApiKey.objects.filter(owner="cid").revoke()
    client = user_with("view_apikey")
    owners = {
        state: [each.owner for each in client.get(LIST, {"state": state}).context["cl"].queryset]
        for state in ("live", "paused", "revoked")
    }
    assert owners == {"live": ["ann"], "paused": ["ben"], "revoked": ["cid"]}
