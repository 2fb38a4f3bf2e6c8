"""Operators known by a signed token alone: no row in the database, permissions from its claims."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.sessions_sticky.projects import run_project

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

SETTINGS = """
INSTALLED_APPS += ["rest_framework"]
REST_FRAMEWORK = {"DEFAULT_AUTHENTICATION_CLASSES": ["theirs.tokens.JWTAuthentication"]}
"""
URLS = """
from django.urls import include, path

urlpatterns += [path("chats/", include("sessions_sticky.urls"))]
"""
TOKENS = """
import base64
import hashlib
import hmac
import json
import time

from django.conf import settings
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def sign(body):
    return b64(hmac.digest(settings.SECRET_KEY.encode(), body, hashlib.sha256))


def issue(name, *permissions, expires=60):
    claims = {"sub": name, "permissions": permissions, "exp": time.time() + expires}
    body = b".".join(b64(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
    return f"{body.decode()}.{sign(body).decode()}"


class TokenUser:
    is_authenticated = is_active = True
    pk = None

    def __init__(self, claims):
        self.claims = claims

    def __str__(self):
        return self.claims["sub"]

    def get_username(self):
        return self.claims["sub"]

    def has_perm(self, name, obj=None):
        return name in self.claims["permissions"]


class JWTAuthentication(BaseAuthentication):
    def authenticate(self, request):
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer":
            return None
        body, _, signature = token.encode().rpartition(b".")
        if not hmac.compare_digest(signature, sign(body)):
            raise AuthenticationFailed("Invalid signature")
        part = body.partition(b".")[2]
        claims = json.loads(base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4)))
        if claims["exp"] < time.time():
            raise AuthenticationFailed("Expired token")
        return TokenUser(claims), token

    def authenticate_header(self, request):
        return "Bearer"
"""
CALLS = """
import logging
from django.contrib.admin.models import LogEntry
from django.test import Client
from sessions_sticky import sessions
from sessions_sticky.testing import valkey
from theirs.tokens import issue

logging.disable()
app = "sessions_sticky."
tokens = {
    "reader": issue("ruth", f"{app}view_session"),
    "operator": issue("grace", *(f"{app}{action}_session" for action in ("view", "add", "change"))),
    "expired": issue("grace", f"{app}view_session", expires=-1),
    "forged": f"{issue('grace', f'{app}view_session')[:-4]}AAAA",
}
move = {"provider": "azure", "model": "gpt-4", "reason": "quota"}
bulk = {"provider": "azure", "to_provider": "mistral", "reason": "quota"}
session = {"id": "conv-1", "provider": "openai", "model": "gpt-4", "owner": "ann"}
found = {}
with valkey():
    for name, token in tokens.items():
        def call(method, path, body=None):
            headers = {"authorization": f"Bearer {token}"}
            return Client().generic(method, f"/chats/{path}", json.dumps(body), "application/json", headers=headers)

        answers = [call("GET", ""), call("POST", "", session), call("POST", "touch/conv-1/"),
                   call("POST", "rebind/conv-1/", move), call("POST", "rebind/", bulk), call("DELETE", "id/conv-1/")]
        found[name] = [answer.status_code for answer in answers]
        found["error"] = [answers[0].get("WWW-Authenticate"), answers[0].json().get("detail")]
    found["history"] = [(event.kind, event.provider, event.actor) for event in sessions.history("conv-1")]
    found["rows"] = LogEntry.objects.count()
print(json.dumps(found))
"""


def test_claims_of_a_token_are_the_permissions_of_its_user(tmp_path: Path) -> None:
    found = run_project(tmp_path, CALLS, settings=SETTINGS, urls=URLS, files={"tokens": TOKENS})
    assert found == {
        "reader": [200, 403, 403, 403, 403, 403],
        "operator": [200, 201, 200, 200, 200, 403],
        "expired": [401] * 6,
        "forged": [401] * 6,
        "error": ["Bearer", "Invalid signature"],
        "history": [["created", "openai", "grace"], ["rebound", "azure", "grace"], ["rebound", "mistral", "grace"]],
        "rows": 0,
    }
