"""Errors in the only shape that the OpenAI SDKs read."""

from __future__ import annotations

from typing import Any

import msgspec
from django.http import HttpResponse


class ApiError(Exception):
    """An answer other than success. `param` names the field at fault; `code` is for programs."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers or {}
        self.body: dict[str, Any] = {"error": {"message": message, "type": type, "param": param, "code": code}}

    def response(self) -> HttpResponse:
        """Return the error as a JSON response."""
        return json_response(self.body, status=self.status, headers=self.headers)

    def event(self) -> bytes:
        """Return the error as the last event of a stream that has begun."""
        return b"data: " + msgspec.json.encode(self.body) + b"\n\n"


def json_response(body: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> HttpResponse:
    """Return `body` as a JSON response."""
    return HttpResponse(
        msgspec.json.encode(body), status=status, content_type="application/json", headers=headers or {}
    )


def too_large(limit: int) -> ApiError:
    """Return the error for a request body over `limit` bytes."""
    return ApiError(413, f"The request is larger than {limit} bytes", code="request_too_large")
