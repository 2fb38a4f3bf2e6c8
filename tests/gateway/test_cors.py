"""Browsers on pages of other origins: preflights, and headers that let a page read an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.gateway.asgi import CHAT, Call, chat

if TYPE_CHECKING:
    from pytest_django import Settings

    from tests.gateway.upstreams import Upstream

APP = "https://app.example.com"
PREFLIGHT = [("Access-Control-Request-Method", "POST"), ("Access-Control-Request-Headers", "authorization")]


def cors_headers(call: Call) -> dict[str, str]:
    return {name: value for name, value in call.headers.items() if name.startswith("access-control-") or name == "vary"}


async def preflight(origin: str, path: str = CHAT) -> Call:
    return await Call(path=path, method="OPTIONS", headers=[("Origin", origin), *PREFLIGHT], key=None).answer()


@pytest.mark.parametrize(("origins", "allowed"), [([APP], APP), (["http://localhost:3000", APP], APP), (["*"], "*")])
async def test_preflight_is_answered_without_a_key_when_the_origin_is_allowed(
    settings: Settings, origins: list[str], allowed: str
) -> None:
    settings.SENTINEL_CORS_ORIGINS = origins
    call = await preflight(APP)
    assert (call.status, call.body) == (204, b"")
    assert call.headers["access-control-allow-origin"] == allowed
    assert call.headers["access-control-allow-methods"] == "POST"
    assert call.headers["access-control-allow-headers"] == "*, Authorization"
    assert call.headers.get("vary") == (None if allowed == "*" else "Origin")


@pytest.mark.parametrize("origin", ["https://evil.example.com", "https://app.example.com.evil.org", "null", ""])
@pytest.mark.parametrize("origins", [[], [APP]])
async def test_preflight_is_refused_when_the_origin_is_not_allowed(
    settings: Settings, origins: list[str], origin: str
) -> None:
    settings.SENTINEL_CORS_ORIGINS = origins
    call = await preflight(origin)
    assert call.status == 405
    assert cors_headers(call) == ({"vary": "Origin"} if origins else {})


@pytest.mark.usefixtures("gateway")
@pytest.mark.parametrize("stream", [False, True])
async def test_answer_is_readable_by_the_page_when_its_origin_is_allowed(
    settings: Settings, north: Upstream, stream: bool
) -> None:
    settings.SENTINEL_CORS_ORIGINS = [APP]
    call = await Call(chat(stream=stream), headers=[("Origin", APP)]).answer()
    assert call.status == 200
    readable = {"access-control-allow-origin": APP, "access-control-expose-headers": "*", "vary": "Origin"}
    assert cors_headers(call) == readable


@pytest.mark.usefixtures("gateway")
@pytest.mark.parametrize(
    ("body", "path", "key", "status"),
    [({}, CHAT, "sk-wrong", 401), ({"model": 5}, CHAT, None, 401), (None, "/v1/nothing", None, 404)],
)
async def test_error_is_readable_by_the_page_when_its_origin_is_allowed(
    settings: Settings, body: object, path: str, key: str | None, status: int
) -> None:
    settings.SENTINEL_CORS_ORIGINS = [APP]
    call = await Call(body, path=path, key=key, headers=[("Origin", APP)]).answer()
    assert call.status == status
    assert call.headers["access-control-allow-origin"] == APP


@pytest.mark.usefixtures("gateway")
async def test_answer_has_no_cors_headers_when_no_origin_is_allowed(north: Upstream) -> None:
    assert cors_headers(await Call(chat(), headers=[("Origin", APP)]).answer()) == {}
