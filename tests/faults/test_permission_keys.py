"""Experiment 12, the chat API: each route and method, with every kind of key and with invalid ones."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.test import Client
from rest_framework.authtoken.models import Token

from sentinel_project.gateway import auth
from sentinel_project.gateway.models import ApiKey
from sentinel_project.gateway.providers.config import ECHO
from sentinel_project.gateway.routing import objects
from tests.faults.permission_table import ALL_APIS, KINDS, METHODS, OBJECT, OTHER, OWNER, ROUTES, Route
from tests.gateway.asgi import Call

if TYPE_CHECKING:
    import redis
    from pytest_django import Settings

KEY_ROUTES = {pattern: route for pattern, route in ROUTES.items() if route.door == "key"}
KEY = "sentinel:session:conv-3"
VALUE = b'{"id":"conv-3","provider":"echo-one","model":"echo-small","external_id":"ann","created_at":1700000000}'
SECRETS = (b"ann", b"ben", b"echo-one", b"hello")


@sync_to_async
def credentials() -> dict[str, list[tuple[str, str]]]:
    """The headers of each kind of caller."""
    key, other, revoked = (ApiKey.objects.issue(owner) for owner in ("ann", "ben", "cem"))
    ApiKey.objects.filter(owner="cem").revoke()
    deleted = ApiKey.objects.issue("deleted")
    ApiKey.objects.filter(owner="deleted").delete()
    root = User.objects.create_superuser("root", password="x")
    client = Client()
    client.force_login(root)
    bearers = {OWNER: key, OTHER: other, "revoked key": revoked, "deleted key": deleted, "unknown key": f"{key}x"}
    return {
        **{name: [("Authorization", f"Bearer {text}")] for name, text in bearers.items()},
        "no key": [],
        "the stored hash of a key": [("Authorization", f"Bearer {ApiKey.objects.get(owner='ann').digest}")],
        "the key as a password": [("Authorization", f"Basic {key}")],
        "a superuser's cookie": [("Cookie", f"sessionid={client.cookies['sessionid'].value}")],
        "a superuser's token": [("Authorization", f"Token {Token.objects.create(user=root).key}")],
        "a superuser's token as a key": [("Authorization", f"Bearer {Token.objects.get(user=root).key}")],
    }


def expected(route: Route, method: str, who: str) -> int:
    needs, status, _ = route.call(method)
    if needs == "-":
        return status
    if who not in (OWNER, OTHER):
        return 401
    return 403 if needs == "owner" and who == OTHER else status


@pytest.fixture
async def store(session_cache: redis.Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> redis.Redis:
    """A store with ann's conversation and stored object, and the gateway over it, which has read no key yet."""
    settings.SENTINEL_PROVIDERS = ECHO
    monkeypatch.setattr(auth, "keys", auth.KeyRing())
    session_cache.set(KEY, VALUE, ex=100)
    await objects.write([OBJECT], objects.StoredObject("echo-one", "ann"))
    return session_cache


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("pattern", KEY_ROUTES)
async def test_route_of_the_chat_api_answers_as_in_the_table_for_every_caller(store: redis.Redis, pattern: str) -> None:
    route, wrong, found = KEY_ROUTES[pattern], [], await credentials()
    assert found.keys() == set(KINDS)
    for who, headers in found.items():
        for method in METHODS:
            sent = json.dumps(ALL_APIS).encode()
            call = await Call(sent, path=route.path, method=method, headers=headers, key=None).answer()
            if call.status != expected(route, method, who):
                wrong.append(f"{method} by {who}: {call.status}, not {expected(route, method, who)}")
            if call.status != 200 and who != OWNER:
                assert not [secret for secret in SECRETS if secret in call.body], who
                assert not [name for name in call.headers if name.startswith("x-session-")]
            assert store.get(KEY) == VALUE
    assert not wrong, "\n".join(wrong)


@pytest.mark.django_db(transaction=True)
async def test_admin_refuses_keys_of_the_chat_api(store: redis.Redis) -> None:
    found = await credentials()
    for headers in (found[OWNER], found[OTHER]):
        api = await Call(path="/api/sessions/", method="GET", headers=headers, key=None).answer()
        pages = await Call(path="/admin/", method="GET", headers=headers, key=None).answer()
        assert (api.status, pages.status) == (401, 302)
        assert pages.headers["location"].startswith("/admin/login/")
