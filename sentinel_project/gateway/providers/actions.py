"""Actions of operators on a provider, for the page, the API and the command."""

from __future__ import annotations

import enum
import logging

from sentinel_project.gateway.providers import controls, health_sync
from sentinel_project.gateway.providers.controls import Control
from sentinel_project.gateway.providers.current import configured, providers
from sentinel_project.gateway.providers.health import Health

logger = logging.getLogger(__name__)


class Action(enum.StrEnum):
    """`DRAIN`: no new conversations; `TRY`: end the cooldown; `HOLD`: do not move; `RELEASE`: end drain and hold."""

    DRAIN = "drain"
    TRY = "try"
    HOLD = "hold"
    RELEASE = "release"


class UnknownProvider(Exception):
    """No provider has this name."""


class ControlsUnavailable(Exception):
    """The cache that the workers share is unavailable, so that nothing was changed."""


def act(name: str, action: Action, *, by: str) -> None:
    """Act on a provider, in all workers within a second, and log it."""
    check_name(name)
    try:
        match action:
            case Action.DRAIN | Action.HOLD:
                controls.set_control(name, Control(action), by)
            case Action.RELEASE:
                controls.release(name)
            case Action.TRY:
                _try(name)
    except Exception as exc:  # cache backends raise different errors
        logger.warning("provider %r: %s by %r failed: %s", name, action, by, type(exc).__name__)
        raise ControlsUnavailable("The session store is unavailable: nothing was changed.") from exc
    logger.info("provider %r: %s by %r", name, action, by)


def check_name(name: str) -> None:
    """Raise `UnknownProvider` for a name that is not configured."""
    names = [provider.name for provider in configured()]
    if name not in names:
        raise UnknownProvider(f"Unknown provider {name!r}: must be one of {', '.join(sorted(names))}.")


def only_here(name: str) -> list[str]:
    """Return the models that would take no new conversations if this provider were drained."""
    others = {model for each in providers() if each.name != name and each.weight for model in each.models}
    return [model for each in configured() if each.name == name for model in each.models if model not in others]


def _try(name: str) -> None:
    """End the cooldowns of a provider in the shared record, which all workers read."""
    health, known = Health(0, lambda: ()), [each for each in configured() if each.name == name]
    health_sync.merge(health, health_sync.read(known, health.now))
    if name in health.states:
        health.end_cooldowns(name)
        health_sync.write(known[0], health.states[name], health.now())
