"""The one way of a request through the gateway, whatever its API."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Literal, TypeVar, cast

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.defaults import page_not_found

from sentinel_project.gateway import apis
from sentinel_project.gateway.apis.base import Api, ApiRequest, parse
from sentinel_project.gateway.auth import authenticate
from sentinel_project.gateway.errors import ApiError, too_large
from sentinel_project.gateway.request_log import RequestLog
from sentinel_project.gateway.routing import objects
from sentinel_project.gateway.routing.dispatch import Served, dispatch
from sentinel_project.gateway.routing.pinned import plan_request
from sentinel_project.gateway.routing.plan import Plan, RouteResult
from sentinel_project.gateway.shutdown import stopping
from sessions_sticky import Outcome, SessionError, SessionStoreUnavailable
from sessions_sticky.identity import Identity, InvalidNamedId, identify

logger = logging.getLogger(__name__)

CLIENT_CLOSED_REQUEST = 499
"""The log's status for a client that left before its answer; nginx's."""


class Call(HttpRequest):
    """A request with all its `lower_headers` (names in lower case) and its `log`; never made, only annotated."""

    lower_headers: dict[str, str]
    log: RequestLog


ResponseT = TypeVar("ResponseT", bound=HttpResponseBase)
View = Callable[..., Coroutine[Any, Any, HttpResponseBase]]


def endpoint(*methods: str) -> Callable[[View], View]:
    """Make an endpoint of a view: its methods, errors in the shape of its API, a request id, a line in the log."""

    def decorate(view: View) -> View:
        @functools.wraps(view)
        async def handle(request: HttpRequest, **captured: str) -> HttpResponseBase:
            call = cast("Call", request)
            call.lower_headers = _headers(request)
            call.log = RequestLog(call.lower_headers)
            render = functools.partial(_render, request, call.lower_headers, call.log)
            if request.method not in methods and not (request.method == "HEAD" and "GET" in methods):
                allowed = ", ".join(methods)
                error = ApiError(405, f"{request.method} is not allowed here, {allowed} is", headers={"Allow": allowed})
                return _finish(call.log, render(error))
            try:
                return _finish(call.log, await _answer(view, call, captured, render))
            except asyncio.CancelledError as exc:
                if stopping.caused(exc):
                    return _finish(call.log, render(stopping.error()))
                call.log.write(CLIENT_CLOSED_REQUEST)
                raise

        return csrf_exempt(handle)

    return decorate


def serve(api: Api) -> View:
    """Return the endpoint that answers an API's requests from the conversation's provider, plain or as a stream."""

    @endpoint("POST")
    async def view(call: Call) -> HttpResponseBase:
        owner = await authenticate(call.lower_headers)
        request = parse(api, body_of(call), call.lower_headers, call.META.get("QUERY_STRING", ""))
        identity = _identify(request, owner)
        placement = await objects.locate(api.references(request.body), owner)
        if placement is not None:
            identity = objects.identity_of(placement, identity, owner=owner, model=request.model, api=api.name)
        call.log.note_request(identity, model=request.model, is_stream=request.is_stream)
        plan = await plan_request(identity, request, owner, placement)
        try:
            served = await objects.keep_made(request, plan, await dispatch(plan, request))
        except ApiError as exc:
            first, result = plan.candidates[0].name, RouteResult(plan.outcome)
            exc.headers |= _session_headers(plan, first, result)
            call.log.note_route(plan, first, result)
            raise
        return respond(call, plan, served)

    return view


@csrf_exempt
async def unknown_path(request: HttpRequest) -> HttpResponse:
    """Answer for every other path of the API."""
    return refuse(request, ApiError(404, f"Unknown path: {request.path}", code="unknown_url"))


def not_found(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    """Answer for a path outside the API, which clients reach with a wrong base URL; browsers get a page."""
    if "text/html" in request.headers.get("Accept", ""):
        return page_not_found(request, exception)
    root = request.path.removesuffix(request.path_info)
    message = f"Unknown path: {request.path}; the API is below {root}/v1/"
    return refuse(request, ApiError(404, message, code="unknown_url"))


def api_path(scope: Any) -> str:
    """Return a request's path within the application, without the server's `--root-path`."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def refuse(request: HttpRequest, error: ApiError) -> HttpResponse:
    """Answer a request that does not get to its endpoint: with a request id and a line in the log all the same."""
    headers = _headers(request)
    log = RequestLog(headers)
    return _finish(log, _render(request, headers, log, error))


