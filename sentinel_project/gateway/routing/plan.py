"""Which providers may serve a request, in which order, and what becomes of the conversation's binding."""

from __future__ import annotations

import logging
import math
import uuid
from typing import NamedTuple, NoReturn

from django.conf import settings

from sentinel_project.gateway.errors import ApiError
from sentinel_project.gateway.providers.config import Provider
from sentinel_project.gateway.providers.health import Health
from sentinel_project.gateway.providers.reload import providers
from sessions_sticky import (
    Session,
    SessionConflict,
    SessionNotSupported,
    SessionOwnerMismatch,
    SessionStoreUnavailable,
    rendezvous,
    sessions,
)

logger = logging.getLogger(__name__)

health = Health(settings.SENTINEL_COOLDOWN_SECONDS)


class Plan(NamedTuple):
    """The providers to ask, first to last, and the model to ask for.

    `session` None: the request belongs to no conversation. `outcome` holds if the session's provider answers.
    `move_reason`: why the conversation moves to the provider that answers; None while it stays with its own.
    """

    model: str
    candidates: list[Provider]
    session: Session | None
    outcome: str
    move_reason: str | None = None


class RouteResult(NamedTuple):
    """How a conversation came to its answer. `reason` is that of a rebind, else None."""

    outcome: str
    reason: str | None = None


def providers_for(model: str, api: str) -> list[Provider]:
    """Return the providers that are configured for a model and speak an API."""
    return [provider for provider in providers() if provider.serves(model, api)]


def eligible(model: str, api: str) -> list[Provider]:
    """Return the providers that may serve a model now: configured for it and not cooling down.

    Every path asks here: first bind, hit, spill-over and rebind.
    """
    return [provider for provider in providers_for(model, api) if not health.is_cooling(provider.name)]


async def plan_route(*, conversation_id: str | None, model: str, owner: str, api: str) -> Plan:
    """Bind the conversation, or find its binding, and return the providers that may serve it.

    `conversation_id` None is a request of its own: nothing is bound. Raises `ApiError`: 404 for a model that no
    provider serves by this API, 403 for another owner's conversation, 503 when no provider can serve now.
    """
    if not providers_for(model, api):
        raise unknown_model(model)
    if conversation_id is None:
        return Plan(model, _ranked(uuid.uuid4().hex, model, api) or raise_unavailable(model, api), None, "none")
    ranking = _ranked(conversation_id, model, api)
    proposed = ranking[0].name if ranking else await _known_provider(conversation_id, model, api)
    session, outcome = await _resolve_binding(conversation_id, proposed, model, owner)
    if session.model != model:
        logger.info("conversation %r keeps model %r (asked for %r)", conversation_id, session.model, model)
        ranking = _ranked(conversation_id, session.model, api)
    own = [provider for provider in eligible(session.model, api) if provider.name == session.provider]
    candidates = own + [provider for provider in ranking if provider.name != session.provider]
    candidates = candidates or raise_unavailable(session.model, api)
    return Plan(session.model, candidates, session, outcome, _move_reason(session))


async def record_result(plan: Plan, answered: Provider, refusal: str | None) -> RouteResult:
    """Keep the binding, or move it to the provider that answered.

    `refusal` says that the session's own provider refused to serve it; None when it did not.
    """
    session = plan.session
    if session is None or answered.name == session.provider:
        return RouteResult(plan.outcome)
    reason = plan.move_reason or refusal
    if reason is None:
        return RouteResult("spilled")
    try:
        await sessions.arebind(session, provider=answered.name, model=session.model, reason=reason)
    except (SessionConflict, SessionNotSupported, SessionStoreUnavailable) as exc:
        logger.info("conversation %r was not rebound (%s): %s", session.id, reason, exc)
        return RouteResult("spilled")
    return RouteResult("rebound", reason)


async def _resolve_binding(conversation_id: str, proposed: str, model: str, owner: str) -> tuple[Session, str]:
    try:
        session, outcome = await sessions.aresolve(conversation_id, provider=proposed, model=model, external_id=owner)
    except SessionOwnerMismatch as exc:
        headers = {"x-should-retry": "false"}
        message, code = "The conversation belongs to another owner", "conversation_owner_mismatch"
        raise ApiError(403, message, type="permission_error", code=code, headers=headers) from exc
    return session, str(outcome)


async def _known_provider(conversation_id: str, model: str, api: str) -> str:
    """Return the bound provider while none takes new conversations of the model; it may serve another model."""
    try:
        known = await sessions.aget(conversation_id)
    except SessionStoreUnavailable:
        # It may exist, and this process remember it; if not, it belongs to whom it would without cooldowns and drains.
        weights = {provider.name: provider.weight for provider in providers_for(model, api)}
        return (rendezvous(conversation_id, weights) or rendezvous(conversation_id, dict.fromkeys(weights, 1)))[0]
    return known.provider if known else raise_unavailable(model, api)


def _move_reason(session: Session) -> str | None:
    if session.provider not in [provider.name for provider in providers() if session.model in provider.models]:
        return "provider not configured for the model"
    if health.is_lost(session.provider):
        return "provider gave no sign of life for 90 s"
    return None


def _ranked(conversation_id: str, model: str, api: str) -> list[Provider]:
    """Return the eligible providers that take new conversations, in the order on which all workers agree."""
    by_name = {provider.name: provider for provider in eligible(model, api)}
    ranking = rendezvous(conversation_id, {name: provider.weight for name, provider in by_name.items()})
    return [by_name[name] for name in ranking]


def unknown_model(model: str) -> ApiError:
    """Return the error for a model that no provider is configured for."""
    return ApiError(404, f"The model {model!r} does not exist here", param="model", code="model_not_found")


def raise_unavailable(model: str, api: str) -> NoReturn:
    """Raise the `ApiError` for a model that no provider can serve now, with the time until one may."""
    left = [health.seconds_left(provider.name) for provider in providers_for(model, api)]
    wait = math.ceil(min((seconds for seconds in left if seconds > 0), default=settings.SENTINEL_COOLDOWN_SECONDS))
    message = f"No provider serves the model {model!r} at the moment"
    headers = {"Retry-After": str(max(1, wait))}
    raise ApiError(503, message, type="service_unavailable", code="no_provider", headers=headers)
