"""Sending a request to the providers of its plan until one answers."""

from __future__ import annotations

import hmac
import logging
import time
from typing import NamedTuple

import msgspec
from django.conf import settings

from sentinel_project.gateway import metrics
from sentinel_project.gateway.apis.base import ApiRequest
from sentinel_project.gateway.apis.body import Body
from sentinel_project.gateway.errors import ApiError
from sentinel_project.gateway.providers.config import Provider
from sentinel_project.gateway.providers.health import Health
from sentinel_project.gateway.routing import plan as routing
from sentinel_project.gateway.upstream import client, headers
from sentinel_project.gateway.upstream.errors import UpstreamFailure, UpstreamRejection
from sessions_sticky.identity import Identity

logger = logging.getLogger(__name__)

SESSION_FIELDS = ("conversation_id", "session_id", "litellm_session_id")
"""Fields of a body that are for gateways: strict providers refuse fields that they do not know."""
HINTED = frozenset({"chat", "responses", "messages"})
"""The APIs that may take a field with a cache hint: OpenAI's completions and embeddings refuse one."""


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
    hint = affinity_hint(plan.identity)
    health = routing.health if request.api.binds else Health(0)  # what that one learns is dropped
    first_error: ApiError | None = None
    refusal: str | None = None
    for provider in plan.candidates:
        health.begin(provider.name)
        started = time.perf_counter()
        try:
            answer, repaired = await _ask(provider, request, _body_for(provider, request, plan), hint)
        except UpstreamFailure as exc:
            metrics.upstream_failures.labels(provider.name, exc.reason).inc()
            health.failed(provider.name, retry_after=exc.retry_after, alive=exc.alive)
            logger.warning("provider %r failed: %s", provider.name, exc.logged)
            first_error = first_error or exc
            first_error.headers.pop("x-should-retry", None)  # this one may be well the next time
        except UpstreamRejection as exc:
            logger.warning("provider %r refused: %d", provider.name, exc.provider_status)
            if plan.session is not None and provider.name == plan.session.provider:
                refusal = f"provider answered {exc.provider_status}"
            first_error = first_error or exc
        except ApiError:
            health.answered(provider.name)
            raise
        else:
            stream = "no" if isinstance(answer.body, bytes) else "yes"
            metrics.upstream_seconds.labels(provider.name, stream).observe(time.perf_counter() - started)
            health.answered(provider.name)
            return Served(answer, provider, await routing.record_result(plan, provider, refusal), repaired)
        request = headers.next_attempt(request)
    assert first_error is not None  # noqa: S101 - a plan has at least one candidate
    raise first_error


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
    return await client.call(provider, headers.next_attempt(request), repair.body, hint), repair.removed


def affinity_hint(identity: Identity) -> str | None:
    """Return what a provider gets as a cache hint: an HMAC of the session's id, never the id; None without one."""
    if identity.session_id is None:
        return None
    return hmac.digest(settings.SENTINEL_ID_KEY, b"hint\0" + identity.session_id.encode(), "sha256").hex()[:32]


def _body_for(provider: Provider, request: ApiRequest, plan: routing.Plan) -> Body:
    """Return the body for one provider: its own name of the model, its hint, no fields that are for the gateway."""
    body, changes = request.body, dict[str, bytes | None].fromkeys(SESSION_FIELDS)
    field = provider.affinity_field
    if field is not None and request.api.name in HINTED and request.api.binds:  # no count of tokens
        changes.pop(field, None)
        if field not in body.fields and (hint := affinity_hint(plan.identity)) is not None:
            changes[field] = msgspec.json.encode(hint)
    changes["model"] = msgspec.json.encode(provider.upstream_names.get(plan.model, plan.model))
    return body.replace(changes)
