"""Fixtures for the admin API: callers, and what other programs see in the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from rest_framework.authtoken.models import Token
from rest_framework.test import APIClient

from sessions_sticky.api.base import AdminView
from tests.sessions_sticky import users
from tests.sessions_sticky.api.calls import Anyone

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis
    from django.contrib.auth.models import User


@pytest.fixture
def make_user(db: None) -> Callable[..., User]:
    """Make a user who has the given permissions on sessions (`"view"`, `"add"`, `"change"`, `"delete"`)."""
    return lambda *actions, name="user", **flags: users.make_user(name, *actions, **flags)


@pytest.fixture
def by_token(db: None) -> Callable[[User], APIClient]:
    """A client that calls with a user's token."""

    def client(user: User) -> APIClient:
        return APIClient(HTTP_AUTHORIZATION=f"Token {Token.objects.get_or_create(user=user)[0].key}")

    return client


@pytest.fixture
def api(make_user: Callable[..., User], by_token: Callable[[User], APIClient]) -> APIClient:
    """A client that may do everything."""
    return by_token(make_user(is_superuser=True))


@pytest.fixture
def no_login(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let everyone do everything without a look into the database: for servers and clients in threads."""
    monkeypatch.setattr(AdminView, "authentication_classes", (Anyone,))
    monkeypatch.setattr("sessions_sticky.audit.record", lambda *args, **kwargs: None)


@pytest.fixture
def bound(session_cache: redis.Redis) -> bytes:
    """The value of `sentinel:session:conv-1`, with 100 s left, as another program wrote it."""
    value = b'{"id":"conv-1","provider":"openai","model":"gpt-4","external_id":"user-456","created_at":1700000000}'
    session_cache.set("sentinel:session:conv-1", value, ex=100)
    return value
