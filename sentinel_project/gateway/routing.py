"""Which provider serves a request, and why."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from typing import NamedTuple

from sentinel_project.gateway.errors import ApiError
from sentinel_project.gateway.providers import Provider
from sessions_sticky import Session, SessionConflict, SessionOwnerMismatch, rendezvous, sessions

logger = logging.getLogger(__name__)

RETRY_AFTER_SECONDS = 30


class Route(NamedTuple):
    """Where a request goes. `expires_in` is the session's idle time in seconds; None without a session."""

    provider: Provider
    model: str
    outcome: str
    expires_in: int | None = None


def eligible(providers: Sequence[Provider], model: str) -> list[Provider]:
    """Return the providers that may serve a model. The one answer for every path: first bind, hit and rebind."""
    return [provider for provider in providers if model in provider.models]


async def route(providers: Sequence[Provider], *, conversation_id: str | None, model: str, owner: str) -> Route:
    """Choose the provider and model: the session's where there is one, else a fresh choice that becomes it.

    `conversation_id` None is a request of its own: nothing is bound. Raises `ApiError`: 404 for a model that no
    provider serves, 403 for another owner's conversation, 503 when nobody can serve the session's model.
    """
    candidates = eligible(providers, model)
    if not candidates:
        raise ApiError(404, f"The model {model!r} does not exist here", param="model", code="model_not_found")
    if conversation_id is None:
        return Route(_any(candidates, model), model, "none")
    first = _ranked(conversation_id, candidates, model)
    try:
        session, outcome = await sessions.aresolve(conversation_id, provider=first.name, model=model, external_id=owner)
    except SessionOwnerMismatch as exc:
        headers = {"x-should-retry": "false"}
        message, code = "The conversation belongs to another owner", "conversation_owner_mismatch"
        raise ApiError(403, message, type="permission_error", code=code, headers=headers) from exc
    if session.model != model:
        logger.info("conversation %r keeps model %r (asked for %r)", conversation_id, session.model, model)
    return await _served(providers, session, outcome.value)


async def _served(providers: Sequence[Provider], session: Session, outcome: str) -> Route:
    """Route to the session's provider; rebind first when it is no longer configured for the session's model."""
    while True:
        candidates = eligible(providers, session.model)
        if provider := next((each for each in candidates if each.name == session.provider), None):
            return Route(provider, session.model, outcome, sessions.ttl_seconds)
        moved_to = _ranked(session.id, candidates, session.model)
        try:
            session = await sessions.arebind(
                session, provider=moved_to.name, model=session.model, reason="provider not configured"
            )
        except SessionConflict as conflict:
            if conflict.current is None:
                raise _nobody(session.model) from conflict
            session = conflict.current  # another worker has moved it; follow
        outcome = "rebound"


def _ranked(conversation_id: str, candidates: Sequence[Provider], model: str) -> Provider:
    """The first of the rendezvous ranking, on which all workers agree."""
    ranking = rendezvous(conversation_id, {provider.name: provider.weight for provider in candidates})
    if not ranking:
        raise _nobody(model)
    return next(provider for provider in candidates if provider.name == ranking[0])


def _any(candidates: Sequence[Provider], model: str) -> Provider:
    weights = [provider.weight for provider in candidates]
    if not sum(weights):
        raise _nobody(model)
    return random.choices(candidates, weights)[0]  # noqa: S311 - a choice of provider is no secret


def _nobody(model: str) -> ApiError:
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
    message = f"No provider serves the model {model!r} at the moment"
    return ApiError(503, message, type="service_unavailable", code="no_provider", headers=headers)
