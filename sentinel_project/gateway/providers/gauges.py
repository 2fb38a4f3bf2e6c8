"""Export the state of the providers as this process knows it; Prometheus combines the processes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from sentinel_project.gateway import metrics
from sentinel_project.gateway.providers.config import Provider
from sentinel_project.gateway.providers.health import Health
from sentinel_project.gateway.providers.load import Load
from sessions_sticky import SessionError, sessions

logger = logging.getLogger(__name__)

EXPORT_SECONDS = 0.5
STORE_SECONDS = 15.0


async def export_forever(health: Health, load: Load, providers: Callable[[], Sequence[Provider]]) -> None:
    """Set the gauges of all providers until cancelled; those of removed ones become 0."""
    known: dict[str, None] = {}
    while True:
        configured = {provider.name: provider for provider in providers()}
        known |= dict.fromkeys(configured)
        for name in known:
            _export(name, configured.get(name), health, load)
        await asyncio.sleep(EXPORT_SECONDS)


async def export_store_forever() -> None:
    """Set the gauges of the session store until cancelled; while it is down they keep their values."""
    while True:
        try:
            await asyncio.to_thread(sessions.export_gauges)
        except SessionError as exc:
            logger.debug("gauges of the store not set: %s", exc)
        await asyncio.sleep(STORE_SECONDS)


def _export(name: str, provider: Provider | None, health: Health, load: Load) -> None:
    since = health.unanswered_since(name) if provider else None
    failing_since = 0 if since is None else time.time() - (health.now() - since)
    models = provider.models if provider else ()
    metrics.provider_failing_since.labels(name).set(failing_since)
    metrics.provider_cooling.labels(name).set(any(health.is_cooling(name, model) for model in models))
    metrics.provider_in_flight.labels(name).set(load.gates[name].in_flight)
    metrics.provider_weight.labels(name).set(provider.weight if provider else 0)
