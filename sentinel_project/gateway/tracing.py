"""Spans of OpenTelemetry: each request, its resolve, each attempt at a provider, and the relay of its stream.

Without `SENTINEL_TRACES` each decorator returns the function that it is given, so that requests cost nothing more.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

from sentinel_project.gateway.conf import settings
from sentinel_project.gateway.errors import ApiError
from sentinel_project.gateway.replies import Reply, call_at_end

if TYPE_CHECKING:
    from opentelemetry.trace import Span

if settings.SENTINEL_TRACES:
    from opentelemetry import trace
    from opentelemetry.trace import SpanKind, StatusCode
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    tracer = trace.get_tracer("sentinel_project")
    w3c = TraceContextTextMapPropagator()  # alone: the baggage of clients is not for providers

F = TypeVar("F", bound=Callable[..., Any])

BY_HAND: Any = {"record_exception": False, "set_status_on_exception": False}
"""An error's text may repeat what a provider said, so that spans have its kind alone."""

ATTRIBUTES = {
    "X-Session-Outcome": "sentinel.outcome",
    "X-Session-Source": "sentinel.source",
    "X-Session-Provider": "sentinel.provider",
    "X-Session-Reason": "sentinel.reason",
    "X-Session-Model": "gen_ai.request.model",
}
"""The attributes of a request by the header of its answer that has their value."""


def _if_enabled(decorate: Callable[[F], F]) -> Callable[[F], F]:
    return decorate if settings.SENTINEL_TRACES else lambda function: function


@_if_enabled
def trace_request(answer: Callable[..., Awaitable[Reply]]) -> Callable[..., Awaitable[Reply]]:
    """Trace an endpoint until the end of its reply, as a child of the client's span."""

    @wraps(answer)
    async def traced(call: Any, **captured: str) -> Reply:
        attributes, route = {"http.request.method": call.method, "url.path": call.path}, call.path
        for name, value in captured.items():
            route = route.replace(value, f"{{{name}}}")
        span = tracer.start_span(f"{call.method} {route}", w3c.extract(call.headers), SpanKind.SERVER, attributes)
        try:
            with trace.use_span(span, **BY_HAND):
                reply = await answer(call, **captured)
        except BaseException as exc:
            _fail(span, exc)
            span.set_attributes(_of_session(exc.headers) if isinstance(exc, ApiError) else {})
            span.end()
            raise
        span.set_attributes({"http.response.status_code": reply.status, **_of_session(reply.headers)})
        call_at_end(reply.body, span.end)
        return reply

    return traced


@_if_enabled
def trace_resolve(plan_request: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Trace how a request finds its conversation's provider."""

    @wraps(plan_request)
    async def traced(*arguments: Any) -> Any:
        with tracer.start_as_current_span("resolve", **BY_HAND) as span:
            try:
                plan = await plan_request(*arguments)
            except BaseException as exc:
                _fail(span, exc)
                raise
            span.set_attribute("sentinel.outcome", plan.outcome)
            return plan

    return traced


@_if_enabled
def trace_attempt(call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Trace a call of a provider until its answer, and then the relay of a stream."""

    @wraps(call)
    async def traced(provider: Any, request: Any, *arguments: Any) -> Any:
        attributes = {"sentinel.provider": provider.name, "gen_ai.request.model": request.model}
        with tracer.start_as_current_span("attempt", None, SpanKind.CLIENT, attributes, **BY_HAND) as span:
            try:
                answer = await call(provider, request, *arguments)
            except BaseException as exc:
                _fail(span, exc)
                raise
        if not isinstance(answer.body, bytes):
            call_at_end(answer.body, tracer.start_span("relay", None, SpanKind.INTERNAL, attributes).end)
        return answer

    return traced


@_if_enabled
def send_context(to_provider: Callable[..., dict[str, str]]) -> Callable[..., dict[str, str]]:
    """Send the context of the attempt's span to the provider, instead of the client's."""

    @wraps(to_provider)
    def traced(*arguments: Any) -> dict[str, str]:
        sent = to_provider(*arguments)
        w3c.inject(sent)
        return sent

    return traced


def _fail(span: Span, exc: BaseException) -> None:
    """Record the kind of an error."""
    status = exc.status if isinstance(exc, ApiError) else None
    reason = getattr(exc, "reason", None) or (exc.code if isinstance(exc, ApiError) else None) or type(exc).__name__
    span.set_attribute("error.type", reason)
    if status is not None:
        span.set_attribute("http.response.status_code", status)
    if status is None or status >= 500:
        span.set_status(StatusCode.ERROR)


def _of_session(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: headers[header] for header, name in ATTRIBUTES.items() if header in headers}
