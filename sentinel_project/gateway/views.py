"""The OpenAI-compatible chat API."""

from __future__ import annotations

from typing import Any

import msgspec
from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.views.decorators.csrf import csrf_exempt

from sentinel_project.gateway import conversation
from sentinel_project.gateway.auth import authenticate
from sentinel_project.gateway.endpoint import Call, endpoint
from sentinel_project.gateway.errors import ApiError, json_response, too_large
from sentinel_project.gateway.providers.config import MAX_NAME_LENGTH
from sentinel_project.gateway.providers.reload import providers
from sentinel_project.gateway.routing import plan as routing
from sentinel_project.gateway.routing.dispatch import dispatch
from sessions_sticky import Outcome, sessions


@endpoint("POST")
async def chat_completions(call: Call) -> HttpResponseBase:
    """Answer a chat completion request from the conversation's provider, plain or as a stream."""
    owner = await authenticate(call.lower_headers.get("authorization", ""))
    body = _chat_body(call)
    conversation_id = conversation.find(settings.SENTINEL_CONVERSATION_ID_SOURCES, call.lower_headers, body)
    call.log.fields.update(conversation_id=conversation_id, model=body["model"], stream=bool(body.get("stream")))
    if conversation_id is not None:
        conversation_id = conversation.scoped(settings.SENTINEL_CONVERSATION_SCOPE, owner, conversation_id)
    plan = await routing.plan(conversation_id=conversation_id, model=body["model"], owner=owner)
    body.pop("conversation_id", None)
    try:
        answer, provider, settled = await dispatch(plan, body)
    except ApiError as exc:
        exc.headers |= _session_headers(plan, plan.candidates[0].name, routing.Settled(plan.outcome))
        call.log.fields.update(outcome=plan.outcome, provider=plan.candidates[0].name, model=plan.model)
        raise
    call.log.fields.update(outcome=settled.outcome, provider=provider.name, model=plan.model)
    headers = _session_headers(plan, provider.name, settled)
    if isinstance(answer.body, bytes):
        return HttpResponse(answer.body, content_type=answer.content_type, headers=headers)
    # Proxies such as nginx would otherwise hold a stream back until it ends.
    headers |= {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    chunks = call.log.until_end(200, answer.body)
    return StreamingHttpResponse(chunks, content_type=answer.content_type, headers=headers)


@endpoint("GET")
async def models(call: Call) -> HttpResponse:
    """List the models that the providers serve."""
    await authenticate(call.lower_headers.get("authorization", ""))
    served = sorted({model for provider in providers() for model in provider.models})
    return json_response({"object": "list", "data": [_model(name) for name in served]})


@endpoint("GET")
async def model(call: Call, name: str) -> HttpResponse:
    """Describe one model."""
    await authenticate(call.lower_headers.get("authorization", ""))
    if not routing.serving(name):
        raise routing.unknown_model(name)
    return json_response(_model(name))


@csrf_exempt
async def unknown(request: HttpRequest) -> HttpResponse:
    """Answer for every other path of the API."""
    return ApiError(404, f"Unknown path: {request.path}", code="unknown_url").response()


def _chat_body(request: Call) -> dict[str, Any]:
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
    if len(model) > MAX_NAME_LENGTH:  # nobody serves it, and it would fill the log
        message = f"Invalid model: it has {len(model)} characters; allowed are {MAX_NAME_LENGTH} at most"
        raise ApiError(400, message, param="model", code="string_above_max_length")
    if not isinstance(messages, list) or not messages or not all(isinstance(each, dict) for each in messages):
        raise _invalid("messages", messages, "a list of at least one message object")
    if not isinstance(stream, bool | None):
        raise _invalid("stream", stream, "true or false")
    return body


def _invalid(param: str, value: Any, allowed: str) -> ApiError:
    given = "missing" if value is None else f"of type {type(value).__name__}" if value else "empty"
    code = "missing_required_parameter" if value is None else "invalid_type"
    return ApiError(400, f"Invalid {param}: it is {given}; allowed is {allowed}", param=param, code=code)


def _session_headers(plan: routing.Plan, provider: str, settled: routing.Settled) -> dict[str, str]:
    headers = {"X-Session-Outcome": settled.outcome, "X-Session-Provider": provider, "X-Session-Model": plan.model}
    if plan.session is not None and plan.outcome != Outcome.DEGRADED:
        headers["X-Session-Expires-In"] = str(sessions.ttl_seconds)
    if settled.reason is not None:
        headers["X-Session-Rebind-Reason"] = settled.reason
    return headers


def _model(name: str) -> dict[str, Any]:
    owners = ",".join(provider.name for provider in routing.serving(name))
    return {"id": name, "object": "model", "created": 0, "owned_by": owners}
