"""Sending a request to the providers of its plan until one answers."""

from __future__ import annotations

import logging
import time
from typing import NamedTuple

import msgspec

from sentinel_project.gateway import metrics
from sentinel_project.gateway.apis.base import ApiRequest
from sentinel_project.gateway.apis.body import Body
from sentinel_project.gateway.errors import ApiError
from sentinel_project.gateway.providers.config import Provider
from sentinel_project.gateway.routing import plan as routing
from sentinel_project.gateway.upstream import client
from sentinel_project.gateway.upstream.errors import UpstreamFailure, UpstreamRejection

logger = logging.getLogger(__name__)

SESSION_FIELDS = ("conversation_id",)
"""Fields of a body that are for the gateway: strict providers refuse fields that they do not know."""


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

    Raises `ApiError`: that of the first candidate when all fail or refuse, or at once an error that is the request's
    own.
    """
    first_error: ApiError | None = None
    refusal: str | None = None
    for provider in plan.candidates:
        routing.health.begin(provider.name)
        started = time.perf_counter()
        try:
            answer, repaired = await _ask(provider, request, _body_for(provider, request.body, plan.model))
        except UpstreamFailure as exc:
            metrics.upstream_failures.labels(provider.name, exc.reason).inc()
            routing.health.failed(provider.name, retry_after=exc.retry_after, alive=exc.alive)
            logger.warning("provider %r failed: %s", provider.name, exc.logged)
            first_error = first_error or exc
            first_error.headers.pop("x-should-retry", None)  # this one may be well the next time
        except UpstreamRejection as exc:
            logger.warning("provider %r refused: %d", provider.name, exc.provider_status)
            if plan.session is not None and provider.name == plan.session.provider:
                refusal = f"provider answered {exc.provider_status}"
            first_error = first_error or exc
        except ApiError:
            routing.health.answered(provider.name)
            raise
        else:
            stream = "no" if isinstance(answer.body, bytes) else "yes"
            metrics.upstream_seconds.labels(provider.name, stream).observe(time.perf_counter() - started)
            routing.health.answered(provider.name)
            return Served(answer, provider, await routing.record_result(plan, provider, refusal), repaired)
    assert first_error is not None  # noqa: S101 - a plan has at least one candidate
    raise first_error


async def _ask(provider: Provider, request: ApiRequest, body: Body) -> tuple[client.Answer, str | None]:
    """Ask a provider; once more, without it, when it refuses reasoning that another account made."""
    try:
        return await client.call(provider, request, body), None
    except ApiError as exc:
        repair = request.api.repair(body, exc)
        if repair is None:
            raise
    return await client.call(provider, request, repair.body), repair.removed


def _body_for(provider: Provider, body: Body, model: str) -> Body:
    """Return the body for one provider: its own name of the model, without the fields that are for the gateway."""
    changes: dict[str, bytes | None] = dict.fromkeys(SESSION_FIELDS)
    changes["model"] = msgspec.json.encode(provider.upstream_names.get(model, model))
    return body.replace(changes)
