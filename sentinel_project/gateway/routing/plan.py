"""Choose the providers of a request and their order."""

from __future__ import annotations

import logging
import uuid
from functools import partial
from typing import NamedTuple

from sentinel_project.gateway.conf import settings
from sentinel_project.gateway.providers import controls
from sentinel_project.gateway.providers.config import Provider
from sentinel_project.gateway.providers.controls import Control
from sentinel_project.gateway.providers.current import providers
from sentinel_project.gateway.routing import binding, process, reasons
from sentinel_project.gateway.routing.errors import unavailable, unknown_model
from sentinel_project.gateway.routing.reasons import Spill
from sentinel_project.gateway.routing.warmth import Decision
from sessions_sticky import Outcome, Session, SessionManager, SessionStoreUnavailable, rendezvous, sessions
from sessions_sticky.identity import Identity

logger = logging.getLogger(__name__)


class Plan(NamedTuple):
    """The providers to ask, first to last, and the model to ask for.

    `session` None: nothing is bound. `outcome`: what to report if the bound provider answers. `move_reason`: why the
    conversation moves to the provider that answers; None while it stays. `is_pinned`: no other provider can serve the
    request. `is_new`: this request made the binding. `decision`: how to route a conversation if the prompt cache of its
    provider is in doubt, else None. `spill_reason`: why its own provider is not asked first, None if it is; without
    effect if there is a `move_reason`.
    """

    identity: Identity
    owner: str
    api: str
    model: str
    candidates: list[Provider]
    session: Session | None
    outcome: str
    move_reason: str | None = None
    is_pinned: bool = False
    is_new: bool = False
    decision: Decision | None = None
    spill_reason: Spill | None = None

    @property
    def manager(self) -> SessionManager:
        """The manager with the idle time for the kind of the conversation."""
        return binding.manager_for(self.identity)

    def is_own(self, provider: Provider) -> bool:
        """Return whether the conversation is bound to a provider."""
        return self.session is not None and provider.name == self.session.provider


def providers_for(model: str, api: str) -> list[Provider]:
    """Return the providers that are configured for a model and an API."""
    return [provider for provider in providers() if model in provider.models and api in provider.apis]


def eligible(serving: list[Provider], model: str) -> list[Provider]:
    """Return those of the providers configured for a model that may serve it now: they are not cooling down.

    Every path asks here: first bind, hit, spill-over and rebind.
    """
    return [provider for provider in serving if not process.health.is_cooling(provider.name, model)]


def is_ready_soon(provider: Provider, model: str) -> bool:
    """Return whether a provider asked for a wait that is short enough for its conversations."""
    left = process.health.seconds_left(provider.name, model)
    return 0 < left <= settings.SENTINEL_QUEUE_SECONDS and process.health.has_stated_time(provider.name, model)


def fail_open(model: str, api: str, bound: str | None = None) -> list[Provider]:
    """Return the provider to ask if all of a model cool down: the one that is due first.

    Raises `ApiError`: 429 when each of them cools down until a time that it stated, 503 when the only ones that do not
    cool down take no new conversations. `bound` does take the conversation's requests.
    """
    serving = [provider for provider in providers_for(model, api) if provider.weight or provider.name == bound]
    asked = [provider for provider in serving if not process.health.has_stated_time(provider.name, model)]
    if not asked:
        raise unavailable(model, serving)
    return [min(asked, key=lambda provider: process.health.seconds_left(provider.name, model))]


async def plan_route(identity: Identity, *, model: str, owner: str, api: str) -> Plan:
    """Bind the conversation, or find its binding, and return the providers that may serve it.

    An identity that does not bind is only ranked: nothing is read or written. Raises `ApiError`: 404 for a model that
    no provider serves by this API, 403 for another owner's named conversation, 429 or 503 when no provider can serve
    now.
    """
    serving = providers_for(model, api)
    if not serving:
        raise unknown_model(model)
    make = partial(Plan, identity, owner, api)
    able = eligible(serving, model)
    ranking = _ranked(identity.ranking_id or uuid.uuid4().hex, able)
    if identity.session_id is None or not identity.binds:
        return make(model, ranking or fail_open(model, api), None, "ranked" if identity.session_id else "none")
    proposed = ranking[0].name if ranking else await _known_provider(identity, model, api)
    bound = await binding.resolve(identity, provider=proposed, model=model, owner=owner)
    if bound is None:
        return make(model, ranking or fail_open(model, api), None, "none")
    session = bound.session
    move_reason = _move_reason(session)
    if session.model != model and (serving_its_model := providers_for(session.model, api)):
        logger.info("conversation %r keeps model %r (asked for %r)", session.id, session.model, model)
        model, serving = session.model, serving_its_model
        able = eligible(serving, model)
        ranking = _ranked(session.id, able)
    own = [each for each in serving if each.name == session.provider]
    waited_for = [each for each in own if each not in able and is_ready_soon(each, model)]
    candidates = _from_bound(session.provider, able + waited_for, ranking) or fail_open(model, api, session.provider)
    decision = None
    # A conversation whose provider does not support the API spills over. It never moves for that.
    if move_reason is None and bound.outcome == Outcome.HIT and own:
        manager = binding.manager_for(identity)
        decision = await process.warmth.decide(session, manager, candidates, providers(), process.health)
    if decision is not None:
        candidates.sort(key=lambda each: each.name != decision.first)
        move_reason = None if controls.is_set(session.provider, Control.HOLD) else decision.move_reason
    if identity.source == "content" and process.load.is_bucket(session.id):
        overfull = process.load.overfull(candidates)
        candidates.sort(key=lambda each: each.name in overfull)
    speaks_api = bool(own) and model == session.model
    spill_reason = _spill_reason(session, candidates, decision) if speaks_api else Spill.API
    return make(
        model,
        candidates,
        session,
        bound.outcome,
        move_reason,
        is_new=bound.is_new,
        decision=decision,
        spill_reason=spill_reason,
    )


