"""What all endpoints of the chat API have in common."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.views.decorators.csrf import csrf_exempt

from sentinel_project.gateway.errors import ApiError
from sentinel_project.gateway.request_log import RequestLog
from sentinel_project.gateway.shutdown import stopping
from sessions_sticky import SessionError, SessionStoreUnavailable

logger = logging.getLogger(__name__)

LEFT = 499
"""The log's status for a client that left before its answer; nginx's."""


class Call(HttpRequest):
    """A request with all its `lower_headers` (names in lower case) and its `log`; never made, only annotated."""

    lower_headers: dict[str, str]
    log: RequestLog


ResponseT = TypeVar("ResponseT", bound=HttpResponseBase)
View = Callable[..., Coroutine[Any, Any, HttpResponseBase]]


def endpoint(method: str) -> Callable[[View], View]:
    """Make an API endpoint: one method, every error in the OpenAI shape, a request id, a line in the log."""

    def decorate(view: View) -> View:
        @functools.wraps(view)
        async def handle(request: HttpRequest, **captured: str) -> HttpResponseBase:
            call = cast("Call", request)
            call.lower_headers = _headers(request)
            call.log = RequestLog(call.lower_headers)
            if request.method != method:
                message = f"{request.method} is not allowed here, {method} is"
                return _told(call.log, ApiError(405, message, headers={"Allow": method}).response())
            try:
                return _told(call.log, await _answer(view, call, captured))
            except asyncio.CancelledError as exc:
                if stopping.caused(exc):
                    return _told(call.log, stopping.error().response())
                call.log.write(LEFT)
                raise

        return csrf_exempt(handle)

    return decorate


def refuse(request: HttpRequest, error: ApiError) -> HttpResponse:
    """Answer a request that does not get to its endpoint: with a request id and a line in the log all the same."""
    return _told(RequestLog(_headers(request)), error.response())


def _told(log: RequestLog, response: ResponseT) -> ResponseT:
    response["X-Request-Id"] = log.request_id
    if not response.streaming:  # a stream writes its line at its end
        log.write(response.status_code)
    return response


async def _answer(view: View, call: Call, captured: dict[str, str]) -> HttpResponseBase:
    try:
        return await view(call, **captured)
    except ApiError as exc:
        error = exc
    except SessionStoreUnavailable:
        message, headers = "The session store is unavailable", {"Retry-After": "1"}
        error = ApiError(503, message, type="service_unavailable", headers=headers)
    except SessionError as exc:
        error = ApiError(400, str(exc))
    except Exception:
        logger.exception("%s %r failed", call.method, call.path)
        error = ApiError(500, "The gateway failed; its log says why", type="server_error")
    return error.response()


def _headers(request: HttpRequest) -> dict[str, str]:
    """All headers: also those with an underscore in the name, which Django drops."""
    scope = getattr(request, "scope", None)
    if scope is None:
        return {name.lower(): value for name, value in request.headers.items()}
    # What is not UTF-8 stays distinct, and is refused as an id: with "replace" two conversations could become one.
    return {name.decode("latin-1").lower(): value.decode(errors="surrogateescape") for name, value in scope["headers"]}
