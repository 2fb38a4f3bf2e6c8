"""Count the failed attempts of a request, and whether its answer proves them the providers' fault."""

from __future__ import annotations

import asyncio
import logging
from functools import partial

from sentinel_project.gateway import metrics
from sentinel_project.gateway.apis.base import ApiRequest
from sentinel_project.gateway.errors import ApiError
from sentinel_project.gateway.providers.config import Provider
from sentinel_project.gateway.providers.failures import Fault
from sentinel_project.gateway.providers.health import Health
from sentinel_project.gateway.providers.load import Gate
from sentinel_project.gateway.providers.reload import configured
from sentinel_project.gateway.providers.slots import Failure
from sentinel_project.gateway.replies import call_at_end
from sentinel_project.gateway.routing import plan as routing
from sentinel_project.gateway.routing.errors import unavailable
from sentinel_project.gateway.routing.reasons import Spill
from sentinel_project.gateway.shutdown import stopping
from sentinel_project.gateway.upstream import client, errors
from sentinel_project.gateway.upstream.errors import UpstreamFailure
from sentinel_project.gateway.upstream.relay import Progress

logger = logging.getLogger(__name__)

HANGS_SECONDS = 30.0
"""How long a client has waited for the first byte of a stream when its leaving counts as a failure of the provider."""


class FailedAttempts:
    """The failed attempts of one request.

    `first` is the error for the client if no provider answers, `away` why the conversation's own provider does not.
    """

    def __init__(self, plan: routing.Plan, health: Health) -> None:
        self.first: ApiError | None = None
        self.away = plan.away
        self._plan, self._health = plan, health
        self._conversation = plan.identity.session_id or f"owner {plan.owner}"
        self._doubtful: list[tuple[Provider, Failure]] = []

    def add_full(self, provider: Provider) -> None:
        """Record that a provider had no room for an attempt."""
        self.first = self.first or _no_room(provider, self._plan)
        if self._plan.is_own(provider):
            self.away = Spill.FULL

    def add(self, provider: Provider, error: UpstreamFailure, *, is_slow: bool, is_last: bool) -> None:
        """Record a failed attempt; one that may be the request's own fault counts later, one that `is_slow` never.

        `is_last`: a plain request ran out of time. No other provider is asked, which could show who was at fault.
        """
        metrics.upstream_failures.labels(provider.name, error.reason).inc()
        logger.warning("provider %r failed: %s", provider.name, error.logged)
        if error.is_timeout:
            metrics.upstream_abandoned.labels(provider.name).inc()
        failure = self._failure(error)
        if failure.is_certain or is_last:
            self._count(provider, failure)
        elif not is_slow:
            self._doubtful.append((provider, failure))
        error.__traceback__ = None  # its frames hold this object and the request's body
        self.first = self.first or error
        if self._plan.is_own(provider):
            self.away = Spill.SLOW if is_slow else Spill.FAILED
        if error.failure_class.fault is not Fault.ACCOUNT:
            self.first.headers.pop("x-should-retry", None)  # it may succeed the next time

    def add_abandoned(self, provider: Provider, exc: BaseException, request: ApiRequest, seconds: float) -> None:
        """Record an attempt that the client gave up; a stream without a byte after `HANGS_SECONDS` ran out of time.

        Otherwise clients that give up sooner than the gateway would meet a provider that hangs again and again.
        """
        metrics.upstream_abandoned.labels(provider.name).inc()
        has_left = isinstance(exc, asyncio.CancelledError) and not stopping.caused(exc)
        if has_left and request.is_stream and seconds >= HANGS_SECONDS:
            self._count(provider, self._failure(errors.failure(provider, TimeoutError())))

    def observe(self, provider: Provider, answer: client.Answer, begun: float, gate: Gate) -> None:
        """Count an answer, a stream's when its content begins; at its end leave the gate, and count how it ended."""
        progress, on_answer = answer.progress, partial(self._record_answer, provider, begun)
        if progress is None or progress.has_content:
            on_answer()
        else:
            progress.on_content = on_answer
        call_at_end(answer.body, partial(self._end, provider, progress, gate))

    def _record_answer(self, provider: Provider, begun: float) -> None:
        """Count an answer, and the doubtful failures of other providers: the request was not at fault."""
        self._health.answered(provider.name, self._plan.model, begun)
        for failed, failure in self._doubtful:
            self._count(failed, failure)
        routing.load.gate(provider.name).wake()  # it may have been cooling down until now

    def _end(self, provider: Provider, progress: Progress | None, gate: Gate) -> None:
        """Leave the gate, and count how a stream ended: no other provider can then show who was at fault."""
        gate.leave()
        if progress is None:
            return
        error = progress.failure
        if error is None and progress.is_complete:
            self._health.completed(provider.name)
        elif error is not None and not error.is_of_request:
            self._count(provider, self._failure(error), has_content=progress.has_content)

    def _count(self, provider: Provider, failure: Failure, *, has_content: bool = False) -> None:
        """Count a failure, unless the provider's URL or key has been changed since the request was planned."""
        if (provider.name, provider.endpoint) in {(each.name, each.endpoint) for each in configured()}:
            self._health.failed(provider.name, self._plan.model, failure, has_content=has_content)

    def _failure(self, error: UpstreamFailure) -> Failure:
        return Failure(error.failure_class.cools, error.retry_after, error.is_alive, self._conversation, error.summary)


def _no_room(provider: Provider, plan: routing.Plan) -> ApiError:
    """Return the error for a full provider."""
    if routing.health.is_cooling(provider.name, plan.model):
        return unavailable(plan.model, [])
    message = f"All providers of the model {plan.model!r} are busy"
    return ApiError(429, message, type="rate_limit_error", code="rate_limit_exceeded", headers={"Retry-After": "1"})