async def plan_unbound(identity: Identity, *, model: str, owner: str, api: str) -> Plan:
    """Return the providers for a request that binds nothing, the bound one first.

    Raises `ApiError`: 404 for a model that no provider serves by this API, 429 or 503 when no provider can
    serve now.
    """
    session = await binding.find(identity, owner=owner)
    if session is not None and providers_for(session.model, api):
        model = session.model
    serving = providers_for(model, api)
    if not serving:
        raise unknown_model(model)
    able, bound = eligible(serving, model), session.provider if session else None
    ranking = _ranked(identity.ranking_id or uuid.uuid4().hex, able)
    candidates = _from_bound(bound, able, ranking) or fail_open(model, api, bound)
    return Plan(identity, owner, api, model, candidates, None, "none")


async def _known_provider(identity: Identity, model: str, api: str) -> str:
    """Return the bound provider while none takes new conversations of the model; it may serve another model."""
    session_id = str(identity.session_id)
    try:
        known = await sessions.aget(session_id)
    except SessionStoreUnavailable:
        # This process may remember it; if not, choose as if no provider were cooling down or drained.
        weights = {provider.name: provider.weight for provider in providers_for(model, api)}
        return (rendezvous(session_id, weights) or rendezvous(session_id, dict.fromkeys(weights, 1)))[0]
    return known.provider if known else fail_open(model, api)[0].name


def _spill_reason(session: Session, candidates: list[Provider], decision: Decision | None) -> Spill | None:
    """Return why a session's provider is not the first that is asked; None if it is."""
    own = session.provider
    if candidates[0].name == own:
        return None
    if not any(each.name == own for each in candidates):
        return Spill.COOLING
    if decision is not None and decision.first is not None:
        return Spill.WARM
    return Spill.SLOW if process.load.paces[own].is_slow(process.health.now()) else Spill.LOAD


def _move_reason(session: Session) -> str | None:
    serving = [provider.name for provider in providers() if session.model in provider.models]
    if not serving:
        return reasons.MODEL_GONE
    if session.provider not in serving:
        return reasons.PROVIDER_GONE
    if process.health.is_lost(session.provider) and not controls.is_set(session.provider, Control.HOLD):
        return reasons.LOST
    return None


def _ranked(ranking_id: str, able: list[Provider]) -> list[Provider]:
    """Return those of the eligible providers that take new conversations, in the order on which all workers agree.

    Those that are slow, or have more than their share of the load of this process, go to the end.
    """
    by_name = {provider.name: provider for provider in able}
    names = rendezvous(ranking_id, {name: provider.weight for name, provider in by_name.items()})
    ranking = [by_name[name] for name in names]
    overfull, now = process.load.overfull(able), process.health.now()
    slow = {name for name in names if process.load.paces[name].is_slow(now)}
    if overfull or slow:
        ranking.sort(key=lambda each: (each.name in slow, each.name in overfull))
    return ranking


def _from_bound(bound: str | None, able: list[Provider], ranking: list[Provider]) -> list[Provider]:
    """Return the bound provider if it is eligible, then the ranking, those of its account first.

    Providers of one account share caches and reasoning. A bound provider that is slow comes last.
    """
    own = [provider for provider in able if provider.name == bound]
    account = next((provider.account for provider in own or providers() if provider.name == bound), None)
    others = [provider for provider in ranking if provider.name != bound]
    others.sort(key=lambda each: each.account != account)
    own_is_last = bool(own) and process.load.paces[own[0].name].is_slow(process.health.now())
    return others + own if own_is_last else own + others
