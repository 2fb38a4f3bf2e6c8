"""The attempts of a request: how many, until when, and what each one says about its provider."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import NamedTuple

from sentinel_project.gateway import metrics
from sentinel_project.gateway.apis.base import ApiRequest
from sentinel_project.gateway.conf import settings
from sentinel_project.gateway.errors import ApiError
from sentinel_project.gateway.providers.config import Provider
from sentinel_project.gateway.providers.current import configured
from sentinel_project.gateway.providers.failures import Fault
from sentinel_project.gateway.providers.health import Health
from sentinel_project.gateway.providers.load import Gate
from sentinel_project.gateway.providers.slots import Failure
from sentinel_project.gateway.replies import call_at_end
from sentinel_project.gateway.routing import process
from sentinel_project.gateway.routing.errors import unavailable
from sentinel_project.gateway.routing.plan import Plan
from sentinel_project.gateway.routing.reasons import Spill
from sentinel_project.gateway.shutdown import stopping
from sentinel_project.gateway.upstream.client import Answer, Until
from sentinel_project.gateway.upstream.errors import UpstreamFailure, failure
from sentinel_project.gateway.upstream.relay import Progress

logger = logging.getLogger(__name__)

STREAM_ATTEMPTS = 3
"""The maximum share of a request's time for one attempt of a stream, so that others get some."""
HANGS_SECONDS = 30.0
"""How long a client has waited for the first byte of a stream when its leaving counts as a failure of the provider."""


class Attempt(NamedTuple):
    """An attempt that has `begun`, a time of the health's clock, and ends at `until`; `gate` is its provider's."""

    provider: Provider
    gate: Gate
    begun: float
    until: Until


class Attempts:
    """The attempts of one request: one deadline for all, and a budget for those after the first.

    The deadline ends at the answer, or a stream's first content. `first` is the error for the client if no provider
    answers, `spill_reason` why the conversation's own provider does not.
    """

    def __init__(self, plan: Plan, request: ApiRequest) -> None:
        self.first: ApiError | None = None
        self.spill_reason = plan.spill_reason
        self._plan, self._request = plan, request
        # What a request shows that does not count for its provider's health is dropped.
        self._health = process.health if request.api.binds else Health(0, lambda: ())
        self._conversation = plan.identity.session_id or f"owner {plan.owner}"
        self._doubtful: list[tuple[Provider, Failure]] = []
        self._made = 0
        self._is_over = self._is_late = False
        self._seconds: float = settings.SENTINEL_UPSTREAM_TIMEOUT_SECONDS
        self._loop = asyncio.get_running_loop()
        self._deadline = self._loop.time() + self._seconds

    def add_full(self, provider: Provider) -> None:
        """Record that a provider had no room for an attempt."""
        model = self._plan.model
        if process.health.is_cooling(provider.name, model):
            error = unavailable(model)
        else:
            busy = f"All providers of the model {model!r} are busy"
            error = ApiError(429, busy, code="rate_limit_exceeded", retry_after=1)
        self.first = self.first or error
        if self._plan.is_own(provider):
            self.spill_reason = Spill.FULL

    @property
    def has_begun(self) -> bool:
        """Whether a provider has been asked: further attempts need `may_repeat`."""
        return self._made > 0

    async def may_repeat(self, gate: Gate) -> bool:
        """Take a further attempt from the budget; if none is left, leave the gate that was entered for it."""
        is_taken = False
        try:
            is_taken = await self._may_repeat()
        finally:
            if not is_taken:
                gate.leave()
        return is_taken

    def begin(self, provider: Provider, gate: Gate) -> Attempt:
        """Begin an attempt at a provider whose gate was entered."""
        self._made += 1
        begun = self._health.begin(provider.name, self._plan.model)
        process.load.paces[provider.name].begin(begun)
        return Attempt(provider, gate, begun, self._until(provider))

    def failed(self, attempt: Attempt, error: UpstreamFailure) -> None:
        """Record a failed attempt; one that may be the request's own fault counts later, one that was slow never.

        A plain request is not repeated after a timeout: it may have been answered, and billed. So no other provider
        shows who was at fault.
        """
        provider = attempt.provider
        attempt.gate.leave()
        self._end()
        self._is_over = self._is_over or (error.is_timeout and not self._request.is_stream)
        is_slow = error.is_timeout and self._record_pace(attempt)
        metrics.upstream_failures.labels(provider.name, error.reason).inc()
        logger.warning("provider %r failed: %s", provider.name, error.logged)
        if error.is_timeout:
            metrics.upstream_abandoned.labels(provider.name).inc()
        failed = self._failure(error)
        if failed.is_certain or self._is_over:
            self._count(provider, failed)
        elif not is_slow:
            self._doubtful.append((provider, failed))
        error.__traceback__ = None  # its frames hold this object and the request's body
        self.first = self.first or error
        if self._plan.is_own(provider):
            self.spill_reason = Spill.SLOW if is_slow else Spill.FAILED
        if error.failure_class.fault is not Fault.ACCOUNT:
            self.first.headers.pop("x-should-retry", None)  # it may succeed the next time

    def ended(self, attempt: Attempt, exc: BaseException) -> None:
        """Record an attempt that ends the request: by an error that is its own, or because the client gave it up.

        A stream without a byte after `HANGS_SECONDS` ran out of time. Otherwise clients that give up sooner than the
        gateway would meet a provider that hangs again and again.
        """
        attempt.gate.leave()
        self._end()
        name = attempt.provider.name
        if isinstance(exc, ApiError):
            self._health.answered(name, self._plan.model, attempt.begun)
            return
        metrics.upstream_abandoned.labels(name).inc()
        has_left = isinstance(exc, asyncio.CancelledError) and not stopping.caused(exc)
        if has_left and self._request.is_stream and self._health.now() - attempt.begun >= HANGS_SECONDS:
            self._count(attempt.provider, self._failure(failure(attempt.provider, TimeoutError())))

    def answered(self, attempt: Attempt, answer: Answer) -> float:
        """Record an answer, and return the seconds until then.

        A stream counts when its content begins; at its end it leaves the gate, and counts by how it ended.
        """
        self._end()
        self._record_pace(attempt)
        seconds = self._health.now() - attempt.begun
        is_stream = "no" if isinstance(answer.body, bytes) else "yes"
        metrics.upstream_time(attempt.provider.name, is_stream).observe(seconds)
        progress = answer.progress
        if progress is None or progress.has_content:
            self._record_answer(attempt.provider, attempt.begun)
        else:
            progress.on_content = partial(self._record_answer, attempt.provider, attempt.begun)
        call_at_end(answer.body, partial(self._record_end, attempt.provider, progress, attempt.gate))
        return seconds

    async def _may_repeat(self) -> bool:
        """Take a further attempt from the budget; return False if none is left."""
        if self._is_over or self._loop.time() >= self._deadline or self._made >= settings.SENTINEL_MAX_ATTEMPTS:
            return False
        load, model = process.load, self._plan.model
        wait = settings.SENTINEL_QUEUE_SECONDS
        return await load.retries[model].enter(self._plan.owner, lambda: load.retry_limit(model), wait_seconds=wait)

    def _end(self) -> None:
        """Return a further attempt to the budget."""
        if self._made > 1:
            process.load.retries[self._plan.model].leave()

    def _until(self, provider: Provider) -> Until:
        """Return when an attempt ends: no other provider can be asked after the last one."""
        is_last = provider is self._plan.candidates[-1] or self._made >= settings.SENTINEL_MAX_ATTEMPTS
        if not self._request.is_stream or is_last:
            return Until(self._deadline, self._deadline)
        now = self._loop.time()
        until = min(self._deadline, now + self._seconds / STREAM_ATTEMPTS)
        if provider.first_byte_seconds is not None and not self._is_late:
            until = min(until, now + provider.first_byte_seconds)
        return Until(until, self._deadline)

    def _record_pace(self, attempt: Attempt) -> bool:
        """Record the time to the first byte of a stream, or until it was given up; return whether it was too long."""
        provider, now = attempt.provider, self._health.now()
        if provider.first_byte_seconds is None or not self._request.is_stream:
            return False
        is_late = now - attempt.begun >= provider.first_byte_seconds
        pace = process.load.paces[provider.name]
        pace.record(now, is_late=is_late)
        self._health.record_pace(provider.name, is_slow=pace.is_late)
        self._is_late = self._is_late or is_late
        return is_late

    def _record_answer(self, provider: Provider, begun: float) -> None:
        """Count an answer, and the doubtful failures of other providers: the request was not at fault."""
        self._health.answered(provider.name, self._plan.model, begun)
        for other, failed in self._doubtful:
            self._count(other, failed)
        process.load.gates[provider.name].wake()  # it may have been cooling down until now

    def _record_end(self, provider: Provider, progress: Progress | None, gate: Gate) -> None:
        """Leave the gate, and count how a stream ended: no other provider can then show who was at fault."""
        gate.leave()
        if progress is None:
            return
        error = progress.failure
        if error is None and progress.is_complete:
            self._health.completed(provider.name)
        elif error is not None and not error.is_of_request:
            self._count(provider, self._failure(error), has_content=progress.has_content)

    def _count(self, provider: Provider, failed: Failure, *, has_content: bool = False) -> None:
        """Count a failure, unless the provider's URL or key has been changed since the request was planned."""
        if (provider.name, provider.endpoint) in {(each.name, each.endpoint) for each in configured()}:
            self._health.failed(provider.name, self._plan.model, failed, has_content=has_content)

    def _failure(self, error: UpstreamFailure) -> Failure:
        return Failure(error.failure_class.cools, error.retry_after, error.is_alive, self._conversation, error.summary)
