"""Sending a request to the providers of its plan until one answers."""

from __future__ import annotations

import logging
import time
from typing import Any, NamedTuple

from sentinel_project.gateway import metrics
from sentinel_project.gateway.errors import ApiError
from sentinel_project.gateway.providers.config import Provider
from sentinel_project.gateway.routing import plan as routing
from sentinel_project.gateway.upstream import client as upstream
from sentinel_project.gateway.upstream.errors import Failed, Refused

logger = logging.getLogger(__name__)


class Served(NamedTuple):
    """An answer, who gave it, and how the conversation came to it."""

    answer: upstream.Answer
    provider: Provider
    settled: routing.Settled


async def dispatch(plan: routing.Plan, body: dict[str, Any]) -> Served:
    """Ask the candidates one after the other; the first answer counts.

    Raises `ApiError`: what the first candidate said when all fail or refuse, or at once an error that is the
    request's own.
    """
    first_error: ApiError | None = None
    refusal: str | None = None
    for provider in plan.candidates:
        routing.health.begin(provider.name)
        started = time.perf_counter()
        try:
            answer = await upstream.call(provider, {**body, "model": plan.model})
        except Failed as exc:
            metrics.upstream_failures.labels(provider.name, exc.reason).inc()
            routing.health.failed(provider.name, retry_after=exc.retry_after, alive=exc.alive)
            logger.warning("provider %r failed: %s", provider.name, exc.logged)
            first_error = first_error or exc
            first_error.headers.pop("x-should-retry", None)  # this one may be well the next time
        except Refused as exc:
            logger.warning("provider %r refused: %d", provider.name, exc.provider_status)
            if plan.session is not None and provider.name == plan.session.provider:
                refusal = f"provider answered {exc.provider_status}"
            first_error = first_error or exc
        except ApiError:
            routing.health.answered(provider.name)
            raise
        else:
            stream = "no" if isinstance(answer.body, bytes) else "yes"
            metrics.upstream_seconds.labels(provider.name, stream).observe(time.perf_counter() - started)
            routing.health.answered(provider.name)
            return Served(answer, provider, await routing.settle(plan, provider, refusal))
    assert first_error is not None  # noqa: S101 - a plan has at least one candidate
    raise first_error
