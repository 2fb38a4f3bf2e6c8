from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from sessions_sticky import cache_config, sessions
from sessions_sticky.api import bulk
from sessions_sticky.jobs import runner
from tests.servers import free_port
from tests.sessions_sticky.api.calls import BASE, HEX
from tests.sessions_sticky.api.test_bulk import MOVE_ALL, OPERATIONS, entries
from tests.sessions_sticky.api.test_problems import BLANK, CONTROL, NO_STRING, NULL, REQUIRED, TOO_LONG, assert_problem
from tests.sessions_sticky.jobs.calls import DELETE as DELETE_PLAN
from tests.sessions_sticky.jobs.calls import MOVE_ALL as MOVE_ALL_PLAN
from tests.sessions_sticky.jobs.calls import (
    abandoned,
    fill,
    quick_ticks,  # noqa: F401
    threads,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis
    from django.contrib.auth.models import User
    from rest_framework.test import APIClient

pytestmark = pytest.mark.usefixtures("quick_ticks")

DELETE, REBIND = f"{BASE}delete/", f"{BASE}rebind/"
NO_BOOLEAN = ["Must be a valid boolean."]
FILTERS = "provider, model, owner, idle_for, created_before, moved_from, moved_since, operation"
NEITHER = [f"Pass a filter ({FILTERS}) or everything: true."]
BOTH = ["Pass either filters or everything, not both."]
FIELDS = f"{FILTERS}, everything, dry_run"


def assert_nothing_happened(session_cache: redis.Redis) -> None:
    assert not session_cache.keys("sentinel:job*")
    assert sessions.all().count() == 2
    assert entries() == []


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize(
    ("path", "body", "errors"),
    [
        (DELETE, {}, {"non_field_errors": NEITHER}),
        (DELETE, {"everything": False}, {"non_field_errors": NEITHER}),
        (DELETE, {"provider": None, "model": None, "owner": None}, {"non_field_errors": NEITHER}),
        (DELETE, {"everything": True, "provider": "a"}, {"non_field_errors": BOTH}),
        (DELETE, {"everything": True, "owner": ""}, {"non_field_errors": BOTH}),
        *[(DELETE, {"everything": value}, {"everything": NO_BOOLEAN}) for value in ("true", 1, "yes", [], {})],
        (DELETE, {"everything": None}, {"everything": NULL}),
        (DELETE, {"everything": True, "dry_run": "false"}, {"dry_run": NO_BOOLEAN}),
        (DELETE, {"provider": ""}, {"provider": BLANK}),
        (DELETE, {"model": " "}, {"model": BLANK}),
        (
            DELETE,
            {"provider": 5, "model": True, "owner": []},
            dict.fromkeys(["provider", "model", "owner"], NO_STRING),
        ),
        (DELETE, {"provider": "x" * 257}, {"provider": TOO_LONG}),
        (DELETE, {"provider": "a", "povider": "b"}, {"povider": [f"Unknown field; allowed: {FIELDS}."]}),
        (DELETE, MOVE_ALL, {name: [f"Unknown field; allowed: {FIELDS}."] for name in ("to_provider", "reason")}),
        (DELETE, {"everything": True, "\ud800": 1}, {"\\ud800": [f"Unknown field; allowed: {FIELDS}."]}),
        (REBIND, {"provider": "a"}, {"reason": REQUIRED}),
        (REBIND, {"provider": "a", "reason": "b"}, {"to_provider": ["This field is required without back."]}),
        (
            REBIND,
            {"provider": "a", "reason": "b", "back": True},
            {"back": ["Needs moved_from, moved_since or operation."]},
        ),
        (REBIND, MOVE_ALL | {"back": True}, {"back": ["Pass either a target or back, not both."]}),
        (REBIND, MOVE_ALL | {"provider": None}, {"non_field_errors": NEITHER}),
        (REBIND, MOVE_ALL | {"everything": True}, {"non_field_errors": BOTH}),
        (REBIND, MOVE_ALL | {"to_provider": ""}, {"to_provider": BLANK}),
        (REBIND, MOVE_ALL | {"to_provider": "a\n"}, {"to_provider": CONTROL}),
        (REBIND, MOVE_ALL | {"to_model": ""}, {"to_model": BLANK}),
        (REBIND, MOVE_ALL | {"to_model": "x" * 257}, {"to_model": TOO_LONG}),
        (REBIND, MOVE_ALL | {"reason": " "}, {"reason": BLANK}),
        (REBIND, MOVE_ALL | {"reason": "x" * 501}, {"reason": ["Ensure this field has no more than 500 characters."]}),
    ],
    ids=lambda value: ascii(value)[:60],
)
def test_call_names_the_field_when_a_value_does_not_fit(
    api: APIClient, session_cache: redis.Redis, path: str, body: dict[str, Any], errors: dict[str, Any], dry_run: bool
) -> None:
    fill(2)
    response = api.generic("POST", path, json.dumps({"dry_run": dry_run} | body), "application/json")
    assert_problem(response, 400, errors=errors)
    assert_nothing_happened(session_cache)


@pytest.mark.parametrize("field", ["provider", "model", "owner", "to_provider", "to_model", "reason"])
@pytest.mark.parametrize("value", ["\ud800", "a\udfffb", "\x00"], ids=ascii)
def test_every_field_is_refused_when_it_has_no_utf8_form(
    api: APIClient, session_cache: redis.Redis, field: str, value: str
) -> None:
    fill(2)
    response = api.generic("POST", REBIND, json.dumps(MOVE_ALL | {field: value}), "application/json")
    assert assert_problem(response, 400)["errors"].keys() == {field}
    assert_nothing_happened(session_cache)


@pytest.mark.parametrize("path", [DELETE, REBIND])
@pytest.mark.parametrize("body", ["[]", '"a"', "5", "null", "{", '{"a":' * 10_000, ""], ids=lambda value: value[:6])
def test_call_is_refused_when_its_body_is_not_an_object(
    api: APIClient, session_cache: redis.Redis, path: str, body: str
) -> None:
    fill(2)
    assert_problem(api.generic("POST", path, body, "application/json"), 400)
    assert_nothing_happened(session_cache)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", DELETE),
        ("POST", REBIND),
        ("GET", OPERATIONS),
        ("GET", f"{OPERATIONS}{HEX}/"),
        ("POST", f"{OPERATIONS}{HEX}/stop/"),
        ("POST", f"{OPERATIONS}{HEX}/resume/"),
    ],
)
def test_call_is_refused_when_it_has_query_parameters(
    api: APIClient, session_cache: redis.Redis, method: str, path: str
) -> None:
    """A filter in the wrong place must not be overlooked."""
    fill(2)
    response = api.generic(method, f"{path}?provider=a", json.dumps({"everything": True}), "application/json")
    assert_problem(response, 400, errors={"provider": ["Unknown parameter; allowed: none."]})
    assert_nothing_happened(session_cache)