def body_of(call: Call) -> bytes:
    """Return the whole body of a request. Raises `ApiError`: 413, or 415 for a compressed one."""
    encoding = call.lower_headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        message = f"The request body must not be compressed, but Content-Encoding is {encoding[:32]!r}"
        raise ApiError(415, message, code="unsupported_encoding", headers={"Accept-Encoding": "identity"})
    try:
        return call.body
    except RequestDataTooBig as exc:
        raise too_large(settings.DATA_UPLOAD_MAX_MEMORY_SIZE) from exc


def _identify(request: ApiRequest, owner: str) -> Identity:
    """Return the request's conversation. Raises `ApiError` 400 for a named id that is not valid."""
    try:
        return identify(
            request.headers,
            request.body.fields,
            owner=owner,
            model=request.model,
            api=request.api.name,
            key=settings.SENTINEL_ID_KEY,
            named=settings.SENTINEL_PINNING_SOURCES,
            sources=settings.SENTINEL_CONVERSATION_ID_SOURCES,
            scope=cast("Literal['shared', 'owner']", settings.SENTINEL_CONVERSATION_SCOPE),
        )
    except InvalidNamedId as exc:
        field = exc.source.partition(".")[2]
        raise ApiError(400, str(exc), param=field, code="invalid_conversation_id") from exc


def respond(call: Call, plan: Plan, served: Served) -> HttpResponseBase:
    """Return a provider's answer, and note it in the log."""
    answer, provider, result, repaired, turn = served
    call.log.note_route(plan, provider.name, result)
    headers = answer.headers | _session_headers(plan, provider.name, result)
    if repaired is not None:
        headers["X-Session-Repaired"] = repaired
    if isinstance(answer.body, bytes):
        turn.end(answer.body)
        return HttpResponse(answer.body, headers=headers)
    # Proxies such as nginx would otherwise hold a stream back until it ends.
    headers |= {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingHttpResponse(call.log.until_end(200, answer.body, turn), headers=headers)


def _session_headers(plan: Plan, provider: str, result: RouteResult) -> dict[str, str]:
    headers = {
        "X-Session-Outcome": result.outcome,
        "X-Session-Source": plan.identity.source,
        "X-Session-Provider": provider,
    }
    if plan.model:
        headers["X-Session-Model"] = plan.model
    if plan.session is not None and plan.outcome != Outcome.DEGRADED:
        headers["X-Session-Expires-In"] = str(plan.manager.ttl_seconds)
    if result.reason is not None:
        headers["X-Session-Rebind-Reason"] = result.reason
    return headers


def _render(request: HttpRequest, headers: dict[str, str], log: RequestLog, error: ApiError) -> HttpResponse:
    """Return an error in the shape that the client reads."""
    error.request_id = log.request_id
    return error.response(apis.error_shape(request.path_info, headers))


def _finish(log: RequestLog, response: ResponseT) -> ResponseT:
    response["X-Request-Id"] = log.request_id
    if not response.streaming:  # a stream writes its line at its end
        log.write(response.status_code)
    return response


async def _answer(
    view: View, call: Call, captured: dict[str, str], render: Callable[[ApiError], HttpResponse]
) -> HttpResponseBase:
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
    return render(error)


def _headers(request: HttpRequest) -> dict[str, str]:
    """Return all headers: also those with an underscore in the name, which Django drops. Repeated ones are joined."""
    scope = getattr(request, "scope", None)
    if scope is None:
        return {name.lower(): value for name, value in request.headers.items()}
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        # What is not UTF-8 stays distinct, and is refused as an id: with "replace" two conversations could become one.
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode(errors="surrogateescape")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers
