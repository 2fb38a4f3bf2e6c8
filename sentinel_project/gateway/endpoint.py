"""The one way of a request through the gateway, whatever its API."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Literal, cast

from asgiref.sync import markcoroutinefunction
from django.http import HttpRequest, HttpResponseBase
from django.views.defaults import page_not_found

from sentinel_project.gateway import apis, cors, metrics
from sentinel_project.gateway.apis.base import ROOT, Api, ApiRequest, parse
from sentinel_project.gateway.auth import KeyRefused
from sentinel_project.gateway.calls import Call
from sentinel_project.gateway.conf import settings
from sentinel_project.gateway.errors import CLIENT_CLOSED_REQUEST, ApiError, internal_error, outcome_of
from sentinel_project.gateway.key_limits import admit
from sentinel_project.gateway.replies import Reply, call_at_end
from sentinel_project.gateway.routing import objects
from sentinel_project.gateway.routing.dispatch import Served, dispatch
from sentinel_project.gateway.routing.observer import TurnObserver, record_unrouted
from sentinel_project.gateway.routing.plan import Plan
from sentinel_project.gateway.routing.planner import plan_request
from sentinel_project.gateway.routing.result import RouteResult
from sentinel_project.gateway.shutdown import stopping
from sentinel_project.gateway.tracing import trace_request
from sessions_sticky import Outcome, SessionError, SessionStoreUnavailable
from sessions_sticky.identity import Identity, InvalidNamedId, identify

logger = logging.getLogger(__name__)


Answer = Callable[..., Awaitable[Reply]]
"""A coroutine function of a `Call`, and of what the path captures."""


class Endpoint:
    """An endpoint of the API: `GatewayHandler` calls `answer`, Django's own handlers call it as a view."""

    csrf_exempt = True

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        markcoroutinefunction(self)

    async def __call__(self, request: HttpRequest, **captured: str) -> HttpResponseBase:
        """Answer a request that came through Django: from its test client, or from a WSGI server."""
        try:
            call = Call.of_django(request)
        except ApiError as exc:
            return exc.reply().as_response()
        return (await self.answer(call, **captured)).as_response()


def endpoint(*methods: str) -> Callable[[Answer], Endpoint]:
    """Make an endpoint: its methods, errors in the shape of its API, a request id, a line in the log."""

    def decorate(answer: Answer) -> Endpoint:
        answer = trace_request(answer)

        async def handle(call: Call, **captured: str) -> Reply:
            if (reply := cors.preflight(call, methods)) is not None:
                return _finish(call, reply)
            if call.method not in methods and not (call.method == "HEAD" and "GET" in methods):
                allowed = ", ".join(methods)
                error = ApiError(405, f"{call.method} is not allowed here, {allowed} is", headers={"Allow": allowed})
                return refuse(call, error)
            try:
                return _finish(call, await _answer(answer, call, captured))
            except asyncio.CancelledError as exc:
                if stopping.caused(exc):
                    return refuse(call, stopping.error())
                if call.slot is not None:
                    call.slot.end()
                call.log.write(CLIENT_CLOSED_REQUEST)
                raise

        return Endpoint(handle)

    return decorate


def serve(api: Api) -> Endpoint:
    """Return the endpoint that answers an API's requests from the conversation's provider, plain or as a stream."""

    @endpoint("POST")
    async def answer(call: Call) -> Reply:
        owner = await admit(call)
        request = parse(api, call.body, call.headers, call.query, call.slot)
        identity = _identify(request, owner)
        references = api.references(request.body)
        placement = await objects.locate(references, owner) if references else None
        if placement is not None:
            identity = objects.identity_of(placement, identity, owner=owner, model=request.model, api=api)
        call.log.note_request(identity, model=request.model, is_stream=request.is_stream)
        try:
            plan = await plan_request(identity, request, owner, placement)
        except ApiError as exc:
            record_unrouted(request, owner, exc.status)
            raise
        try:
            served = await dispatch(plan, request)
            if api.makes_objects:
                served = await objects.keep_made(request, plan, served)
        except ApiError as exc:
            first, result = plan.candidates[0].name, RouteResult(outcome_of(exc.status))
            exc.headers |= _session_headers(plan, first, result)
            _note_route(call, plan, first, result)
            raise
        return respond(call, plan, served)

    return answer


