"""Sharing the condition of providers between the workers, through Django's cache; off the chat path.

What one worker learns, all know within a second. Without the cache each goes by what it has learned itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import aiohttp
import msgspec
from asgiref.sync import sync_to_async
from django.core.cache import caches

from sentinel_project.gateway import metrics
from sentinel_project.gateway.providers.config import Provider
from sentinel_project.gateway.providers.health import (
    MAX_COOLDOWN_SECONDS,
    MAX_RETRY_AFTER_SECONDS,
    Condition,
    Health,
    is_credible,
)
from sentinel_project.gateway.upstream import client as upstream

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
PROBE_SECONDS = 3.0
KEEP_SECONDS = MAX_RETRY_AFTER_SECONDS + MAX_COOLDOWN_SECONDS
"""How long what is known stays in the cache after its last change."""

_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="shared_health")
"""Its own: asgiref's one for all that is sensitive may wait for the database, asyncio's few for names of hosts."""


async def share_forever(health: Health, providers: Callable[[], Sequence[Provider]], alias: str) -> None:
    """Publish what this worker learns, and learn what others publish, until cancelled."""
    changed: set[str] = set()
    wake = asyncio.Event()

    def note(name: str) -> None:
        changed.add(name)
        wake.set()

    health.on_change = note
    was_shared = True
    told: set[str] = set()
    while True:
        wake.clear()
        names = [provider.name for provider in providers()]
        mine = {name: health.conditions[name] for name in changed}
        try:
            exchange = sync_to_async(_exchange, thread_sensitive=False, executor=_thread)
            for name, condition in (await exchange(alias, mine, names)).items():
                health.learn(name, condition)
            changed -= {name for name, sent in mine.items() if health.conditions[name] is sent}
            shared = True
        except Exception as exc:  # each cache backend has errors of its own
            shared = False
            if was_shared:
                logger.warning("provider health is not shared: %s", type(exc).__name__)
        was_shared = shared
        for name in told.union(names):
            metrics.provider_cooling.labels(name).set(name in names and health.is_cooling(name))
        told |= set(names)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(POLL_SECONDS):
                await (wake.wait() if shared else asyncio.sleep(POLL_SECONDS))


async def probe_forever(health: Health, providers: Callable[[], Sequence[Provider]]) -> None:
    """Look for signs of life in providers that are failing, until cancelled.

    Any answer below 500 to `GET {base_url}/models` is one. Hence a provider that flaps is never taken for lost, be
    its trials ever so unlucky.
    """
    while True:
        await asyncio.sleep(PROBE_SECONDS)
        failing = [provider for provider in providers() if provider.name in health.failing()]
        alive = await asyncio.gather(*(_is_alive(provider) for provider in failing))
        for provider, answer in zip(failing, alive, strict=True):
            if provider.name in health.failing():
                health.probed(provider.name, alive=answer)


def _exchange(alias: str, mine: dict[str, Condition], names: list[str]) -> dict[str, Condition]:
    for name, condition in mine.items():
        caches[alias].set(_key(name), msgspec.to_builtins(condition), KEEP_SECONDS)
    return read(alias, names)


def read(alias: str, names: list[str]) -> dict[str, Condition]:
    """Return what is shared of some providers, by name; raises the cache's own errors."""
    stored = {name: _stored(alias, name) for name in names}
    return {name: condition for name, condition in stored.items() if condition is not None}


def _stored(alias: str, name: str) -> Condition | None:
    """Read one; None as well for what another program has put there, which must not hide the others."""
    try:
        stored = caches[alias].get(_key(name))
        condition = msgspec.convert(stored, Condition) if stored is not None else None
        return condition if condition and is_credible(condition, time.time()) else None
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    except Exception as exc:  # each cache backend has errors of its own
        if "WRONGTYPE" in f"{exc} {exc.__cause__}":
            return None
        raise


def _key(name: str) -> str:
    return f"sentinel:provider:{name}"


async def _is_alive(provider: Provider) -> bool:
    try:
        return await upstream.probe(provider) < 500
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False
