"""Who may call the admin API, as far as the matrix (tests/faults/test_permission_matrix.py) does not say it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import AnonymousUser
from rest_framework.test import APIClient

from sessions_sticky import SessionConflict, SessionManager, sessions
from tests.sessions_sticky.api.calls import BASE, CALLS, MOVE, PROPOSAL

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


@pytest.mark.parametrize(("actions", "shown"), [(("add",), False), (("add", "view"), True), (("add", "change"), False)])
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


CHANGES: dict[str, tuple[str, dict[str, str], int, int]] = {
    "touch": ("touch", {}, 200, 204),
    "rebind": ("rebind", MOVE, 200, 204),
    "rebind to where it is": ("rebind", {**MOVE, "provider": "openai", "model": "gpt-4"}, 200, 204),
    "rebind from another": ("rebind", {**MOVE, "from_provider": "wrong"}, 409, 409),
}


@pytest.mark.parametrize(("path", "body", "seen", "unseen"), CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("may_view", [True, False])
def test_change_shows_the_session_when_the_caller_may_view_it(
    bound: bytes,
    make_user: Callable[..., User],
    by_token: Callable[[User], APIClient],
    path: str,
    body: dict[str, str],
    seen: int,
    unseen: int,
    may_view: bool,
) -> None:
    client = by_token(make_user("change", *["view"] * may_view))
    response = client.post(f"{BASE}{path}/conv-1/", body, format="json")
    assert response.status_code == (seen if may_view else unseen)
    for secret in ("user-456", "gpt-4", "openai", "1700000000"):
        assert may_view or secret not in response.text
    assert ("user-456" in response.text) is may_view


def test_conflict_hides_the_session_when_it_moves_during_a_rebind(
    bound: bytes,
    make_user: Callable[..., User],
    by_token: Callable[[User], APIClient],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def conflict(*args: Any, **kwargs: Any) -> Any:
        raise SessionConflict("conv-1", sessions.get("conv-1"))

    monkeypatch.setattr(SessionManager, "rebind", conflict)
    response = by_token(make_user("change")).post(f"{BASE}rebind/conv-1/", MOVE, format="json")
    assert response.status_code == 409
    assert response.json()["detail"] == "Conversation 'conv-1' is not bound as expected."
    assert_reveals_nothing(response)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("actions", [None, (), ("view", "add", "change", "delete")])
def test_answer_is_not_cached_for_any_caller(
    bound: bytes,
    make_user: Callable[..., User],
    by_token: Callable[[User], APIClient],
    name: str,
    actions: tuple[str, ...] | None,
) -> None:
    client = APIClient() if actions is None else by_token(make_user(*actions))
    assert CALLS[name].by(client).headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("path", ["nothing/", "conv-1", "operations/%s/" % ("0" * 32), "?limit=0", "rebind/"])
@pytest.mark.parametrize("method", ["get", "post", "put", "delete", "options"])
def test_error_is_kept_by_no_cache_when_a_call_is_wrong(
    bound: bytes, make_user: Callable[..., User], by_token: Callable[[User], APIClient], path: str, method: str
) -> None:
    client = by_token(make_user(is_superuser=True))
    assert getattr(client, method)(f"{BASE}{path}").headers["Cache-Control"] == "no-store"


def test_call_answers_403_when_the_permission_was_taken_away(
    bound: bytes, make_user: Callable[..., User], by_token: Callable[[User], APIClient]
) -> None:
    user = make_user("view")
    assert by_token(user).get(f"{BASE}id/conv-1/").status_code == 200
    user.user_permissions.clear()
    assert by_token(user).get(f"{BASE}id/conv-1/").status_code == 403


def assert_refused(response: Any, session_cache: redis.Redis, bound: bytes) -> None:
    """Assert a problem without details, and no change."""
    assert session_cache.get(KEY) == bound
    assert 0 < session_cache.pttl(KEY) <= 100_000
    assert not session_cache.exists("sentinel:session:conv-2")
    assert_reveals_nothing(response)


def assert_reveals_nothing(response: Any) -> None:
    """Assert a problem that reveals nothing about the session."""
    assert response.headers["Content-Type"] == "application/problem+json"
    assert not any(word in response.text for word in ("openai", "gpt-4", "user-456"))


@pytest.mark.parametrize(
    ("method", "path", "missing"),
    [
        ("GET", "", ["view"]),
        ("POST", "", ["add"]),
        ("GET", "id/conv-1/", ["view"]),
        ("DELETE", "id/conv-1/", ["delete"]),
        ("POST", "touch/conv-1/", ["change"]),
        ("POST", "rebind/", ["change"]),
        ("POST", "delete/", ["delete"]),
        ("POST", f"operations/{'0' * 32}/stop/", ["change", "delete"]),
    ],
)
def test_refusal_names_the_missing_permission(
    by_token: Callable[[User], APIClient], make_user: Callable[..., User], method: str, path: str, missing: list[str]
) -> None:
    response = by_token(make_user()).generic(method, f"{BASE}{path}")
    needed = " or ".join(f"sessions_sticky.{name}_session" for name in missing)
    assert (response.status_code, response.json()["detail"]) == (403, f"Requires the permission {needed}.")


def test_refusal_names_the_permission_for_the_kind_of_operation(
    bound: bytes, by_token: Callable[[User], APIClient], make_user: Callable[..., User]
) -> None:
    body = {"provider": "openai"}
    operation = by_token(make_user("delete", "view")).post(f"{BASE}delete/", body, format="json").json()
    response = by_token(make_user("change", name="other")).post(f"{operation['url']}stop/")
    assert response.json()["detail"] == "Requires the permission sessions_sticky.delete_session."