@Endpoint
async def unknown_path(call: Call) -> Reply:
    """Answer for every other path of the API."""
    return refuse(call, ApiError(404, f"Unknown path: {call.path}", code="unknown_url"))


def not_found(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    """Answer for a path outside the API, which clients reach with a wrong base URL; browsers get a page."""
    if "text/html" in request.headers.get("Accept", ""):
        return page_not_found(request, exception)
    root = request.path.removesuffix(request.path_info)
    message = f"Unknown path: {request.path}; the API is below {root}{ROOT}/"
    call = Call.of_django(request, reads_body=False)  # a view may have read it as a form before it raised
    return refuse(call, ApiError(404, message, code="unknown_url")).as_response()


def refuse(call: Call, error: ApiError) -> Reply:
    """Answer with an error, in the shape that the client reads, with a request id and a line in the log."""
    return _finish(call, _render(call, error))


def _identify(request: ApiRequest, owner: str) -> Identity:
    """Return the request's conversation. Raises `ApiError` 400 for a named id that is not valid."""
    try:
        return identify(
            request.headers,
            request.body.fields,
            owner=owner,
            model=request.model,
            api=request.api,
            key=settings.SENTINEL_ID_KEY,
            named=settings.SENTINEL_PINNING_SOURCES,
            sources=settings.SENTINEL_CONVERSATION_ID_SOURCES,
            scope=cast("Literal['shared', 'owner']", settings.SENTINEL_CONVERSATION_SCOPE),
        )
    except InvalidNamedId as exc:
        field = exc.source.partition(".")[2]
        raise ApiError(400, str(exc), param=field, code="invalid_conversation_id") from exc


def respond(call: Call, plan: Plan, served: Served) -> Reply:
    """Return a provider's answer, and note it in the log."""
    answer, provider, result, repaired, turn = served
    _note_route(call, plan, provider.name, result)
    headers = answer.headers | _session_headers(plan, provider.name, result)
    if repaired is not None:
        headers["X-Session-Repaired"] = repaired
    if isinstance(answer.body, bytes):
        turn.end(answer.body)
        return Reply(200, headers, answer.body)
    # Proxies such as nginx would otherwise hold a stream back until it ends.
    headers |= {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return Reply(200, headers, _until_end(call, answer.body, turn))


async def _until_end(call: Call, chunks: AsyncGenerator[bytes], turn: TurnObserver) -> AsyncGenerator[bytes]:
    """Pass a stream on, and end its turn and write its line in the log at its end, also when the client leaves."""
    metrics.streams_in_flight.inc()
    try:
        async with aclosing(chunks):  # ends the request to the provider at once, not at garbage collection
            async for chunk in chunks:
                if kept := turn.take(chunk):
                    yield kept
    finally:
        turn.end()
        metrics.streams_in_flight.dec()
        call.log.write(200)


def _note_route(call: Call, plan: Plan, provider: str, result: RouteResult) -> None:
    bound = plan.session.provider if plan.session else None
    call.log.note_route(provider, bound, model=plan.model, outcome=result.outcome, reason=result.reason)


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
        headers["X-Session-Reason"] = result.reason
    return headers


def _render(call: Call, error: ApiError) -> Reply:
    """Return an error in the shape that the client reads."""
    error.__traceback__ = None  # its frames hold the error, and the request's body until a garbage collection
    error.request_id = call.log.request_id
    if isinstance(error, KeyRefused):
        call.log.note_refusal(str(error.code))
    return error.reply(apis.error_shape(call.path, call.headers))


def _finish(call: Call, reply: Reply) -> Reply:
    reply.headers["X-Request-Id"] = call.log.request_id
    reply.headers.update(cors.headers(call))
    if call.slot is not None:
        reply.headers.update(call.slot.headers())
        call_at_end(reply.body, call.slot.end)
    if isinstance(reply.body, bytes):  # a stream writes its line at its end
        call.log.write(reply.status)
    return reply


async def _answer(answer: Answer, call: Call, captured: dict[str, str]) -> Reply:
    try:
        return await answer(call, **captured)
    except ApiError as exc:
        error = exc
    except SessionStoreUnavailable:
        error = ApiError(503, "The session store is unavailable", retry_after=1)
    except SessionError as exc:
        error = ApiError(400, str(exc))
    except Exception:
        logger.exception("%s %r failed", call.method, call.path)
        error = internal_error()
    return _render(call, error)
