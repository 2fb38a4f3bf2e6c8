"""Share the state of providers between workers through Django's cache, in the background.

All workers know within a second what one of them learns. Without the cache each one uses only its own knowledge.

One record for each provider and endpoint holds all of its slots: a new URL or key begins a new record. It is
written with a TTL of `KEEP_SECONDS` and holds durations only: what is left of the TTL is its age by the store's clock,
so no process needs another one's clock. Each worker merges what it reads, slot by slot, and writes a record that lacks
what it knows: two that write at the same moment agree with the next exchange.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Sequence

import msgspec

from sentinel_project.gateway import shared_cache
from sentinel_project.gateway.providers.config import Provider
from sentinel_project.gateway.providers.health import Health
from sentinel_project.gateway.providers.slots import (
    MAX_COOLDOWN_SECONDS,
    MAX_ERROR_LENGTH,
    MAX_RETRY_AFTER_SECONDS,
    SlotState,
)
from sessions_sticky import keys

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
KEEP_SECONDS = MAX_RETRY_AFTER_SECONDS + MAX_COOLDOWN_SECONDS
"""How long a record stays in the cache after it was written."""

MAX_AGE_SECONDS = 30 * 86_400.0
MAX_FAILURES = 1_000_000
PAST = ("cooled_at", "failing_since", "failed_at", "at", "unanswered_since")
"""The times of a state that have been."""

States = dict[str, SlotState]
"""The states of one provider, by slot."""


async def share_forever(health: Health, providers: Callable[[], Sequence[Provider]]) -> None:
    """Publish changes of this worker, and merge those of others, until cancelled."""
    wake = asyncio.Event()
    health.on_change = wake.set
    was_shared = True
    while True:
        wake.clear()
        try:
            await _exchange(health, providers())
            is_shared = True
        except Exception as exc:  # cache backends raise different errors
            is_shared = False
            if was_shared:
                logger.warning("provider health is not shared: %s", type(exc).__name__)
        was_shared = is_shared
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(POLL_SECONDS):
                await (wake.wait() if is_shared else asyncio.sleep(POLL_SECONDS))


async def _exchange(health: Health, providers: Sequence[Provider]) -> None:
    """Merge the records of some providers, then write those that lack local changes."""
    stored = await shared_cache.in_thread(read, providers, health.now)
    merge(health, stored)
    for each in providers:
        known, shared = dict(health.states.get(each.name, {})), stored[each.name]
        if {slot: state.id for slot, state in known.items()} != {slot: state.id for slot, state in shared.items()}:
            await shared_cache.in_thread(write, each, known, health.now())


def write(provider: Provider, states: States, now: float) -> None:
    """Store what is known of a provider; raises the cache's own errors."""
    shared_cache.write(key(provider), {slot: _relative(state, now) for slot, state in states.items()}, KEEP_SECONDS)


def read(providers: Iterable[Provider], clock: Callable[[], float]) -> dict[str, States]:
    """Return the shared states of some providers, by name and slot; raises the cache's own errors."""
    return {each.name: _stored(key(each), clock) for each in providers}


def merge(health: Health, stored: dict[str, States]) -> None:
    """Merge newer states of other processes."""
    for name, states in stored.items():
        for slot, state in states.items():
            health.merge(name, slot, state)


def _stored(place: str, clock: Callable[[], float]) -> States:
    """Decode a record; return nothing for invalid values of other programs."""
    cache = shared_cache.cache()
    while True:
        asked = clock()
        left = cache.pttl(place)  # before the value, as the clock: a late read looks older
        stored = shared_cache.read(place, States) if left else None
        if stored is None or (cache.pttl(place) or 0) <= left:
            break  # else it was written in between, and is younger than `left` says
    if stored is None or not all(_is_possible(state) for state in stored.values()):
        return {}
    written = asked - max(0.0, KEEP_SECONDS - left / 1000)
    return {slot: _absolute(state, written) for slot, state in stored.items()}


def _relative(state: SlotState, now: float) -> SlotState:
    """Return a state as it is stored, with its times counted from the moment of writing."""
    past = {name: min(0.0, max(-MAX_AGE_SECONDS, at - now)) for name, at in _past(state).items()}
    return msgspec.structs.replace(state, cooling_until=max(0.0, state.cooling_until - now), **past)


def _absolute(state: SlotState, written: float) -> SlotState:
    """Return a stored state in the time of this process, by whose clock it was written at `written`."""
    past = {name: at + written for name, at in _past(state).items()}
    return msgspec.structs.replace(state, cooling_until=state.cooling_until + written, **past)


def _is_possible(state: SlotState) -> bool:
    """Return whether a process can have written a stored state."""
    is_past = all(-MAX_AGE_SECONDS <= at <= 0 for at in _past(state).values())
    is_counted = 0 <= state.failures <= MAX_FAILURES and len(state.error) <= MAX_ERROR_LENGTH
    return is_past and is_counted and 0 <= state.cooling_until <= KEEP_SECONDS


def _past(state: SlotState) -> dict[str, float]:
    return {name: at for name in PAST if (at := getattr(state, name)) is not None}


def key(provider: Provider) -> str:
    """Return the key of a provider's record."""
    return keys.prefixed(f"provider:{provider.name}:{provider.endpoint}")