CALLS: list[tuple[str, str, dict[str, Any] | None]] = [
    ("POST", DELETE, {"everything": True}),
    ("POST", DELETE, {"everything": True, "dry_run": True}),
    ("POST", REBIND, MOVE_ALL),
    ("POST", REBIND, MOVE_ALL | {"dry_run": True}),
    ("GET", OPERATIONS, None),
    ("GET", f"{OPERATIONS}{HEX}/", None),
    ("POST", f"{OPERATIONS}{HEX}/stop/", None),
    ("POST", f"{OPERATIONS}{HEX}/resume/", None),
]


def call(api: APIClient, method: str, path: str, body: dict[str, Any] | None) -> Any:
    return api.generic(method, path, json.dumps(body) if body else "", "application/json")


@pytest.mark.parametrize("number", range(len(CALLS)))
def test_call_answers_503_when_the_store_is_down(api: APIClient, settings: Any, number: int) -> None:
    settings.CACHES = {"default": cache_config(f"redis://127.0.0.1:{free_port()}/0")}
    response = call(api, *CALLS[number])
    assert_problem(response, 503)
    assert response.headers["Retry-After"] == "1"
    assert (threads(), entries()) == ([], [])


@pytest.mark.parametrize("number", range(len(CALLS)))
def test_call_answers_501_when_there_is_no_index(
    api: APIClient, session_cache: redis.Redis, settings: Any, number: int
) -> None:
    settings.SESSIONS_STICKY = {"INDEX": False}
    detail = "There is no index: SESSIONS_STICKY['INDEX'] is False"
    assert_problem(call(api, *CALLS[number]), 501, detail=detail)
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    assert "django-redis can" in assert_problem(call(api, *CALLS[number]), 501)["detail"]


