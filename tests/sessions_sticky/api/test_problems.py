from __future__ import annotations

import json
import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import pytest
from rest_framework.parsers import FormParser
from rest_framework.renderers import BrowsableAPIRenderer
from rest_framework.views import APIView

from sessions_sticky import cache_config
from sessions_sticky.stores import redis as redis_store
from tests.servers import VALKEY, Server, free_port
from tests.sessions_sticky.api.calls import BASE, CALLS, MOVE, PROPOSAL, STORE_CALLS
from tests.waiting import stopwatch

if TYPE_CHECKING:
    import redis
    from rest_framework.test import APIClient

REBIND = f"{BASE}rebind/conv-1/"


def assert_problem(response: Any, status: int, **members: Any) -> dict[str, Any]:
    """Check everything that problems have in common; return the body."""
    assert response.status_code == status
    assert response.headers["Content-Type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    expected = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, **members}
    assert {name: body[name] for name in expected} == expected
    assert isinstance(body["detail"], str)
    assert body["detail"]
    assert body.keys() <= {"type", "title", "status", "detail", "errors", "current"}
    return body


REQUIRED, BLANK, NULL = ["This field is required."], ["This field may not be blank."], ["This field may not be null."]
NO_STRING, CONTROL = ["Not a valid string."], ["Control characters are not allowed."]
TOO_LONG = ["Ensure this field has no more than 256 characters."]


@pytest.mark.parametrize(
    ("field", "value", "messages"),
    [
        ("id", "", BLANK),
        ("id", None, NULL),
        ("id", 5, NO_STRING),
        ("id", ["a"], NO_STRING),
        ("id", "x" * 257, ["A conversation id has 1 to 256 characters, not 257"]),
        *[(field, value, BLANK) for field in ("provider", "model") for value in ("", " ", "\u3000")],
        *[(field, None, NULL) for field in ("provider", "model", "owner")],
        *[(field, value, NO_STRING) for field in ("provider", "model") for value in (5, 1.5, True, [], {})],
        *[(field, "x" * 257, TOO_LONG) for field in ("provider", "model", "owner")],
        *[(f, v, CONTROL) for f in ("provider", "model", "owner") for v in ("a\n", "\x1b[31m", "\x7f", "a\x85")],
        ("owner", 5, NO_STRING),
    ],
    ids=ascii,
)
def test_create_names_the_field_when_a_value_does_not_fit(
    api: APIClient, session_cache: redis.Redis, field: str, value: Any, messages: list[str]
) -> None:
    response = api.post(BASE, PROPOSAL | {field: value}, format="json")
    assert_problem(response, 400, errors={field: messages}, detail="Invalid input.")
    assert not session_cache.keys("sentinel:session:*")


def test_create_names_every_field_at_once_when_several_do_not_fit(api: APIClient, session_cache: redis.Redis) -> None:
    response = api.post(BASE, {"id": "\n", "provider": "", "owner": 5}, format="json")
    assert assert_problem(response, 400)["errors"].keys() == {"id", "provider", "model", "owner"}


@pytest.mark.parametrize("field", ["id", "provider", "model", "owner", "reason"])
@pytest.mark.parametrize("value", ["\ud800", "a\udfffb", "\x00"], ids=ascii)
def test_every_field_is_refused_when_it_has_no_utf8_form(
    api: APIClient, bound: bytes, session_cache: redis.Redis, field: str, value: str
) -> None:
    path, body = (REBIND, MOVE) if field == "reason" else (BASE, PROPOSAL)
    response = api.generic("POST", path, json.dumps(body | {field: value}), "application/json")
    assert assert_problem(response, 400)["errors"].keys() == {field}
    assert session_cache.keys("sentinel:session:*") == [b"sentinel:session:conv-1"]


@pytest.mark.parametrize(
    ("field", "value", "messages"),
    [
        *[(field, value, BLANK) for field in ("provider", "model", "reason") for value in ("", " ")],
        *[(field, 5, NO_STRING) for field in ("provider", "model", "reason", "from_provider")],
        *[(field, None, NULL) for field in ("provider", "model", "reason", "from_provider")],
        ("reason", "x" * 501, ["Ensure this field has no more than 500 characters."]),
        ("reason", "a\nb", CONTROL),
    ],
    ids=ascii,
)
def test_rebind_names_the_field_when_a_value_does_not_fit(
    api: APIClient, bound: bytes, session_cache: redis.Redis, field: str, value: Any, messages: list[str]
) -> None:
    assert_problem(api.post(REBIND, MOVE | {field: value}, format="json"), 400, errors={field: messages})
    assert session_cache.get("sentinel:session:conv-1") == bound


@pytest.mark.parametrize(
    ("path", "fields"),
    [(BASE, ("id", "provider", "model", "owner")), (REBIND, ("provider", "model", "reason"))],
)
def test_body_is_refused_when_fields_are_missing(
    api: APIClient, session_cache: redis.Redis, path: str, fields: tuple[str, ...]
) -> None:
    for empty in (api.post(path, {}, format="json"), api.generic("POST", path)):
        assert_problem(empty, 400, errors=dict.fromkeys(fields, REQUIRED))


@pytest.mark.parametrize("path", [BASE, REBIND])
@pytest.mark.parametrize(
    ("body", "message"), [("[]", "got list"), ('"a"', "got str"), ("5", "got int"), ("null", "No data")]
)
def test_body_is_refused_when_it_is_not_an_object(
    api: APIClient, session_cache: redis.Redis, path: str, body: str, message: str
) -> None:
    problem = assert_problem(api.generic("POST", path, body, "application/json"), 400)
    assert problem["errors"].keys() == {"non_field_errors"}
    assert message in problem["errors"]["non_field_errors"][0]


@pytest.mark.parametrize("path", [BASE, REBIND])
@pytest.mark.parametrize(
    "body", [b"{", b"{'id': 1}", b"\xff", b'{"id": NaN}', b"[" * 10_000, b'{"a":' * 10_000], ids=len
)
def test_body_is_refused_when_it_is_not_json(
    api: APIClient, session_cache: redis.Redis, path: str, body: bytes
) -> None:
    problem = assert_problem(api.generic("POST", path, body, "application/json"), 400)
    assert problem["detail"].startswith("JSON parse error")


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_body_is_refused_when_its_type_is_not_json(
    api: APIClient, session_cache: redis.Redis, content_type: str
) -> None:
    assert_problem(api.generic("POST", BASE, json.dumps(PROPOSAL), content_type), 415)
    assert not session_cache.keys("sentinel:session:*")


def test_call_answers_406_when_the_client_takes_no_json(api: APIClient, bound: bytes) -> None:
    assert_problem(CALLS["retrieve"].by(api, ACCEPT="text/html"), 406)


def test_api_uses_only_json_when_the_project_has_other_defaults(
    api: APIClient, bound: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(APIView, "renderer_classes", [BrowsableAPIRenderer])
    monkeypatch.setattr(APIView, "parser_classes", [FormParser])
    assert CALLS["retrieve"].by(api, ACCEPT="text/html,*/*;q=0.8").headers["Content-Type"] == "application/json"
    assert_problem(api.post(BASE, "a=b", content_type="application/x-www-form-urlencoded"), 415)


@pytest.mark.parametrize("name", ["put", "patch", "delete all", "post to a session"])
def test_call_answers_405_with_allow_when_the_route_lacks_the_method(api: APIClient, bound: bytes, name: str) -> None:
    response = CALLS[name].by(api)
    assert_problem(response, 405)
    allowed = "GET, POST, HEAD, OPTIONS" if name == "delete all" else "GET, DELETE, HEAD, OPTIONS"
    assert response.headers["Allow"] == allowed


def assert_unavailable(response: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert response.status_code == 503
    assert response.headers["Retry-After"] == "1"
    assert response.headers["Content-Type"] == "application/problem+json"
    if response.content:  # not for HEAD
        detail = "The session store is unavailable."
        assert_problem(response, 503, detail=detail)
    assert "Session store unavailable" in caplog.text


@pytest.mark.parametrize("on_store_error", ["degrade", "raise"])
@pytest.mark.parametrize("name", STORE_CALLS)
def test_call_answers_503_when_the_store_is_closed(
    api: APIClient, settings: Any, caplog: pytest.LogCaptureFixture, name: str, on_store_error: str
) -> None:
    settings.CACHES = {"default": cache_config(f"redis://127.0.0.1:{free_port()}/0")}
    settings.SESSIONS_STICKY = {"ON_STORE_ERROR": on_store_error}
    assert_unavailable(CALLS[name].by(api), caplog)


@pytest.mark.parametrize("name", STORE_CALLS)
@pytest.mark.slow
def test_call_answers_503_soon_after_its_timeout_when_the_store_stalls(
    api: APIClient, settings: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(redis_store, "OPERATOR_REPLY_SECONDS", 0.25)  # that of the calls for one session
    with Server() as server:
        settings.CACHES = {"default": cache_config(server.url)}
        server.stop()
        took = stopwatch()
        assert_unavailable(CALLS[name].by(api), caplog)
        assert took() < 1


def test_create_answers_503_when_the_store_is_full(
    api: APIClient, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with Server(VALKEY, "--maxmemory", "1") as server:
        settings.CACHES = {"default": cache_config(server.url)}
        response = CALLS["create"].by(api)
    detail = "Redis is full and refuses writes: nothing was changed. Raise maxmemory or delete idle sessions."
    assert_problem(response, 503, detail=detail)
    assert response.headers["Retry-After"] == "1"
    assert "script" not in caplog.text


@pytest.mark.parametrize("name", STORE_CALLS)
def test_call_answers_503_when_the_store_wants_a_password(
    api: APIClient, settings: Any, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    with Server() as server, server.client() as client:
        client.config_set("requirepass", "secret")
        settings.CACHES = {"default": cache_config(server.url)}
        assert_unavailable(CALLS[name].by(api), caplog)


def test_store_error_is_logged_when_it_is_kept_from_the_client(
    api: APIClient, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    settings.CACHES = {"default": cache_config(f"redis://127.0.0.1:{port}/0")}
    with caplog.at_level(logging.WARNING, "sessions_sticky"):
        response = CALLS["retrieve"].by(api)
    assert str(port) in caplog.text
    assert str(port) not in response.text
