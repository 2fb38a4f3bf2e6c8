"""`manage.py apikeys`, and the API of keys."""

from __future__ import annotations

import json
import re

import pytest
from django.contrib.admin.models import LogEntry
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from sentinel_project.gateway.models import ApiKey
from tests.gateway.test_keys import user_with

pytestmark = pytest.mark.django_db

API = "/api/keys/"
EDITOR = ("view_apikey", "change_apikey")


@pytest.fixture
def key() -> ApiKey:
    ApiKey.objects.issue("ann")
    return ApiKey.objects.get()


def limits(key: ApiKey) -> tuple[int | None, ...]:
    """Return the limits as they are stored."""
    key.refresh_from_db()
    return tuple(getattr(key, name) for name in ApiKey.LIMITS)


def test_createkey_sets_limits(capsys):
    call_command("createkey", "ann", "--requests-per-minute", "60", "--requests-in-flight", "4")
    assert limits(ApiKey.objects.get()) == (60, None, 4)
    assert ApiKey.objects.is_live(capsys.readouterr().out.strip())


@pytest.mark.parametrize("limit", ["0", "-1", "many", "2147483648", "1.5", ""])
def test_command_refuses_a_limit_when_it_is_not_a_number_from_1(key: ApiKey, limit):
    with pytest.raises(CommandError, match="must be a whole number from 1 to 2147483647 or none, not"):
        call_command("apikeys", "limit", "--owner", "ann", f"--tokens-per-minute={limit}")
    assert limits(key) == (None, None, None)


def test_command_sets_and_lifts_limits(key: ApiKey, capsys):
    call_command("apikeys", "limit", "--owner", "ann", "--requests-per-minute", "60", "--tokens-per-minute", "9000")
    call_command("apikeys", "limit", "--key", key.hint, "--requests-per-minute", "none")
    assert limits(key) == (None, 9000, None)
    assert capsys.readouterr().out.splitlines() == ["Changed 1 of 1 API keys"] * 2


def test_command_pauses_resumes_and_revokes(key: ApiKey):
    states = []
    for command in ("pause", "resume", "pause", "revoke"):
        call_command("apikeys", command, "--key", key.hint.removesuffix("..."))
        states.append(ApiKey.objects.get().state)
    assert states == ["paused", "live", "paused", "revoked"]


@pytest.mark.parametrize(
    "which", [("--owner", "ben"), ("--owner", "\udcff"), ("--key", "sk-sentinel-none"), ("--key", "\udcff")]
)
def test_command_changes_nothing_when_no_key_is_found(key: ApiKey, which):
    with pytest.raises(CommandError, match=re.escape(f" {which[1]!r}")):
        call_command("apikeys", "pause", *which)
    assert ApiKey.objects.get().state == "live"


def test_command_changes_nothing_when_a_prefix_is_not_unique(key: ApiKey):
    ApiKey.objects.issue("ben")
    ApiKey.objects.update(hint=key.hint)
    with pytest.raises(CommandError, match="2 API keys have the prefix"):
        call_command("apikeys", "pause", "--key", key.hint)
    assert not ApiKey.objects.exclude(paused_at=None).exists()


def test_command_requires_a_limit_for_limit(key: ApiKey):
    with pytest.raises(CommandError, match="at least one of --requests-per-minute"):
        call_command("apikeys", "limit", "--owner", "ann")


def test_command_lists_keys(key: ApiKey, capsys):
    ApiKey.objects.issue("ben", requests_in_flight=3)
    call_command("apikeys", "list", "--owner", "ben", "--format", "json")
    (listed,) = json.loads(capsys.readouterr().out)
    assert (listed["owner"], listed["state"], listed["requests_in_flight"]) == ("ben", "live", 3)
    call_command("apikeys", "list")
    heading, first, second = capsys.readouterr().out.splitlines()
    assert heading.split()[:3] == ["hint", "owner", "state"]
    assert (first.split()[:3], second.split()[1]) == ([key.hint, "ann", "live"], "ben")


