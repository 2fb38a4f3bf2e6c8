"""Attempts, deadline and retry budget of a request."""

from __future__ import annotations

import asyncio

from sentinel_project.gateway.apis.base import ApiRequest
from sentinel_project.gateway.conf import settings
from sentinel_project.gateway.providers.config import Provider
from sentinel_project.gateway.providers.health import Health
from sentinel_project.gateway.providers.load import Load
from sentinel_project.gateway.upstream.client import Until
from sentinel_project.gateway.upstream.errors import UpstreamFailure

STREAM_ATTEMPTS = 3
"""The maximum share of a request's time for one attempt of a stream, so that others get some."""


class Attempts:
    """The attempts of one request: one deadline for all, and a budget for those after the first.

    The deadline ends at the answer, or a stream's first content. `is_over`: no other provider may be asked.
    """

    def __init__(self, request: ApiRequest, model: str, owner: str, load: Load) -> None:
        self._request, self._model, self._owner, self._load = request, model, owner, load
        self._made = 0
        self.is_over = False
        self._is_late = False
        self._seconds: float = settings.SENTINEL_UPSTREAM_TIMEOUT_SECONDS
        self._deadline: float = asyncio.get_running_loop().time() + self._seconds

    async def begin(self) -> bool:
        """Start an attempt; return False if none is left. Call `end` after True."""
        if self._made:
            is_late = asyncio.get_running_loop().time() >= self._deadline
            if self.is_over or is_late or self._made >= settings.SENTINEL_MAX_ATTEMPTS:
                return False
            retries = self._load.retries(self._model)
            wait = settings.SENTINEL_QUEUE_SECONDS
            if not await retries.enter(self._owner, lambda: self._load.retry_limit(self._model), wait_seconds=wait):
                return False
        self._made += 1
        return True

    def end(self, failure: UpstreamFailure | None = None) -> None:
        """End an attempt. A plain request is not repeated after a timeout: it may have been answered, and billed."""
        if self._made > 1:
            self._load.retries(self._model).leave()
        if failure is not None and failure.is_timeout and not self._request.is_stream:
            self.is_over = True

    def until(self, provider: Provider, *, is_last: bool) -> Until:
        """Return when an attempt ends; `is_last`: no other provider can be asked after it."""
        now = asyncio.get_running_loop().time()
        if not self._request.is_stream or is_last or self._made >= settings.SENTINEL_MAX_ATTEMPTS:
            return Until(self._deadline, self._deadline)
        until = min(self._deadline, now + self._seconds / STREAM_ATTEMPTS)
        if provider.first_byte_seconds is not None and not self._is_late:
            until = min(until, now + provider.first_byte_seconds)
        return Until(until, self._deadline)

    def record_pace(self, provider: Provider, seconds: float, health: Health) -> bool:
        """Record the time to the first byte of a stream, or until it was given up; return whether it was too long."""
        if provider.first_byte_seconds is None or not self._request.is_stream:
            return False
        is_late = seconds >= provider.first_byte_seconds
        pace = self._load.pace(provider.name)
        pace.record(health.now(), is_late=is_late)
        health.record_pace(provider.name, is_slow=pace.is_late)
        self._is_late = self._is_late or is_late
        return is_late
