"""What the APIs of an upstream have in common: errors in each API's shape, and event streams."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from aiohttp import web

from tests.clients.account import new_id

CUT_AFTER = web.RequestKey("cut_after", int)
"""After how many events the stream of this request's answer breaks off."""

ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}
OPENAI_TYPES = {429: "rate_limit_error", 500: "server_error", 503: "server_error"}


class ApiError(Exception):
    """An error that the upstream answers with; `code` and `param` exist in OpenAI's shape only."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.headers = headers or {}

    def response(self, *, anthropic: bool) -> web.Response:
        """Return the answer in Anthropic's or OpenAI's shape."""
        if anthropic:
            error = {"type": ANTHROPIC_TYPES.get(self.status, "api_error"), "message": self.message}
            body: dict[str, Any] = {"type": "error", "error": error, "request_id": new_id("req")}
        else:
            kind = OPENAI_TYPES.get(self.status, "invalid_request_error")
            body = {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}
        return web.json_response(body, status=self.status, headers=self.headers)


async def parse(request: web.Request, *required: str) -> dict[str, Any]:
    """Return the request's JSON object, which must have all the `required` fields."""
    try:
        body = json.loads(await request.read())
    except ValueError as error:
        raise ApiError(400, "We could not parse the JSON body of your request.") from error
    for name in required:
        if name not in body:
            raise ApiError(400, f"Missing required parameter: '{name}'.", code="missing_required_parameter", param=name)
    return dict(body)


async def send_events(
    request: web.Request, events: Iterable[dict[str, Any]], *, done: bytes = b""
) -> web.StreamResponse:
    """Stream events, each under its `type` where it has one; `done` is what follows the last."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
    await response.prepare(request)
    cut_after = request.get(CUT_AFTER)
    for number, event in enumerate(events):
        if number == cut_after:
            assert request.transport is not None
            request.transport.abort()
            return response
        name = f"event: {event['type']}\n" if "type" in event else ""
        await response.write(f"{name}data: {json.dumps(event)}\n\n".encode())
    await response.write(done)
    return response


def pieces(text: str) -> list[str]:
    """Split a text into the deltas of a stream."""
    words = text.split(" ")
    return [*(f"{word} " for word in words[:-1]), words[-1]]
