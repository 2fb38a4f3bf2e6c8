"""The state of the providers, as a panel of the sessions' overview in Django admin."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from django.conf import settings
from django.core.cache import DEFAULT_CACHE_ALIAS
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from sentinel_project.gateway.providers import health_sync
from sentinel_project.gateway.providers.config import Provider
from sentinel_project.gateway.providers.health import Health
from sentinel_project.gateway.providers.reload import providers
from sentinel_project.gateway.providers.slots import HEALTHY, PROVIDER
from sentinel_project.gateway.routing import plan as routing
from sessions_sticky.admin.registry import Panel

logger = logging.getLogger(__name__)


class Row(NamedTuple):
    """A provider on the page. `cooling_models` is empty if all or no models cool down; missing times are None."""

    provider: Provider
    state: str
    cooling_models: list[str]
    cooling_until: datetime | None
    seconds_left: int
    failing_since: datetime | None


def panel(request: HttpRequest) -> Panel:
    """Return the panel."""
    health = latest_health()
    rows = [row(provider, health) for provider in providers()]
    return Panel(_("Providers"), "admin/gateway/providers.html", {"rows": rows})


def routes() -> list[tuple[str, str]]:
    """Return the providers that are configured, with each of their models."""
    return [(provider.name, model) for provider in providers() for model in provider.models]


def row(provider: Provider, health: Health) -> Row:
    """Return the row of one provider; some of its models may cool down while it does not."""
    now, name = datetime.now(UTC), provider.name
    models = [model for model in provider.models if health.is_cooling(name, model)]
    left = health.seconds_left(name) or max((health.seconds_left(name, model) for model in models), default=0)
    since = health.states.get(name, {}).get(PROVIDER, HEALTHY).failing_since
    return Row(
        provider,
        _state(name, health, left),
        [] if health.seconds_left(name) else models,
        now + timedelta(seconds=left) if left > 0 else None,
        round(left),
        now - timedelta(seconds=health.now() - since) if since is not None else None,
    )


def latest_health() -> Health:
    """Return the newest states of the providers, from this process or the shared ones."""
    known = Health(settings.SENTINEL_COOLDOWN_SECONDS, providers, routing.health.now)
    known.states = {name: dict(slots) for name, slots in routing.health.states.items()}
    names = [provider.name for provider in providers()]
    try:
        health_sync.merge(known, health_sync.read(DEFAULT_CACHE_ALIAS, names, known.now))
    except Exception as exc:  # each cache backend has errors of its own
        logger.warning("provider health could not be read: %s", type(exc).__name__)
    return known


def _state(name: str, health: Health, left: float) -> str:
    if health.is_lost(name):
        return "lost"
    if left > 0:
        return "cooling"
    return "trial" if name in health.failing() else "healthy"