def test_delete_answers_200_and_gives_the_reason_when_the_operation_fails(
    api: APIClient, session_cache: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> Any:
        raise RuntimeError("secret")

    monkeypatch.setattr(runner.Bulk, "delete_all", fail)
    response = api.post(DELETE, {"everything": True}, format="json")
    assert response.status_code == 200
    assert response.json()["state"] == "failed"
    assert response.json()["detail"] == "An internal error; see the log of the server."


USERS = {
    "missing": (),
    "view": ("view",),
    "add": ("add",),
    "change": ("change",),
    "delete": ("delete",),
    "all": ("view", "add", "change", "delete"),
}


@pytest.mark.parametrize("who", USERS)
@pytest.mark.parametrize(
    ("method", "path", "body", "needed"),
    [
        ("POST", DELETE, {"provider": "openai"}, "delete"),
        ("POST", DELETE, {"provider": "openai", "dry_run": True}, "delete"),
        ("POST", REBIND, MOVE_ALL, "change"),
        ("POST", REBIND, MOVE_ALL | {"dry_run": True}, "change"),
        ("POST", REBIND, {}, "change"),
        ("GET", OPERATIONS, None, "view"),
        ("GET", "{delete}", None, "view"),
        ("POST", "{delete}stop/", None, "delete"),
        ("POST", "{delete}resume/", None, "delete"),
        ("POST", "{rebind}stop/", None, "change"),
        ("POST", "{rebind}resume/", None, "change"),
        ("GET", "{rebind}stop/", None, "view"),
        ("DELETE", "{rebind}stop/", None, "delete"),
        ("PUT", "{rebind}", None, "change"),
    ],
)
def test_call_answers_according_to_permissions(
    session_cache: redis.Redis,
    make_user: Callable[..., User],
    by_token: Callable[[User], APIClient],
    who: str,
    method: str,
    path: str,
    body: dict[str, Any] | None,
    needed: str,
) -> None:
    fill(2)
    keys = {"delete": "a" * 32, "rebind": "b" * 32}
    for plan, key in ((DELETE_PLAN, keys["delete"]), (MOVE_ALL_PLAN, keys["rebind"])):
        abandoned(plan, key, state="stopped")
    urls = {name: f"{OPERATIONS}{key}/" for name, key in keys.items()}
    response = call(by_token(make_user(*USERS[who])), method, path.format(**urls), body)
    allowed = needed in USERS[who]
    assert (response.status_code != 403) is allowed
    if not allowed:
        assert_problem(response, 403)
        assert "openai" not in response.text
        assert sessions.filter(provider="openai").count() == 2
        assert len(session_cache.keys("sentinel:job:*:done")) == 2
        assert entries() == []


@pytest.mark.parametrize("number", range(len(CALLS)))
def test_call_answers_401_when_anonymous(client: Any, db: None, session_cache: redis.Redis, number: int) -> None:
    fill(2)
    method, path, body = CALLS[number]
    assert_problem(client.generic(method, path, json.dumps(body or {}), "application/json"), 401)
    assert_nothing_happened(session_cache)


def test_actor_is_the_user_whatever_the_name(
    session_cache: redis.Redis, make_user: Callable[..., User], by_token: Callable[[User], APIClient]
) -> None:
    fill(1)
    name = "<b>ä'" * 20
    operation = by_token(make_user("delete", name=name)).post(DELETE, {"everything": True}, format="json").json()
    assert operation["actor"] == name
    assert sessions.history("conv-0")[-1].actor == name
    assert bulk.jobs.get(operation["url"][-33:-1]).actor == name  # type: ignore[union-attr]
