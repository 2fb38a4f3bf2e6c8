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
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import aiohttp
import msgspec
from asgiref.sync import sync_to_async
from django.core.cache import caches

from sentinel_project.gateway.providers.config import Provider
from sentinel_project.gateway.providers.health import (
    MAX_COOLDOWN_SECONDS,
    MAX_RETRY_AFTER_SECONDS,
    Health,
)
from sentinel_project.gateway.providers.slots import MAX_ERROR_LENGTH, SlotState
from sentinel_project.gateway.upstream import client as upstream
from sessions_sticky import keys

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
PROBE_SECONDS = 3.0
KEEP_SECONDS = MAX_RETRY_AFTER_SECONDS + MAX_COOLDOWN_SECONDS
"""How long a record stays in the cache after it was written."""

States = dict[str, SlotState]

MAX_AGE_SECONDS = 30 * 86_400.0
_Past = Annotated[float, msgspec.Meta(ge=0, le=MAX_AGE_SECONDS)]
_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="health_sync")
"""A separate thread: asgiref's may wait for the database, and asyncio's few for the resolution of host names."""


class _Shared(msgspec.Struct, frozen=True):
    """A slot's state as it is stored: seconds before the record was written, `cooling_for` seconds after it."""

    id: str
    failures: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
    cooled_ago: _Past
    cooling_for: Annotated[float, msgspec.Meta(ge=0, le=KEEP_SECONDS)]
    is_stated: bool
    failing_for: _Past | None
    failed_ago: _Past
    known_for: _Past
    unanswered_for: _Past | None = None
    error: Annotated[str, msgspec.Meta(max_length=MAX_ERROR_LENGTH)] = ""


class _Record(msgspec.Struct, frozen=True):
    slots: dict[str, _Shared]


async def share_forever(health: Health, providers: Callable[[], Sequence[Provider]], alias: str) -> None:
    """Publish changes of this worker, and merge those of others, until cancelled."""
    wake = asyncio.Event()
    health.on_change = wake.set
    was_shared = True
    while True:
        wake.clear()
        try:
            await _exchange(health, providers(), alias)
            is_shared = True
        except Exception as exc:  # cache backends raise different errors
            is_shared = False
            if was_shared:
                logger.warning("provider health is not shared: %s", type(exc).__name__)
        was_shared = is_shared
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(POLL_SECONDS):
                await (wake.wait() if is_shared else asyncio.sleep(POLL_SECONDS))


async def probe_forever(health: Health, providers: Callable[[], Sequence[Provider]]) -> None:
    """Probe providers that are failing, until cancelled.

    A provider is alive if it answers `GET {base_url}/models` with a status below 500. So a provider that flaps is never
    lost, even if each of its trials fails.
    """
    while True:
        await asyncio.sleep(PROBE_SECONDS)
        failing = [provider for provider in providers() if provider.name in health.failing()]
        alive = await asyncio.gather(*(_is_alive(provider) for provider in failing))
        for provider, answer in zip(failing, alive, strict=True):
            health.record_probe(provider.name, is_alive=answer)


async def _exchange(health: Health, providers: Sequence[Provider], alias: str) -> None:
    """Merge the records of some providers, then write those that lack local changes."""
    run = sync_to_async(lambda call: call(), thread_sensitive=False, executor=_thread)
    stored: dict[str, States] = await run(lambda: read(alias, providers, health.now))
    merge(health, stored)
    records = {}
    for each in providers:
        known, shared = health.states.get(each.name, {}), stored[each.name]
        if {slot: state.id for slot, state in known.items()} != {slot: state.id for slot, state in shared.items()}:
            records[key(each)] = record(known, health.now())
    if records:
        await run(lambda: write(alias, records))


def write(alias: str, records: dict[str, dict[str, Any]]) -> None:
    """Store the records of some providers, by key; raises the cache's own errors."""
    for place, states in records.items():
        caches[alias].set(place, states, KEEP_SECONDS)


def read(alias: str, providers: Iterable[Provider], clock: Callable[[], float]) -> dict[str, States]:
    """Return the shared states of some providers, by name and slot; raises the cache's own errors."""
    return {each.name: _stored(alias, key(each), clock) for each in providers}


def merge(health: Health, stored: dict[str, States]) -> None:
    """Merge newer states of other processes."""
    for name, states in stored.items():
        for slot, state in states.items():
            health.merge(name, slot, state)


def _stored(alias: str, place: str, clock: Callable[[], float]) -> States:
    """Decode a record; return nothing for invalid values of other programs."""
    cache: Any = caches[alias]
    asked = clock()
    try:
        left = cache.pttl(place)  # before the value, as the clock: a late read looks older
        if not left:
            return {}
        stored = msgspec.convert(cache.get(place), _Record)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return {}
    except Exception as exc:  # cache backends raise different errors
        if "WRONGTYPE" in f"{exc} {exc.__cause__}":
            return {}
        raise
    written = asked - max(0.0, KEEP_SECONDS - left / 1000)
    return {slot: _from_shared(shared, written) for slot, shared in stored.slots.items()}


def _from_shared(shared: _Shared, written: float) -> SlotState:
    return SlotState(
        id=shared.id,
        failures=shared.failures,
        cooled_at=written - shared.cooled_ago,
        cooling_until=written + shared.cooling_for,
        is_stated=shared.is_stated,
        failing_since=None if shared.failing_for is None else written - shared.failing_for,
        failed_at=written - shared.failed_ago,
        at=written - shared.known_for,
        unanswered_since=None if shared.unanswered_for is None else written - shared.unanswered_for,
        error=shared.error,
    )


def record(states: States, now: float) -> dict[str, Any]:
    """Return a provider's states as they are stored."""
    slots = {
        slot: _Shared(
            id=state.id,
            failures=state.failures,
            cooled_ago=_ago(state.cooled_at, now),
            cooling_for=max(0.0, state.cooling_until - now),
            is_stated=state.is_stated,
            failing_for=None if state.failing_since is None else _ago(state.failing_since, now),
            failed_ago=_ago(state.failed_at, now),
            known_for=_ago(state.at, now),
            unanswered_for=None if state.unanswered_since is None else _ago(state.unanswered_since, now),
            error=state.error,
        )
        for slot, state in states.items()
    }
    stored: dict[str, Any] = msgspec.to_builtins(_Record(slots))
    return stored


def _ago(at: float, now: float) -> float:
    return min(max(0.0, now - at), MAX_AGE_SECONDS)


def key(provider: Provider) -> str:
    """Return the key of a provider's record."""
    return keys.prefixed(f"provider:{provider.name}:{provider.endpoint}")


async def _is_alive(provider: Provider) -> bool:
    try:
        return await upstream.probe(provider) < 500
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False
