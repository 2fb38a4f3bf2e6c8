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
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
from asgiref.sync import sync_to_async
from django.core.cache import DEFAULT_CACHE_ALIAS, caches

from sessions_sticky import keys
from sessions_sticky.turns import Seconds

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="controls")


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
    for key, value in caches[DEFAULT_CACHE_ALIAS].get_many(places).items():
        name, control = places[key]
        try:
            found.setdefault(name, {})[control] = msgspec.convert(value, Setting)
        except msgspec.ValidationError:
            continue
    return {name: controls for name, controls in found.items() if controls}


def set_control(name: str, control: Control, by: str) -> None:
    """Set a control, in this process at once; raises the cache's own errors."""
    setting = Setting(by, time.time())
    value: Any = msgspec.to_builtins(setting)
    caches[DEFAULT_CACHE_ALIAS].set(_key(name, control), value, None)
    _in_force[name] = {**_in_force.get(name, {}), control: setting}


def release(name: str) -> None:
    """End all controls of a provider, in this process at once; raises the cache's own errors."""
    caches[DEFAULT_CACHE_ALIAS].delete_many([_key(name, control) for control in Control])
    _in_force.pop(name, None)


async def follow_forever(names: Callable[[], Iterable[str]]) -> None:
    """Apply the shared controls in this process until cancelled."""
    was_read = True
    while True:
        try:
            take_over(await sync_to_async(read, thread_sensitive=False, executor=_thread)(list(names())))
            was_read = True
        except Exception as exc:  # cache backends raise different errors
            if was_read:
                logger.warning("controls of providers could not be read: %s", type(exc).__name__)
            was_read = False
        await asyncio.sleep(POLL_SECONDS)


def _key(name: str, control: Control) -> str:
    return keys.prefixed(f"provider-{control}:{name}")
