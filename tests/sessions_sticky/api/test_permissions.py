"""Who may call the admin API, as far as the matrix (tests/faults/test_permission_matrix.py) does not say it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import AnonymousUser
from rest_framework.test import APIClient

from tests.sessions_sticky.api.calls import BASE, CALLS, PROPOSAL

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis
    from django.contrib.auth.models import User

KEY = "sentinel:session:conv-1"


@pytest.mark.parametrize("headers", [{}, {"AUTHORIZATION": "Token wrong"}, {"AUTHORIZATION": "Basic dXNlcjp1c2Vy"}])
@pytest.mark.parametrize("name", CALLS)
def test_call_answers_401_when_anonymous(
    db: None, bound: bytes, session_cache: redis.Redis, name: str, headers: dict[str, str]
) -> None:
    response = CALLS[name].by(APIClient(), **headers)
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Token"
    assert_refused(response, session_cache, bound)


def test_call_answers_401_when_the_project_grants_anonymous_users_permissions(
    db: None, bound: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AnonymousUser, "has_perm", lambda *args: True)
    assert CALLS["retrieve"].by(APIClient()).status_code == 401


@pytest.mark.parametrize(("actions", "shown"), [(("add",), False), (("add", "view"), True), (("add", "change"), True)])
def test_create_shows_the_current_binding_when_the_caller_may_read_it(
    bound: bytes,
    session_cache: redis.Redis,
    make_user: Callable[..., User],
    by_token: Callable[[User], APIClient],
    actions: tuple[str, ...],
    shown: bool,
) -> None:
    response = by_token(make_user(*actions)).post(BASE, PROPOSAL | {"id": "conv-1"}, format="json")
    assert response.status_code == 409
    assert ("current" in response.json()) is shown
    assert ("user-456" in response.text) is shown


def test_call_answers_403_when_the_permission_was_taken_away(
    bound: bytes, make_user: Callable[..., User], by_token: Callable[[User], APIClient]
) -> None:
    user = make_user("view")
    assert by_token(user).get(f"{BASE}conv-1/").status_code == 200
    user.user_permissions.clear()
    assert by_token(user).get(f"{BASE}conv-1/").status_code == 403


def assert_refused(response: Any, session_cache: redis.Redis, bound: bytes) -> None:
    """A problem that tells nothing; nothing was done."""
    assert session_cache.get(KEY) == bound
    assert 0 < session_cache.pttl(KEY) <= 100_000
    assert not session_cache.exists("sentinel:session:conv-2")
    assert response.headers["Content-Type"] == "application/problem+json"
    assert not any(word in response.text for word in ("openai", "gpt-4", "user-456"))
