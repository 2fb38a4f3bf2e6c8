"""CORS: lets pages of other origins call the API below `/v1/` from a browser, if `SENTINEL_CORS_ORIGINS` names them.

Answers carry no `Access-Control-Allow-Credentials`, for the API reads no cookies: the wildcards of the standard hold.
"""

from __future__ import annotations

from collections.abc import Sequence

from sentinel_project.gateway.calls import Call
from sentinel_project.gateway.conf import settings
from sentinel_project.gateway.replies import Reply

ANY_ORIGIN = "*"
PREFLIGHT_SECONDS = 7200
"""How long a browser keeps the answer to a preflight; the most that Chromium does."""


def preflight(call: Call, methods: Sequence[str]) -> Reply | None:
    """Return the answer to a preflight request from an allowed origin; None for any other request."""
    if call.method != "OPTIONS" or "access-control-request-method" not in call.headers or not _allowed_origin(call):
        return None
    headers = {
        "Access-Control-Allow-Methods": ", ".join(methods),
        "Access-Control-Allow-Headers": "*, Authorization",  # the wildcard does not cover Authorization
        "Access-Control-Max-Age": str(PREFLIGHT_SECONDS),
    }
    return Reply(204, headers, b"")


def headers(call: Call) -> dict[str, str]:
    """Return the headers that let the page of an allowed origin read an answer."""
    if not settings.SENTINEL_CORS_ORIGINS:
        return {}
    origin = _allowed_origin(call)
    found = {"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": "*"} if origin else {}
    return found if origin == ANY_ORIGIN else {**found, "Vary": "Origin"}


def _allowed_origin(call: Call) -> str | None:
    origins = settings.SENTINEL_CORS_ORIGINS
    if ANY_ORIGIN in origins:
        return ANY_ORIGIN
    origin = call.headers.get("origin")
    return origin if origin in origins else None
