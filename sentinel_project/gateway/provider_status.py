"""The status of the providers as data: for the admin, the API, the command and `doctor`."""

from __future__ import annotations

import enum
import logging
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sentinel_project.gateway import metrics
from sentinel_project.gateway.conf import settings
from sentinel_project.gateway.providers import controls, health_sync
from sentinel_project.gateway.providers.config import Provider
from sentinel_project.gateway.providers.controls import Control
from sentinel_project.gateway.providers.current import configured, providers
from sentinel_project.gateway.providers.health import Health
from sentinel_project.gateway.routing import process
from sessions_sticky import SessionNotSupported, SessionStoreUnavailable, sessions
from sessions_sticky.queries.usage import RouteUsage, first_byte_ms
from sessions_sticky.turns import FAILED

logger = logging.getLogger(__name__)

MINUTES = 5
"""The period of the figures, in minutes."""


class State(enum.StrEnum):
    """The state of a provider. `COOLING`: it reached a limit; `FAILING`: no answer; `LOST`: conversations move.

    `UNKNOWN`: the store is unavailable, and this process has no failure of its own to report.
    """

    UNKNOWN = "unknown"
    HEALTHY = "healthy"
    SLOW = "slow"
    COOLING = "cooling"
    FAILING = "failing"
    LOST = "lost"


class Figures(NamedTuple):
    """Figures of the last minutes, of all workers; None where there was nothing to measure.

    Times to the first byte are upper bounds in milliseconds; 0 stands for more than a minute.
    """

    requests_per_minute: float = 0.0
    errors_per_minute: float = 0.0
    first_byte_p50_ms: int | None = None
    first_byte_p95_ms: int | None = None
    cached_share: float | None = None


class ProviderStatus(NamedTuple):
    """The status of one provider.

    `failing_since` is the first failure since the last answer. `cooling_models` is empty if all or no models cool down.
    `weight` is the configured one, `share` its part of the new conversations: 0 while it is drained, is failing, or
    cools down for all models. `in_flight` is of this machine. `figures` None: the store cannot report them.
    """

    provider: Provider
    state: State
    failing_since: datetime | None
    error: str
    cooling_models: list[str]
    next_try_at: datetime | None
    seconds_left: int
    weight: float
    share: float = 1.0
    is_drained: bool = False
    is_held: bool = False
    in_flight: int = 0
    figures: Figures | None = None

    @property
    def takes_new(self) -> bool:
        """Whether it takes new conversations."""
        return self.weight > 0 and not self.is_drained

    @property
    def served_models(self) -> set[str]:
        """The models whose requests it gets now: none while it is failing, and none that cool down."""
        if self.failing_since is not None or (self.seconds_left > 0 and not self.cooling_models):
            return set()
        return set(self.provider.models).difference(self.cooling_models)

    @property
    def weight_in_force(self) -> float:
        """The weight with which it gets new conversations now, when others serve their models."""
        return 0.0 if self.is_drained or not self.served_models else self.weight


def statuses() -> list[ProviderStatus]:
    """Return the status of every provider; without figures if the store is unavailable."""
    health, is_shared = latest_health()
    numbers, in_flight, current = _figures(), metrics.in_flight(), configured()
    settings_of = controls.latest(provider.name for provider in current)
    found = [
        each._replace(
            state=each.state if is_shared or each.state is not State.HEALTHY else State.UNKNOWN,
            is_drained=Control.DRAIN in (controls_of := settings_of.get(each.provider.name, ())),
            is_held=Control.HOLD in controls_of,
            in_flight=in_flight.get(each.provider.name, 0),
            figures=None if numbers is None else numbers.get(each.provider.name, Figures()),
        )
        for each in (status(provider, health) for provider in current)
    ]
    total = sum(each.weight_in_force for each in found) or 1
    return [each._replace(share=each.weight_in_force / total) for each in found]


def status(provider: Provider, health: Health) -> ProviderStatus:
    """Return the status of one provider by its health; some of its models may cool down while it does not."""
    now, name = datetime.now(UTC), provider.name
    models = [model for model in provider.models if health.is_cooling(name, model)]
    left = health.seconds_left(name) or max((health.seconds_left(name, model) for model in models), default=0)
    since = health.unanswered_since(name)
    return ProviderStatus(
        provider,
        _state(provider, health, since),
        None if since is None else now - timedelta(seconds=health.now() - since),
        health.last_error(name),
        [] if health.seconds_left(name) or len(models) == len(provider.models) else models,
        now + timedelta(seconds=left) if left > 0 else None,
        round(left),
        provider.weight,
    )


def latest_health() -> tuple[Health, bool]:
    """Return the newest states of the providers, and whether those of other processes could be read."""
    known = Health(settings.SENTINEL_COOLDOWN_SECONDS, providers, process.health.now)
    known.states = {name: dict(slots) for name, slots in process.health.states.items()}
    try:
        health_sync.merge(known, health_sync.read(configured(), known.now))
    except Exception as exc:  # cache backends raise different errors
        logger.warning("provider health could not be read: %s", type(exc).__name__)
        return known, False
    return known, True


def _state(provider: Provider, health: Health, since: float | None) -> State:
    if health.is_lost(provider.name):
        return State.LOST
    if since is not None:
        return State.FAILING
    if health.last_error(provider.name) or any(health.is_cooling(provider.name, model) for model in provider.models):
        return State.COOLING
    return State.SLOW if health.is_slow(provider.name) else State.HEALTHY


def _figures() -> dict[str, Figures] | None:
    """Return the figures by provider; None if the store is unavailable or cannot add up usage."""
    try:
        routes = sessions.usage(MINUTES).routes
    except (SessionNotSupported, SessionStoreUnavailable):
        return None
    names = {route.provider for route in routes}
    return {name: _figures_of([route for route in routes if route.provider == name]) for name in names}


def _figures_of(routes: list[RouteUsage]) -> Figures:
    failed = sum(route.totals.turns for route in routes if route.outcome == FAILED)
    first_bytes = Counter[int]()
    for route in routes:
        first_bytes.update(route.first_bytes)
    read, known = (sum(getattr(route.totals, name) for route in routes) for name in ("read", "input"))
    return Figures(
        requests_per_minute=(first_bytes.total() + failed) / MINUTES,
        errors_per_minute=failed / MINUTES,
        first_byte_p50_ms=first_byte_ms(first_bytes, 0.5),
        first_byte_p95_ms=first_byte_ms(first_bytes, 0.95),
        cached_share=read / known if known else None,
    )


def format_time(at: datetime) -> str:
    """Return a time in UTC as all pages and commands show it; they name the zone."""
    return f"{at:%Y-%m-%d %H:%M:%S}"


def as_data(each: ProviderStatus) -> Mapping[str, object]:
    """Return a status as JSON: for the API and the command."""
    provider, figures = each.provider, each.figures
    fields = {name: value for name, value in each._asdict().items() if name not in ("provider", "figures")}
    numbers = dict.fromkeys(Figures._fields) if figures is None else figures._asdict()
    return {"name": provider.name, "models": list(provider.models), **fields, **numbers}
