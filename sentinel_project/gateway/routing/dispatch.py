"""Sending a request to the providers of its plan until one answers."""

from __future__ import annotations

import hmac
import logging
import math
import time
from typing import NamedTuple

import msgspec
from django.conf import settings

from sentinel_project.gateway import metrics
from sentinel_project.gateway.apis.base import ApiRequest
from sentinel_project.gateway.apis.body import Body
from sentinel_project.gateway.errors import ApiError
from sentinel_project.gateway.providers.config import Provider
from sentinel_project.gateway.providers.failures import Fault
from sentinel_project.gateway.providers.health import Failure, Health
from sentinel_project.gateway.providers.load import Gate
from sentinel_project.gateway.routing import plan as routing
from sentinel_project.gateway.upstream import client
from sentinel_project.gateway.upstream.errors import UpstreamFailure
from sessions_sticky.identity import Identity

logger = logging.getLogger(__name__)

SESSION_FIELDS = ("conversation_id", "session_id", "litellm_session_id")
"""Fields of a body that are for gateways: strict providers refuse fields that they do not know."""


class Served(NamedTuple):
    """An answer, the provider that gave it, and how the conversation came to it.

    `repaired` names what was removed from the request so that the provider accepts it; None when nothing was.
    """

    answer: client.Answer
    provider: Provider
    result: routing.RouteResult
    repaired: str | None


async def dispatch(plan: routing.Plan, request: ApiRequest) -> Served:
    """Ask the candidates one after the other; the first answer counts.

    Raises `ApiError`: that of the first candidate when all fail or have no room, or at once an error that is the
    request's own.
    """
    hint = affinity_hint(plan.identity)
    health = routing.health if request.api.binds else Health(0, lambda: ())  # what that one learns is dropped
    conversation = plan.identity.session_id or f"owner {plan.owner}"
    first_error: ApiError | None = None
    doubtful: list[tuple[str, Failure]] = []
    for provider in plan.candidates:
        gate = routing.load.gate(provider.name)
        if not await _enter(gate, provider, plan):
            first_error = first_error or routing.unavailable(plan.model, [])
            continue
        begun, started = health.begin(provider.name, plan.model), time.perf_counter()
        try:
            answer, repaired = await _ask(provider, request, _body_for(provider, request.body, plan), hint)
        except UpstreamFailure as exc:
            gate.leave()
            metrics.upstream_failures.labels(provider.name, exc.reason).inc()
            failure = Failure(exc.failure_class.cools, exc.retry_after, exc.is_alive, conversation)
            if failure.is_certain:
                health.failed(provider.name, plan.model, failure)
            else:
                doubtful.append((provider.name, failure))
            logger.warning("provider %r failed: %s", provider.name, exc.logged)
            first_error = first_error or exc
            if exc.failure_class.fault is not Fault.ACCOUNT:
                first_error.headers.pop("x-should-retry", None)  # this one may be well the next time
        except BaseException as exc:
            if isinstance(exc, ApiError):
                health.answered(provider.name, plan.model, begun)
            gate.leave()
            raise
        else:
            stream = "no" if isinstance(answer.body, bytes) else "yes"
            metrics.upstream_seconds.labels(provider.name, stream).observe(time.perf_counter() - started)
            health.answered(provider.name, plan.model, begun)
            gate.wake()
            for name, failure in doubtful:  # this answer proves that the request was not at fault
                health.failed(name, plan.model, failure)
            answer = answer.until_end(gate.leave)
            return Served(answer, provider, await routing.record_result(plan, provider), repaired)
    assert first_error is not None  # noqa: S101 - a plan has at least one candidate
    raise first_error


async def _enter(gate: Gate, provider: Provider, plan: routing.Plan) -> bool:
    """Enter a provider's gate: while it cools down and is asked all the same, few requests are in flight to it."""

    def limit() -> float:
        return routing.FAIL_OPEN_REQUESTS if routing.health.is_cooling(provider.name, plan.model) else math.inf

    return await gate.enter(plan.owner, limit, wait_seconds=settings.SENTINEL_QUEUE_SECONDS)


async def _ask(
    provider: Provider, request: ApiRequest, body: Body, hint: str | None
) -> tuple[client.Answer, str | None]:
    """Ask a provider; once more, without it, when it refuses reasoning that another account made."""
    try:
        return await client.call(provider, request, body, hint), None
    except ApiError as exc:
        repair = request.api.repair(body, exc)
        if repair is None:
            raise
    return await client.call(provider, request, repair.body, hint), repair.removed


def affinity_hint(identity: Identity) -> str | None:
    """Return what a provider gets as a cache hint: an HMAC of the session's id, never the id; None without one."""
    if identity.session_id is None:
        return None
    return hmac.digest(settings.SENTINEL_ID_KEY, b"hint\0" + identity.session_id.encode(), "sha256").hex()[:32]


def _body_for(provider: Provider, body: Body, plan: routing.Plan) -> Body:
    """Return the body for one provider: its own name of the model, its hint, no fields that are for the gateway."""
    changes: dict[str, bytes | None] = dict.fromkeys(SESSION_FIELDS)
    field = provider.affinity_field
    if field is not None:
        changes.pop(field, None)
        if field not in body.fields and (hint := affinity_hint(plan.identity)) is not None:
            changes[field] = msgspec.json.encode(hint)
    changes["model"] = msgspec.json.encode(provider.upstream_names.get(plan.model, plan.model))
    return body.replace(changes)