def patch(client: Client, key: ApiKey, **changes):
    """Change a key through the API."""
    return client.patch(f"{API}{key.pk}/", changes, content_type="application/json")


def test_api_lists_keys_of_an_owner_without_their_digests(key: ApiKey):
    ApiKey.objects.issue("ben")
    answer = user_with("view_apikey").get(API, {"owner": "ann"})
    (listed,) = answer.json()["results"]
    assert (listed["id"], listed["key"], listed["owner"], listed["state"]) == (key.pk, key.hint, "ann", "live")
    assert key.digest not in answer.content.decode()


@pytest.mark.parametrize("owner", ["\x00", "ann\x00", "\x7f", "x" * 257, ""])
def test_queries_send_no_owner_that_a_database_refuses(key: ApiKey, owner):
    with CaptureQueriesContext(connection) as queries:
        assert not ApiKey.objects.of(owner).exists()
        assert user_with("view_apikey").get(API, {"owner": owner}).json()["results"] == []
    assert not [query for query in queries if "apikey" in query["sql"] and "owner" in query["sql"]]


def test_api_limits_pauses_and_resumes_a_key(key: ApiKey):
    client = user_with(*EDITOR)
    assert patch(client, key, requests_per_minute=60, paused=True).json()["state"] == "paused"
    assert limits(key) == (60, None, None)
    answer = patch(client, key, requests_per_minute=None, paused=False).json()
    assert (answer["state"], answer["requests_per_minute"]) == ("live", None)
    entries = LogEntry.objects.order_by("pk").values_list("user__username", "change_message")
    assert list(entries) == [
        ("eve", "Changed by API: requests_per_minute, paused."),
        ("eve", "Changed by API: requests_per_minute, resumed."),
    ]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"owner": "eve"}, "owner"),
        ({"digest": "x"}, "digest"),
        ({"requests_per_minute": 0}, "requests_per_minute"),
        ({"tokens_per_minute": 2**31}, "tokens_per_minute"),
        ({"requests_in_flight": "many"}, "requests_in_flight"),
        ({"paused": "perhaps"}, "paused"),
        ({"\ud800": 1}, r"\ud800"),
    ],
)
def test_api_refuses_a_change_and_names_the_field(key: ApiKey, changes, field):
    answer = patch(user_with(*EDITOR), key, **changes)
    assert answer.status_code == 400
    assert answer.json()["errors"].keys() == {field}
    assert limits(key) == (None, None, None)
    assert key.owner == "ann"


@pytest.mark.parametrize("body", [b"[" * 100_000, b"\xff", b"7", b"null", b"{", b'{"tokens_per_minute": 1e400}'])
def test_api_reports_a_problem_when_a_body_is_not_a_change(key: ApiKey, body):
    answer = user_with(*EDITOR).patch(f"{API}{key.pk}/", body, content_type="application/json")
    assert (answer.status_code, answer.headers["Content-Type"]) == (400, "application/problem+json")
    assert limits(key) == (None, None, None)


def test_api_refuses_a_change_when_the_key_is_revoked(key: ApiKey):
    ApiKey.objects.all().revoke()
    answer = patch(user_with(*EDITOR), key, paused=True)
    assert (answer.status_code, ApiKey.objects.get().paused_at) == (400, None)


@pytest.mark.parametrize(("permissions", "reads"), [([], 403), (["view_apikey"], 200), (["add_apikey"], 403)])
def test_api_requires_permissions(key: ApiKey, permissions, reads):
    client = user_with(*permissions)
    assert {getattr(client, method)(API).status_code for method in ("get", "head", "options")} == {reads}
    assert patch(client, key, paused=True).status_code == 403
    assert Client().get(API).status_code == 401
    assert ApiKey.objects.get().paused_at is None


@pytest.mark.parametrize("method", ["put", "delete", "post"])
def test_api_has_no_other_methods(key: ApiKey, method):
    client = user_with(*EDITOR, "add_apikey", "delete_apikey")
    assert getattr(client, method)(f"{API}{key.pk}/", {}, content_type="application/json").status_code == 405
