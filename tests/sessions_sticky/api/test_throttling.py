from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from django.core.cache import cache
from rest_framework.authentication import BaseAuthentication
from rest_framework.test import APIClient

from sessions_sticky import cache_config
from sessions_sticky.api.base import AdminView
from sessions_sticky.api.throttling import SessionThrottle
from tests.servers import free_port
from tests.sessions_sticky.api.calls import BASE, CALLS

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis
    from django.contrib.auth.models import User


MINUTE = 1_700_000_040
"""The beginning of one, in Unix seconds."""


class SecondToBegin:
    """A cache in which another worker is always first."""

    def incr(self, key: str) -> int:
        return int(cache.incr(key))

    def add(self, key: str, value: int, timeout: int) -> bool:
        cache.add(key, 1, timeout)
        return bool(cache.add(key, value, timeout))


class Named(BaseAuthentication):
    """Accepts the header X-User, without a row in the database."""

    def authenticate(self, request: Any) -> tuple[Any, None]:
        name = request.headers["X-User"]
        may = {"get_username": lambda: name, "has_perm": lambda permission: True}
        return SimpleNamespace(is_authenticated=True, pk=None, **may), None


def test_call_answers_429_when_one_user_is_over_the_rate(
    bound: bytes,
    session_cache: redis.Redis,
    settings: Any,
    make_user: Callable[..., User],
    by_token: Callable[[User], APIClient],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings.SESSIONS_STICKY = {"API_THROTTLE_RATE": "2/min"}
    monkeypatch.setattr("sessions_sticky.api.throttling.time.time", lambda: MINUTE + 4.5)
    user = make_user("view")
    client, other = by_token(user), by_token(make_user("view", name="other"))
    assert [CALLS["retrieve"].by(client).status_code for _ in range(2)] == [200, 200]
    response = CALLS["retrieve"].by(client)
    problem = response.json()
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.headers["Retry-After"] == "56"
    assert (problem["status"], problem["title"]) == (429, "Too Many Requests")
    assert CALLS["retrieve"].by(other).status_code == 200
    key = f"sentinel:throttle:{user.pk}:{MINUTE // 60}"
    assert session_cache.get(key) == b"3"
    assert 0 < session_cache.pttl(key) <= 60_000


def test_users_without_a_primary_key_have_a_rate_each(
    session_cache: redis.Redis, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.SESSIONS_STICKY = {"API_THROTTLE_RATE": "1/hour"}
    monkeypatch.setattr(AdminView, "authentication_classes", (Named,))
    statuses = [APIClient().get(f"{BASE}stats/", HTTP_X_USER=name).status_code for name in ("ann", "bob", "ann")]
    assert statuses == [200, 200, 429]


def test_period_begins_again_when_the_last_one_is_over(
    api: APIClient, bound: bytes, session_cache: redis.Redis, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.SESSIONS_STICKY = {"API_THROTTLE_RATE": "2/min"}
    answers = []
    for at in (30, 59, 59.9, 60, 61, 119.5, -3600):  # the last: the clock was set back
        monkeypatch.setattr("sessions_sticky.api.throttling.time.time", lambda at=at: MINUTE + at)
        answers.append(CALLS["retrieve"].by(api))
    assert [answer.status_code for answer in answers] == [200, 200, 429, 200, 200, 429, 200]
    assert [answers[at].headers["Retry-After"] for at in (2, 5)] == ["1", "1"]


def test_call_is_counted_when_another_worker_begins_the_period_at_the_same_time(
    api: APIClient, bound: bytes, session_cache: redis.Redis, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.SESSIONS_STICKY = {"API_THROTTLE_RATE": "2/day"}
    monkeypatch.setattr(SessionThrottle, "cache", SecondToBegin())
    assert [CALLS["retrieve"].by(api).status_code for _ in range(2)] == [200, 429]


def test_call_costs_the_same_when_there_were_many_before(
    api: APIClient, bound: bytes, session_cache: redis.Redis, settings: Any
) -> None:
    settings.SESSIONS_STICKY = {"API_THROTTLE_RATE": "1000/min"}
    for _ in range(50):
        assert CALLS["retrieve"].by(api).status_code == 200
    (key,) = session_cache.keys("sentinel:throttle:*")
    assert session_cache.strlen(key) < 50


def test_call_is_not_throttled_without_a_rate(
    api: APIClient, bound: bytes, session_cache: redis.Redis, settings: Any
) -> None:
    settings.SESSIONS_STICKY = {"API_THROTTLE_RATE": None}
    assert {CALLS["retrieve"].by(api).status_code for _ in range(5)} == {200}
    assert not session_cache.keys("sentinel:throttle:*")


def test_call_is_throttled_when_no_rate_is_set(
    api: APIClient, bound: bytes, session_cache: redis.Redis, settings: Any
) -> None:
    settings.SESSIONS_STICKY = {}
    assert CALLS["retrieve"].by(api).status_code == 200
    assert len(session_cache.keys("sentinel:throttle:*")) == 1


def test_refused_call_is_not_counted_when_the_caller_has_no_permission(
    bound: bytes, session_cache: redis.Redis, make_user: Callable[..., User], by_token: Callable[[User], APIClient]
) -> None:
    assert CALLS["retrieve"].by(by_token(make_user())).status_code == 403
    assert not session_cache.keys("sentinel:throttle:*")


@pytest.mark.parametrize("state", ["down", "poisoned"])
def test_call_goes_through_with_a_warning_when_the_counting_cache_fails(
    api: APIClient,
    bound: bytes,
    session_cache: redis.Redis,
    valkey_url: str,
    settings: Any,
    caplog: pytest.LogCaptureFixture,
    state: str,
) -> None:
    settings.SESSIONS_STICKY = {"CACHE": "sessions", "API_THROTTLE_RATE": "1/min"}
    url = f"redis://127.0.0.1:{free_port()}/0" if state == "down" else valkey_url
    settings.CACHES = {"default": cache_config(url), "sessions": cache_config(valkey_url)}
    if state == "poisoned":
        CALLS["retrieve"].by(api)
        (key,) = session_cache.keys("sentinel:throttle:*")
        session_cache.delete(key)
        session_cache.rpush(key, "a list")
    assert {api.get(f"{BASE}id/conv-1/").status_code for _ in range(3)} == {200}
    assert "admin API not throttled" in caplog.text
