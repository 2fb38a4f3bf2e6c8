"""The condition of the providers, as a panel of the sessions' overview in Django admin."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from typing import NamedTuple

from django.core.cache import DEFAULT_CACHE_ALIAS
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from sentinel_project.gateway.providers import health_sync as shared_health
from sentinel_project.gateway.providers.config import Provider
from sentinel_project.gateway.providers.health import HEALTHY, Condition, is_lost
from sentinel_project.gateway.providers.reload import providers
from sentinel_project.gateway.routing import plan as routing
from sessions_sticky.admin.registry import Panel

logger = logging.getLogger(__name__)


class Row(NamedTuple):
    """A provider on the page; the times are None where there is none to tell."""

    provider: Provider
    state: str
    cooling_until: datetime | None
    seconds_left: int
    failing_since: datetime | None


def panel(request: HttpRequest) -> Panel:
    """Return the panel."""
    now, known = time.time(), conditions()
    rows = [row(provider, known.get(provider.name, HEALTHY), now) for provider in providers()]
    return Panel(_("Providers"), "admin/gateway/providers.html", {"rows": rows})


def routes() -> list[tuple[str, str]]:
    """Return the providers that are configured, with each of their models."""
    return [(provider.name, model) for provider in providers() for model in provider.models]


def row(provider: Provider, condition: Condition, now: float) -> Row:
    """Say how a provider is `now`, in Unix seconds."""
    left = condition.cooling_until - now
    since = condition.failing_since
    return Row(
        provider,
        _state(condition, left),
        datetime.fromtimestamp(condition.cooling_until, UTC) if left > 0 else None,
        max(0, round(left)),
        datetime.fromtimestamp(since, UTC) if since else None,
    )


def conditions() -> dict[str, Condition]:
    """Return what is known of the providers: by this process, or shared by another one that knows it newer."""
    known = dict(routing.health.conditions)
    for name, condition in _shared().items():
        if name not in known or condition.at > known[name].at:
            known[name] = condition
    return known


def _shared() -> dict[str, Condition]:
    names = [provider.name for provider in providers()]
    try:
        return shared_health.read(DEFAULT_CACHE_ALIAS, names)
    except Exception as exc:  # each cache backend has errors of its own
        logger.warning("provider health could not be read: %s", type(exc).__name__)
        return {}


def _state(condition: Condition, left: float) -> str:
    if is_lost(condition):
        return "lost"
    if left > 0:
        return "cooling"
    return "trial" if condition.failures else "healthy"
