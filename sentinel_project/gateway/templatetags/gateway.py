"""Template filters for the state and the figures of providers."""

from __future__ import annotations

from datetime import UTC, datetime

from django import template
from django.utils.formats import number_format
from django.utils.translation import gettext_lazy

from sentinel_project.gateway.provider_status import ProviderStatus, State, format_time
from sessions_sticky.queries.server_info import Level, format_percent

register = template.Library()

UNKNOWN = "\N{EN DASH}"
NAMES = {
    State.UNKNOWN: gettext_lazy("Unknown"),
    State.HEALTHY: gettext_lazy("Healthy"),
    State.SLOW: gettext_lazy("Slow"),
    State.COOLING: gettext_lazy("Cooling down"),
    State.FAILING: gettext_lazy("Failing"),
    State.LOST: gettext_lazy("Lost"),
}


@register.filter
def state_name(state: State) -> str:
    """Return the name of a state."""
    return str(NAMES[state])


@register.filter
def level(status: ProviderStatus) -> str:
    """Return the severity of a state."""
    if status.state in (State.FAILING, State.LOST):
        return Level.ERROR
    return Level.OK if status.state is State.HEALTHY and status.takes_new else Level.WARNING


@register.filter
def moment(unix_seconds: float) -> str:
    """Return a time in UTC, as everywhere."""
    return format_time(datetime.fromtimestamp(unix_seconds, UTC))


@register.filter
def figure(number: object) -> str:
    """Return a number with one decimal."""
    return number_format(number, 1) if isinstance(number, float) else UNKNOWN


@register.filter
def percent(share: object) -> str:
    """Return a share in percent."""
    return format_percent(share) if isinstance(share, float) else UNKNOWN


@register.filter
def milliseconds(bound: object) -> str:
    """Return the upper bound of a time to the first byte in seconds; 0 is above all bounds."""
    if not isinstance(bound, int):
        return UNKNOWN
    return f"≤ {number_format(bound / 1000, 2 if bound < 1000 else 1)} s" if bound else "> 60 s"
