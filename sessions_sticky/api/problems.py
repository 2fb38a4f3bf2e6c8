"""Errors as RFC 9457 problem details; the views use this handler instead of the project's."""

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
    """409: the conversation has another binding. `members` are added to the problem."""

    status_code = 409

    def __init__(self, detail: str, **members: Any) -> None:
        super().__init__(detail)
        self.members = members


class StoreUnavailable(APIException):
    """503: the store is unavailable. `wait` is sent as Retry-After, in seconds."""

    status_code = 503
    default_detail = "The session store is unavailable."
    wait = 1


class NotSupported(APIException):
    """501: the configured cache does not support this."""

    status_code = 501


FULL = "Redis is full and refuses writes: nothing was changed. Raise maxmemory or delete idle sessions."


def problem_handler(exc: Exception, context: dict[str, Any]) -> Response | None:
    """Return errors with an HTTP status as `application/problem+json`, None for others."""
    exc = _as_api_exception(exc)
    response = exception_handler(exc, context)
    if response is None:
        return None
    status = HTTPStatus(response.status_code)
    problem = {"type": "about:blank", "title": status.phrase, "status": status.value}
    if isinstance(exc, ValidationError):
        problem |= {"detail": "Invalid input.", "errors": response.data}
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
            logger.warning("admin API: %s", exc)  # clients must not see hosts and ports
            return StoreUnavailable(FULL if exc.is_full else None)
    return exc
