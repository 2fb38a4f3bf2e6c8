"""Send a request to the providers of its plan until one answers."""

from __future__ import annotations

import asyncio
import hmac
import logging
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import NamedTuple, cast

import msgspec

from sentinel_project.gateway.apis.base import ApiRequest
from sentinel_project.gateway.apis.body import Body
from sentinel_project.gateway.conf import settings
from sentinel_project.gateway.errors import ApiError
from sentinel_project.gateway.providers.config import Provider
from sentinel_project.gateway.providers.load import Gate
from sentinel_project.gateway.replies import call_at_end
from sentinel_project.gateway.routing import process
from sentinel_project.gateway.routing.attempts import Attempts
from sentinel_project.gateway.routing.errors import unavailable
from sentinel_project.gateway.routing.observer import TurnObserver
from sentinel_project.gateway.routing.plan import Plan, is_ready_soon
from sentinel_project.gateway.routing.result import RouteResult, note_answer, record_result, unconfirmed, undo
from sentinel_project.gateway.upstream import client, headers
from sentinel_project.gateway.upstream.errors import UpstreamFailure
from sentinel_project.gateway.upstream.relay import Progress
from sentinel_project.gateway.upstream.usage import stream_options
from sessions_sticky.identity import Identity

logger = logging.getLogger(__name__)

SESSION_FIELDS = ("conversation_id", "session_id", "litellm_session_id")
"""Body fields for gateways; removed, because strict providers refuse unknown fields."""
FAIL_OPEN_REQUESTS = 4
"""Maximum requests in flight to a provider that is asked although it cools down, per process."""


class Served(NamedTuple):
    """An answer, the provider that gave it, how the conversation came to it, and who observes the turn.

    `repaired` names what was removed from the request so that the provider accepts it; None when nothing was.
    """

    answer: client.Answer
    provider: Provider
    result: RouteResult
    repaired: str | None
    turn: TurnObserver


async def dispatch(plan: Plan, request: ApiRequest) -> Served:
    """Ask the candidates in order, and return the first answer.

    Raises `ApiError`: that of the first candidate when all fail or have no room, or at once an error that is the
    request's own. A binding that this request made, and that answered no other, is removed again if it raises anything.
    """
    end = process.load.begin(plan.model, plan.session.id if plan.session is not None else None)
    if plan.session is not None and plan.is_new:
        unconfirmed.add(plan.session.id)
    turn = TurnObserver(plan, request)
    try:
        served = await _first_answer(plan, request, turn)
    except BaseException as exc:
        end()
        turn.fail(exc)
        await asyncio.shield(undo(plan))
        raise
    progress = served.answer.progress
    if progress is None or progress.has_content:
        note_answer(plan, served.provider)
    else:
        answer = served.answer._replace(body=_until_content(plan, served, progress))
        served = served._replace(answer=answer)
    call_at_end(served.answer.body, end)
    return served


async def _until_content(plan: Plan, served: Served, progress: Progress) -> AsyncGenerator[bytes]:
    """Pass on a stream that has had no content yet; remove the binding that its request made if none comes."""
    is_answered = False
    try:
        async with aclosing(cast("AsyncGenerator[bytes]", served.answer.body)) as chunks:
            async for chunk in chunks:
                if progress.has_content and not is_answered:
                    is_answered = True
                    note_answer(plan, served.provider)
                yield chunk
    finally:
        if not is_answered:
            await asyncio.shield(undo(plan._replace(session=served.result.session or plan.session)))


