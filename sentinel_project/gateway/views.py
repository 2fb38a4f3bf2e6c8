"""The OpenAI-compatible chat API, and the health of the process."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.db import DatabaseError, connection
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.views.decorators.csrf import csrf_exempt

from sentinel_project.gateway import conversation, routing, upstream
from sentinel_project.gateway.auth import authenticate
from sentinel_project.gateway.errors import ApiError, json_response, too_large
from sessions_sticky import SessionError, SessionStoreUnavailable, sessions

logger = logging.getLogger(__name__)

View = Callable[..., Coroutine[Any, Any, HttpResponseBase]]


def endpoint(method: str) -> Callable[[View], View]:
    """Make an API endpoint: one method, and every error in the OpenAI shape."""

    def decorate(view: View) -> View:
        @functools.wraps(view)
        async def handle(request: HttpRequest, **captured: str) -> HttpResponseBase:
            try:
                if request.method != method:
                    raise ApiError(405, f"{request.method} is not allowed here, {method} is", headers={"Allow": method})
                return await view(request, **captured)
            except ApiError as exc:
                return exc.response()
            except SessionStoreUnavailable:
                message = "The session store is unavailable"
                error = ApiError(503, message, type="service_unavailable", headers={"Retry-After": "1"})
                return error.response()
            except SessionError as exc:
                return ApiError(400, str(exc)).response()
            except Exception:
                logger.exception("%s %s failed", request.method, request.path)
                return ApiError(500, "The gateway failed; its log says why", type="server_error").response()

        return csrf_exempt(handle)

    return decorate


@endpoint("POST")
async def chat_completions(request: HttpRequest) -> HttpResponseBase:
    """Answer a chat completion request from the conversation's provider, plain or as a stream."""
    headers = _headers(request)
    owner = await authenticate(headers.get("authorization", ""))
    body = _chat_body(request)
    conversation_id = conversation.find(settings.SENTINEL_CONVERSATION_ID_SOURCES, headers, body)
    if conversation_id is not None:
        conversation_id = conversation.scoped(settings.SENTINEL_CONVERSATION_SCOPE, owner, conversation_id)
    route = await routing.route(
        settings.SENTINEL_PROVIDERS, conversation_id=conversation_id, model=body["model"], owner=owner
    )
    body.pop("conversation_id", None)
    session_headers = _session_headers(route)
    try:
        answer = await upstream.call(route.provider, {**body, "model": route.model})
    except ApiError as exc:
        exc.headers |= session_headers
        raise
    if isinstance(answer.body, bytes):
        return HttpResponse(answer.body, content_type=answer.content_type, headers=session_headers)
    # Proxies such as nginx would otherwise hold a stream back until it ends.
    session_headers |= {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingHttpResponse(answer.body, content_type=answer.content_type, headers=session_headers)


@endpoint("GET")
async def models(request: HttpRequest) -> HttpResponse:
    """List the models that the providers serve."""
    await authenticate(_headers(request).get("authorization", ""))
    served = sorted({model for provider in settings.SENTINEL_PROVIDERS for model in provider.models})
    return json_response({"object": "list", "data": [_model(name) for name in served]})


@endpoint("GET")
async def model(request: HttpRequest, name: str) -> HttpResponse:
    """Describe one model."""
    await authenticate(_headers(request).get("authorization", ""))
    if not routing.eligible(settings.SENTINEL_PROVIDERS, name):
        raise ApiError(404, f"The model {name!r} does not exist here", param="model", code="model_not_found")
    return json_response(_model(name))


@csrf_exempt
async def unknown(request: HttpRequest) -> HttpResponse:
    """Answer for every other path of the API."""
    return ApiError(404, f"Unknown path: {request.path}", code="unknown_url").response()


async def healthz(request: HttpRequest) -> HttpResponse:
    """Say that the process answers."""
    return json_response({"status": "ok"})


async def readyz(request: HttpRequest) -> HttpResponse:
    """Say whether store and database answer; 503 when one does not."""
    parts = {"store": await _store_state(), "database": await sync_to_async(_database_state)()}
    ready = set(parts.values()) == {"ok"}
    return json_response({"status": "ok" if ready else "unavailable", **parts}, status=200 if ready else 503)


async def _store_state() -> str:
    try:
        await sessions.aget("readyz")
    except SessionError:
        return "unavailable"
    return "ok"


def _database_state() -> str:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        return "unavailable"
    return "ok"


def _headers(request: HttpRequest) -> dict[str, str]:
    """All headers, names in lower case: also those with an underscore in the name, which Django drops."""
    scope = getattr(request, "scope", None)
    if scope is None:
        return {name.lower(): value for name, value in request.headers.items()}
    # What is not UTF-8 stays distinct, and is refused as an id: with "replace" two conversations could become one.
    return {name.decode("latin-1").lower(): value.decode(errors="surrogateescape") for name, value in scope["headers"]}


def _chat_body(request: HttpRequest) -> dict[str, Any]:
    """Return the request's JSON with its required fields checked; raises `ApiError` naming the field."""
    try:
        body = msgspec.json.decode(request.body)
    except RequestDataTooBig as exc:
        raise too_large(settings.DATA_UPLOAD_MAX_MEMORY_SIZE) from exc
    except (msgspec.DecodeError, UnicodeError, RecursionError) as exc:
        raise ApiError(400, f"The request body is not JSON: {exc}", code="invalid_json") from exc
    if not isinstance(body, dict):
        raise ApiError(400, "The request body is not a JSON object", code="invalid_json")
    model, messages, stream = body.get("model"), body.get("messages"), body.get("stream")
    if not isinstance(model, str) or not model:
        raise _invalid("model", model, "the name of a model")
    if not isinstance(messages, list) or not messages or not all(isinstance(each, dict) for each in messages):
        raise _invalid("messages", messages, "a list of at least one message object")
    if not isinstance(stream, bool | None):
        raise _invalid("stream", stream, "true or false")
    return body


def _invalid(param: str, value: Any, allowed: str) -> ApiError:
    given = "missing" if value is None else f"of type {type(value).__name__}" if value else "empty"
    code = "missing_required_parameter" if value is None else "invalid_type"
    return ApiError(400, f"Invalid {param}: it is {given}; allowed is {allowed}", param=param, code=code)


def _session_headers(route: routing.Route) -> dict[str, str]:
    headers = {
        "X-Session-Outcome": route.outcome,
        "X-Session-Provider": route.provider.name,
        "X-Session-Model": route.model,
    }
    if route.expires_in is not None:
        headers["X-Session-Expires-In"] = str(route.expires_in)
    return headers


def _model(name: str) -> dict[str, Any]:
    owners = [provider.name for provider in routing.eligible(settings.SENTINEL_PROVIDERS, name)]
    return {"id": name, "object": "model", "created": 0, "owned_by": ",".join(owners)}
