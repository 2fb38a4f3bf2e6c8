"""Collect the data of a request's turn: one call at the first byte, one at the end."""

from __future__ import annotations

import asyncio

from sentinel_project.gateway import clock
from sentinel_project.gateway.apis.base import ApiRequest
from sentinel_project.gateway.conf import settings
from sentinel_project.gateway.errors import CLIENT_CLOSED_REQUEST, ApiError, outcome_of
from sentinel_project.gateway.providers.config import Provider
from sentinel_project.gateway.routing.plan import Plan
from sentinel_project.gateway.routing.result import RouteResult
from sentinel_project.gateway.shutdown import stopping
from sentinel_project.gateway.turns.recorder import recorder
from sentinel_project.gateway.upstream.errors import UpstreamFailure
from sentinel_project.gateway.upstream.usage import UsageReader, counts_tokens, stream_options
from sessions_sticky import Attempt, Turn, Usage
from sessions_sticky.turns import REBOUND, SPILLED, UNANSWERED


class TurnObserver:
    """Collects one turn. A request that computes no answer (`binds` is False) is not a turn, and is not recorded."""

    def __init__(self, plan: Plan, request: ApiRequest) -> None:
        self._plan = plan
        self._attempts: list[Attempt] = []
        self._provider = plan.candidates[0]
        self._outcome, self._status, self._reason = UNANSWERED, 0, ""
        self._first_byte_ms: int | None = None
        self._at, self._ended_at = clock.now(), 0.0
        self._is_recorded = request.api.binds and settings.SENTINEL_TRAIL_TURNS > 0
        self._slot = request.slot if request.api.binds and counts_tokens(request) else None
        self._reader = UsageReader(request.api, drops_event=stream_options(request) is not None)

    def failed(self, provider: Provider, error: UpstreamFailure) -> None:
        """Note an attempt that got no answer."""
        code = "" if error.reason == str(error.status) else error.reason
        self._attempts.append(Attempt(provider.name, error.status, code))

    def answered(self, provider: Provider, result: RouteResult, seconds: float) -> None:
        """Note the first byte of an answer."""
        self._provider, self._status = provider, 200
        self._outcome, self._reason = result.outcome, result.reason or ""
        self._first_byte_ms = round(seconds * 1000)

    def take(self, chunk: bytes) -> bytes:
        """Read whole events of a stream; return what of them goes to the client."""
        return self._reader.take(chunk) if self._is_recorded or self._slot is not None else chunk

    def end(self, answer: bytes | None = None) -> None:
        """End the turn; `answer` is a plain one."""
        if answer is not None and (self._is_recorded or self._slot is not None):
            self._reader.read(answer)
        usage = self._reader.usage()
        if self._slot is not None:
            self._slot.add_usage(usage)
        if not self._is_recorded:
            return
        self._ended_at = clock.now()
        decision = self._plan.decision
        if decision is not None and decision.returning is not None:
            decision.returning.end(self._provider.name, usage)
        is_read_next = decision is not None or self._outcome in (SPILLED, REBOUND)
        recorder.put(self._turn(usage), soon=is_read_next)

    def fail(self, error: BaseException) -> None:
        """End a turn without an answer."""
        self._status = _status_of(error)
        self._outcome = outcome_of(self._status)
        self.end()

    def _turn(self, usage: Usage | None) -> Turn:
        plan, provider = self._plan, self._provider
        return Turn(
            conversation_id=plan.identity.session_id,
            at=self._at,
            ended_at=self._ended_at,
            provider=provider.name,
            model=plan.model,
            outcome=self._outcome,
            reason=self._reason,
            owner=plan.owner,
            bound_provider=plan.session.provider if plan.session else "",
            source=plan.identity.source,
            status=self._status,
            attempts=tuple(self._attempts),
            first_byte_ms=self._first_byte_ms,
            usage=usage,
            cache_seconds=provider.cache_seconds,
            price=provider.prices.get(plan.model),
        )


def record_unrouted(request: ApiRequest, owner: str, status: int) -> None:
    """Record a request that failed because no provider can serve it; not one that is at fault itself."""
    outcome = outcome_of(status)
    if outcome == UNANSWERED and request.api.binds and settings.SENTINEL_TRAIL_TURNS > 0:
        recorder.put(
            Turn(
                conversation_id=None,
                at=clock.now(),
                provider="",
                model=request.model,
                outcome=outcome,
                owner=owner,
                status=status,
            )
        )


def _status_of(error: BaseException) -> int:
    """Return the status that the client gets, as the log has it."""
    if isinstance(error, ApiError):
        return error.status
    if isinstance(error, asyncio.CancelledError):
        return 503 if stopping.caused(error) else CLIENT_CLOSED_REQUEST
    return 500
