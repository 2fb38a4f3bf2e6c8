"""Errors as RFC 9457 problem details; a view's own exception handler, so the project's stays as it is."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

from rest_framework.exceptions import APIException, ParseError, ValidationError
from rest_framework.response import Response
from rest_framework.views import exception_handler

from sessions_sticky.exceptions import (
    InvalidConversationId,
    InvalidCursor,
    SessionNotSupported,
    SessionStoreUnavailable,
)

logger = logging.getLogger("sessions_sticky")


class Conflict(APIException):
    """409: the conversation is bound otherwise. `members` are further members of the problem."""

    status_code = 409

    def __init__(self, detail: str, **members: Any) -> None:
        super().__init__(detail)
        self.members = members


class StoreUnavailable(APIException):
    """503: nothing is known about the session. `wait` becomes Retry-After, in seconds."""

    status_code = 503
    default_detail = "The session store did not answer; whether the session exists is not known."
    wait = 1


class NotSupported(APIException):
    """501: the configured cache cannot do this."""

    status_code = 501


def problem_handler(exc: Exception, context: dict[str, Any]) -> Response | None:
    """Return any error that has an HTTP status as `application/problem+json`, None for a bug."""
    exc = _as_api_exception(exc)
    response = exception_handler(exc, context)
    if response is None:
        return None
    status = HTTPStatus(response.status_code)
    problem = {"type": "about:blank", "title": status.phrase, "status": status.value}
    if isinstance(exc, ValidationError):
        problem |= {"detail": "Invalid input; `errors` says where and why.", "errors": response.data}
    else:
        problem |= {"detail": response.data["detail"], **getattr(exc, "members", {})}
    response.data = problem
    response.content_type = "application/problem+json"
    return response


def _as_api_exception(exc: Exception) -> Exception:
    match exc:
        case InvalidConversationId() | InvalidCursor():
            return ValidationError({"cursor" if isinstance(exc, InvalidCursor) else "id": [str(exc)]})
        case RecursionError():  # only the JSON parser recurses
            return ParseError("JSON parse error - nested too deeply")
        case SessionNotSupported():
            return NotSupported(str(exc))
        case SessionStoreUnavailable():
            logger.warning("admin API: %s", exc)  # names hosts and ports, which are not for clients
            return StoreUnavailable()
    return exc