async def _first_answer(plan: Plan, request: ApiRequest, turn: TurnObserver) -> Served:
    attempts = Attempts(plan, request)
    for provider in plan.candidates:
        gate = process.load.gates[provider.name]
        if not _enter_at_once(gate, provider, plan) and not await _enter(gate, provider, plan):
            attempts.add_full(provider)
            continue
        if attempts.has_begun and not await attempts.may_repeat(gate):
            break
        attempt = attempts.begin(provider, gate)
        try:
            hint = affinity_hint(plan.identity) if provider.affinity_header else None
            answer, repaired = await _ask(provider, request, _body_for(provider, request, plan), hint, attempt.until)
        except UpstreamFailure as exc:
            attempts.failed(attempt, exc)
            turn.failed(provider, exc)
            if not exc.is_unsent and not request.api.may_repeat(request.body):
                raise
            request = headers.next_attempt(request)
        except BaseException as exc:
            attempts.ended(attempt, exc)
            raise
        else:
            seconds = attempts.answered(attempt, answer)
            result = await record_result(plan, provider, attempts.spill_reason)
            turn.answered(provider, result, seconds)
            return Served(answer, provider, result, repaired, turn)
    assert attempts.first is not None  # noqa: S101 - a plan has at least one candidate
    if plan.is_pinned and isinstance(attempts.first, UpstreamFailure) and attempts.first.is_unsent:
        # It comes back, and no other can serve.
        raise unavailable(plan.model, plan.candidates, is_pinned=True) from attempts.first
    raise attempts.first


def _enter_at_once(gate: Gate, provider: Provider, plan: Plan) -> bool:
    """Enter the gate of a provider that does not cool down and has room: most requests need not wait."""
    return not process.health.is_cooling(provider.name, plan.model) and gate.enter_at_once(process.load.room(provider))


async def _enter(gate: Gate, provider: Provider, plan: Plan) -> bool:
    """Enter a provider's gate; wait for the conversation's own provider, and for one that cools down like all others.

    A provider that cools down only since the request was planned is on trial: one request tries it.
    """
    health, model = process.health, plan.model

    def trials() -> int:
        has_others = any(not health.is_cooling(each.name, model) for each in plan.candidates)
        return 1 if has_others else FAIL_OPEN_REQUESTS

    def limit() -> float:
        room = process.load.room(provider)
        return min(room, trials()) if health.is_cooling(provider.name, model) else room

    is_own = plan.is_own(provider)
    if is_own and not await _is_ready(provider, plan):
        return False
    waits = is_own or (health.is_cooling(provider.name, model) and trials() > 1)
    wait = settings.SENTINEL_QUEUE_SECONDS if waits else 0
    return await gate.enter(plan.owner, limit, wait_seconds=wait, max_queued=process.load.room(provider))


async def _is_ready(provider: Provider, plan: Plan) -> bool:
    """Wait as long as the provider asked for, if that is short; return whether it may be asked now.

    Waiting requests ask at different moments; otherwise the provider would refuse them again.
    """
    if not is_ready_soon(provider, plan.model):
        return True
    left = process.health.seconds_left(provider.name, plan.model)
    await asyncio.sleep(min(left + random.uniform(0, left), settings.SENTINEL_QUEUE_SECONDS))  # noqa: S311 - no secret
    return not process.health.has_stated_time(provider.name, plan.model)


async def _ask(
    provider: Provider, request: ApiRequest, body: Body, hint: str | None, until: client.Until
) -> tuple[client.Answer, str | None]:
    """Ask a provider; if it refuses another account's reasoning, retry once without it."""
    try:
        return await client.call(provider, request, body, hint, until), None
    except ApiError as exc:
        repair = request.api.repair(body, exc)
        if repair is None:
            raise
    return await client.call(provider, headers.next_attempt(request), repair.body, hint, until), repair.removed


def affinity_hint(identity: Identity) -> str | None:
    """Return the cache hint for a provider: an HMAC of the session's id; None without one."""
    if identity.session_id is None:
        return None
    return hmac.digest(settings.SENTINEL_ID_KEY, b"hint\0" + identity.session_id.encode(), "sha256").hex()[:32]


def _body_for(provider: Provider, request: ApiRequest, plan: Plan) -> Body:
    """Return the body for one provider: its own name of the model, its hint, no fields that are for the gateway."""
    body, changes = request.body, dict[str, bytes | None].fromkeys(SESSION_FIELDS)
    field = provider.affinity_field
    if field is not None and request.api.takes_hint and request.api.binds:  # no count of tokens
        changes.pop(field, None)
        if field not in body.fields and (hint := affinity_hint(plan.identity)) is not None:
            changes[field] = msgspec.json.encode(hint)
    if (options := stream_options(request)) is not None:
        changes["stream_options"] = options
    if plan.model:
        changes["model"] = msgspec.json.encode(provider.upstream_names.get(plan.model, plan.model))
    return body.replace(changes)
