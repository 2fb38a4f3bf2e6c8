"""What becomes of a conversation's binding after its request."""

from __future__ import annotations

import logging
from typing import NamedTuple

from sentinel_project.gateway.providers.config import Provider
from sentinel_project.gateway.routing import binding, process
from sentinel_project.gateway.routing.plan import Plan, providers_for
from sentinel_project.gateway.routing.reasons import FIRST_FAILED, Spill
from sessions_sticky import (
    Session,
    SessionConflict,
    SessionNotSupported,
    SessionStoreUnavailable,
    UnknownProvider,
    rendezvous,
)
from sessions_sticky.turns import REBOUND, SPILLED

logger = logging.getLogger(__name__)


unconfirmed: set[str] = set()
"""Sessions that a request in flight in this process made, and whose provider has answered no request yet."""


class RouteResult(NamedTuple):
    """How a conversation was routed. `reason` is that of a rebind or a spill, `session` that of a rebind, else None."""

    outcome: str
    reason: str | None = None
    session: Session | None = None


async def record_result(plan: Plan, answered: Provider, spill_reason: Spill | None) -> RouteResult:
    """Keep the binding, or move it to the provider that answered (a new binding always).

    `spill_reason` is why another provider than the conversation's own may have answered.
    """
    session = plan.session
    if session is None:
        if plan.outcome == "ranked":
            # Every worker ranks the same provider first if all are healthy.
            weights = {each.name: each.weight for each in providers_for(plan.model, plan.api)}
            if [answered.name] != rendezvous(str(plan.identity.ranking_id), weights)[:1]:
                await binding.hold(plan.identity, provider=answered.name, model=plan.model, owner=plan.owner)
        return RouteResult(plan.outcome)
    if answered.name == session.provider and plan.model == session.model:
        return RouteResult(plan.outcome)
    reason = plan.move_reason or (FIRST_FAILED if plan.is_new else None)
    if reason is None:
        if spill_reason is not None and spill_reason.is_failure:
            process.warmth.note_failing([session.provider])
        return RouteResult(SPILLED, spill_reason)
    try:
        moved = await plan.manager.arebind(session, provider=answered.name, model=plan.model, reason=reason)
    except (SessionConflict, SessionNotSupported, SessionStoreUnavailable, UnknownProvider) as exc:
        logger.info("conversation %r was not rebound (%s): %s", session.id, reason, exc)
        return RouteResult(SPILLED, Spill.NOT_MOVED)
    return RouteResult(REBOUND, reason, moved)


def note_answer(plan: Plan, answered: Provider) -> None:
    """Note that a provider has answered, so that a new binding to it stays."""
    if plan.session is not None and (plan.is_new or plan.is_own(answered)):
        unconfirmed.discard(plan.session.id)


async def undo(plan: Plan) -> None:
    """Remove the new binding of a request without an answer, unless it has changed or answered another request."""
    if plan.session is None or not plan.is_new or plan.session.id not in unconfirmed:
        return
    unconfirmed.discard(plan.session.id)
    try:
        await plan.manager.adelete_unchanged(plan.session)
    except (SessionConflict, SessionStoreUnavailable) as exc:
        logger.info("conversation %r stays bound to %r: %s", plan.session.id, plan.session.provider, exc)
