"""Controls that operators set on providers: effective in all workers within a second, and kept over restarts.

`drain`: no new conversations. `hold`: conversations spill over but do not move. Each is a key of Django's cache without
an expiry; while the cache is unavailable what was last read stays in force.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import time
from collections.abc import Callable, Iterable

import msgspec

from sentinel_project.gateway import shared_cache
from sessions_sticky import keys
from sessions_sticky.turns import Seconds

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5


class Control(enum.StrEnum):
    """A setting of one provider."""

    DRAIN = "drain"
    HOLD = "hold"


class Setting(msgspec.Struct, frozen=True):
    """Who has set a control, and when in Unix seconds."""

    by: str
    at: Seconds


Settings = dict[str, dict[Control, Setting]]
"""The controls that are set, by provider."""

_in_force: Settings = {}


def is_set(name: str, control: Control) -> bool:
    """Return whether a control of a provider is set, as this process knows."""
    return control in _in_force.get(name, ())


def drained() -> frozenset[str]:
    """Return the names of the providers that take no new conversations, as this process knows."""
    if not _in_force:
        return frozenset()
    return frozenset(name for name in _in_force if Control.DRAIN in _in_force[name])


def take_over(found: Settings) -> None:
    """Replace the controls of this process."""
    _in_force.clear()
    _in_force.update(found)


def latest(names: Iterable[str]) -> Settings:
    """Return the controls of some providers from the cache; what this process knows if that is unavailable."""
    try:
        return read(names)
    except Exception as exc:  # cache backends raise different errors
        logger.warning("controls of providers could not be read: %s", type(exc).__name__)
        return {name: dict(controls) for name, controls in _in_force.items()}


def read(names: Iterable[str]) -> Settings:
    """Return the controls of some providers; raises the cache's own errors. Invalid values are ignored."""
    places = {_key(name, control): (name, control) for name in names for control in Control}
    found: Settings = {}
    for key, setting in shared_cache.read_many(places, Setting).items():
        name, control = places[key]
        found.setdefault(name, {})[control] = setting
    return found


def set_control(name: str, control: Control, by: str) -> None:
    """Set a control, in this process at once; raises the cache's own errors."""
    setting = Setting(by, time.time())
    shared_cache.write(_key(name, control), setting, None)
    _in_force[name] = {**_in_force.get(name, {}), control: setting}


def release(name: str) -> None:
    """End all controls of a provider, in this process at once; raises the cache's own errors."""
    shared_cache.cache().delete_many([_key(name, control) for control in Control])
    _in_force.pop(name, None)


async def follow_forever(names: Callable[[], Iterable[str]]) -> None:
    """Apply the shared controls in this process until cancelled."""
    was_read = True
    while True:
        try:
            take_over(await shared_cache.in_thread(read, list(names())))
            was_read = True
        except Exception as exc:  # cache backends raise different errors
            if was_read:
                logger.warning("controls of providers could not be read: %s", type(exc).__name__)
            was_read = False
        await asyncio.sleep(POLL_SECONDS)


def _key(name: str, control: Control) -> str:
    return keys.prefixed(f"provider-{control}:{name}")
