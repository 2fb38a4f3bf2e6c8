"""Fixtures for the pages in Django admin: users, and sessions to look at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.test import Client

from sessions_sticky import sessions
from tests.sessions_sticky import users
from tests.sessions_sticky.admin.pages import wait_for_jobs
from tests.sessions_sticky.indexed import fill

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import redis
    from django.contrib.auth.models import User

    from sessions_sticky import Session


@pytest.fixture(autouse=True)
def jobs_have_ended() -> Iterator[None]:
    """Stop jobs at the end of each test."""
    yield
    wait_for_jobs()


@pytest.fixture
def make_user(db: None) -> Callable[..., User]:
    """Make a user, staff by default, with permissions on sessions (`"view"`, `"change"`, `"delete"`)."""
    return lambda *actions, name="ada", **flags: users.make_user(name, *actions, **{"is_staff": True, **flags})


@pytest.fixture
def login(make_user: Callable[..., User]) -> Callable[..., Client]:
    """A browser in which a user with permissions, as `make_user` makes, is logged in."""

    def log_in(*actions: str, **flags: Any) -> Client:
        client = Client()
        client.force_login(make_user(*actions, **flags))
        return client

    return log_in


@pytest.fixture
def ada(login: Callable[..., Client]) -> Client:
    """A client of a superuser."""
    return login(is_superuser=True)


@pytest.fixture
def chosen(session_cache: redis.Redis) -> list[Session]:
    """Three sessions, as the list shows them."""
    return fill(sessions, 3)
