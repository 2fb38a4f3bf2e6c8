"""Errors of the gateway, rendered in the shape of the API that was called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sentinel_project.gateway.conf import settings
from sentinel_project.gateway.replies import Reply, json_reply
from sessions_sticky.turns import UNANSWERED

CLIENT_CLOSED_REQUEST = 499
"""The status of a request whose client left before its answer, in the log and in its turn; nginx's."""
REFUSED, LEFT = "refused", "left"
"""The outcomes of requests without an answer that are no provider's fault: it was the request's, or the client left."""

TYPES = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "service_unavailable",
}
"""OpenAI's types of errors by status; any other status has `invalid_request_error`."""


class ApiError(Exception):
    """An answer other than success. `param` names the field at fault; `type` and `code` are for programs.

    `retry_after` is in seconds. `provider_body` is the provider's own error object where it has the API's shape: it
    goes to the client as it is. None: the error is rendered from the other attributes. `request_id` is the gateway's.
    """

    request_id: str | None = None

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str | None = None,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
        headers: Mapping[str, str] | None = None,
        provider_body: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type or TYPES.get(status, "invalid_request_error")
        self.param = param
        self.code = code
        self.headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        self.headers |= headers or {}
        self.provider_body = provider_body

    def reply(self, render: Render | None = None) -> Reply:
        """Return the error as JSON, in OpenAI's shape unless another is given."""
        body = self.provider_body or (render or openai_shape)(self)
        return json_reply(body, status=self.status, headers=self.headers)


Render = Callable[[ApiError], dict[str, Any]]


def openai_shape(error: ApiError) -> dict[str, Any]:
    """Return an error in the only shape that the OpenAI SDKs read."""
    fields = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
    return {"error": fields}


def outcome_of(status: int) -> str:
    """Return the outcome of a request that ended with an error for the client."""
    if status == CLIENT_CLOSED_REQUEST:
        return LEFT
    return UNANSWERED if status >= 500 or status == 429 else REFUSED


def internal_error() -> ApiError:
    """Return the error for a fault of the gateway itself."""
    return ApiError(500, "Internal gateway error; see the gateway's log")


def too_many_connections() -> ApiError:
    """Return the error for a request that the server has no connection left for."""
    return ApiError(503, "The gateway has too many connections", code="too_many_connections", retry_after=1)


def too_large() -> ApiError:
    """Return the error for a request body over the limit."""
    message = f"The request is larger than {settings.DATA_UPLOAD_MAX_MEMORY_SIZE} bytes"
    return ApiError(413, message, code="request_too_large")
