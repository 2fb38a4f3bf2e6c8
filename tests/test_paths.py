"""Answers to requests with another path or method than the API's, over the ASGI application as servers call it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.http import Http404

from sentinel_project.gateway.endpoint import not_found
from tests.test_limits import LIMIT, Client, declared

UNKNOWN = ["//v1/chat/completions", "/chat/completions", "/v1", "/v2/models", "/messages", "//v1/messages"]


@pytest.fixture(autouse=True)
def limit(settings: Any, db: None) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = LIMIT


async def ask(method: str, path: str, *headers: tuple[bytes, bytes], root: str = "") -> Client:
    """Return the answer to a request that a server with `--root-path` passes on."""
    client = Client(root + path, [b"{}"], *headers)
    client.scope |= {"method": method, "root_path": root}
    return await client.call()


@pytest.mark.parametrize("path", UNKNOWN)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_unknown_path_is_answered_as_the_api_does(method: str, path: str) -> None:
    answer = await ask(method, path, (b"accept", b"application/json"))
    error = json.loads(answer.body)["error"]
    assert (answer.status, error["code"]) == (404, "unknown_url")
    assert error["message"].startswith(f"Unknown path: {path}")
    assert answer.headers[b"content-type"] == b"application/json"


async def test_unknown_path_is_answered_with_a_page_when_a_browser_asks() -> None:
    answer = await ask("GET", "/chat", (b"accept", b"text/html,application/xhtml+xml,*/*;q=0.8"))
    assert answer.status == 404
    assert answer.headers[b"content-type"].startswith(b"text/html")


@pytest.mark.parametrize(
    ("path", "status"), [("/v1/models", 401), ("/v1/models/x", 401), ("/v1/chat/completions", 405)]
)
async def test_head_is_answered_as_get(path: str, status: int) -> None:
    assert (await ask("HEAD", path)).status == (await ask("GET", path)).status == status


@pytest.mark.parametrize("root", ["", "/gateway", "/v1"])
async def test_api_is_served_and_limited_below_the_root_path(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from sentinel_project.gateway.handler import ASGIHandler

    monkeypatch.delattr(ASGIHandler, "__call__")  # Django's own way, which starts a thread
    path = "/v1/chat/completions"
    assert (await ask("POST", path, root=root)).status == 401
    assert (await ask("POST", path, declared(LIMIT + 1), root=root)).headers[b"x-request-id"]
    assert json.loads((await ask("POST", "/v1/nothing", root=root)).body)["error"]["code"] == "unknown_url"


def test_unknown_path_is_a_404_when_its_form_was_read_already(rf):
    request = rf.post("/nothing/", {"a": "1"})
    assert request.POST
    answer = not_found(request, Http404())
    assert (answer.status_code, json.loads(answer.content)["error"]["code"]) == (404, "unknown_url")


def test_unknown_path_is_a_404_when_its_body_is_too_large(rf, settings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1
    answer = not_found(rf.post("/nothing/", b"{}", content_type="application/json"), Http404())
    assert answer.status_code == 404
