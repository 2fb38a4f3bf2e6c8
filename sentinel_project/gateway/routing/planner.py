"""Make the plan of a request; and the plans of those that refer to upstream objects, which only some providers have."""

from __future__ import annotations

import uuid
from functools import partial

from sentinel_project.gateway.apis.base import ApiRequest
from sentinel_project.gateway.errors import ApiError
from sentinel_project.gateway.providers.current import providers
from sentinel_project.gateway.routing import binding, process
from sentinel_project.gateway.routing.errors import unavailable, unknown_model
from sentinel_project.gateway.routing.objects import Placement
from sentinel_project.gateway.routing.plan import Plan, eligible, plan_route, plan_unbound, providers_for
from sentinel_project.gateway.routing.reasons import Spill
from sentinel_project.gateway.tracing import trace_resolve
from sessions_sticky import rendezvous
from sessions_sticky.identity import Identity


@trace_resolve
async def plan_request(identity: Identity, request: ApiRequest, owner: str, placement: Placement | None) -> Plan:
    """Return the providers for a request. `placement` is None when it refers to no upstream objects."""
    model, api, only = request.model, request.api.name, placement.providers if placement else None
    if not model:
        return without_failover(plan_any_model(identity, owner=owner, api=api, only=only))
    if only is not None:
        identity = identity._replace(binds=identity.binds and request.api.binds)
        return await plan_pinned(identity, model=model, owner=owner, api=api, only=only)
    plan = await (plan_route if request.api.binds else plan_unbound)(identity, model=model, owner=owner, api=api)
    return plan if placement is None else without_failover(plan)


async def plan_pinned(identity: Identity, *, model: str, owner: str, api: str, only: frozenset[str]) -> Plan:
    """Return the providers for a request that only those named in `only` can serve.

    The conversation's binding stays as it is; a new one is bound to the provider that is asked first. Raises `ApiError`
    as `plan_route` does.
    """
    serving = providers_for(model, api)
    if not serving:
        raise unknown_model(model)
    able = [provider for provider in serving if provider.name in only]
    if not able:
        message = f"The model {model!r} does not exist at the provider that has the stored objects of the request"
        raise ApiError(404, message, param="model", code="model_not_found")
    candidates = eligible(able, model)
    if not candidates:
        raise unavailable(model, able, is_pinned=True)
    make, bound = partial(Plan, identity, owner, api, is_pinned=True), None
    if identity.session_id is not None and identity.binds:
        bound = await binding.resolve(identity, provider=candidates[0].name, model=model, owner=owner)
    if bound is None:
        return make(model, candidates, None, "none")
    session = bound.session
    if session.model != model and any(session.model in provider.models for provider in candidates):
        model = session.model
        candidates = [provider for provider in candidates if model in provider.models]
    candidates.sort(key=lambda provider: provider.name != session.provider)
    spill_reason = None
    if candidates[0].name != session.provider:
        spill_reason = Spill.COOLING if session.provider in only else Spill.PINNED
    return make(model, candidates, session, bound.outcome, is_new=bound.is_new, spill_reason=spill_reason)


def plan_any_model(identity: Identity, *, owner: str, api: str, only: frozenset[str] | None = None) -> Plan:
    """Return the providers for a request without a model: those named in `only`, None for all that support the API.

    Raises `ApiError`: 404 when there are none, 503 when none can serve now.
    """
    able = [provider for provider in providers() if api in provider.apis and (only is None or provider.name in only)]
    if not able:
        raise ApiError(404, f"No provider supports the API {api!r}", code="unknown_url")
    well = {provider.name: provider for provider in able if not process.health.seconds_left(provider.name)}
    weights = {name: provider.weight if only is None else 1 for name, provider in well.items()}
    ranking = [well[name] for name in rendezvous(identity.ranking_id or uuid.uuid4().hex, weights)]
    if not ranking:
        raise unavailable("", able, is_pinned=True)
    return Plan(identity, owner, api, "", ranking, None, "none", is_pinned=only is not None)


def without_failover(plan: Plan) -> Plan:
    """Return a plan that asks one provider only: the bound one, else the first. Raises `ApiError` 503 if it cannot."""
    candidates = plan.candidates[:1]
    if plan.session is not None and plan.move_reason is None:
        able = providers_for(plan.model, plan.api)
        bound = [provider for provider in able if provider.name == plan.session.provider]
        candidates = [each for each in plan.candidates if each in bound]
        if not candidates:
            raise unavailable(plan.model, bound or able, is_pinned=True)
    return plan._replace(candidates=candidates, is_pinned=True)
