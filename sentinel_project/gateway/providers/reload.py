"""The providers in force: those of the start, then those of their file whenever it changes.

A change takes effect without a restart, in all workers of a machine at the same moment: two seconds after the file was
written. By then each of them has seen it, and an editor has written all of it; one worker that knows a new provider
before the others would bind conversations to it, which those would move.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Sequence

import msgspec

from sentinel_project.gateway import metrics
from sentinel_project.gateway.conf import settings
from sentinel_project.gateway.providers import controls
from sentinel_project.gateway.providers.config import Provider
from sentinel_project.gateway.providers.file import load_providers

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
SETTLE_SECONDS = 2.0

Version = tuple[int, ...]

_taken: list[tuple[Provider, ...]] = []
"""What was taken over last; empty before the first change."""
_drained: list[tuple[tuple[Provider, ...], frozenset[str], tuple[Provider, ...]]] = []
"""The last result of `providers` while some are drained: of what it was made, and by which drains."""


def configured() -> tuple[Provider, ...]:
    """Return the providers of the file in force."""
    return _taken[0] if _taken else settings.SENTINEL_PROVIDERS


def providers() -> tuple[Provider, ...]:
    """Return the providers in force; those that an operator drains have the weight 0."""
    current, drained = configured(), controls.drained()
    if not drained:
        return current
    if not _drained or _drained[0][0] is not current or _drained[0][1] != drained:
        effective = tuple(_without_weight(each) if each.name in drained else each for each in current)
        _drained[:] = [(current, drained, effective)]
    return _drained[0][2]


def _without_weight(provider: Provider) -> Provider:
    return msgspec.structs.replace(provider, weight=0)


def provider_names() -> list[str]:
    """Return the names of the providers in force: sessions are moved to no others."""
    return [provider.name for provider in providers()]


async def watch_forever(path: str | None, on_new_endpoint: Callable[[str], None] = lambda name: None) -> None:
    """Take over the file's changes until cancelled; one that cannot be used is logged, and changes nothing.

    `path` None: there is no file to change. `on_new_endpoint` is called with the name of each provider whose requests
    no longer go where they went, or with the same key.
    """
    known: Version | None = None  # not the file's now: it may have changed since the settings read it
    while path is not None:
        version = await asyncio.to_thread(_version, path)
        if version != known:
            await asyncio.sleep(_settles_in(version))
            if await asyncio.to_thread(_version, path) != version:
                continue  # it is still being written
            known = version
            for name in await _take_over(path):
                on_new_endpoint(name)
        await asyncio.sleep(POLL_SECONDS)


def _version(path: str) -> Version:
    """Return what changes with each change of the file, first when that was, in nanoseconds; zeros without a file."""
    try:
        status = os.stat(path)
    except OSError:
        return 0, 0, 0
    # The inode's change: a file that is moved into place keeps its own times.
    return status.st_ctime_ns, status.st_size, status.st_ino


def _settles_in(version: Version) -> float:
    """Return the seconds until the file may be read. Another machine's clock may be ahead, no file has no time."""
    age = time.time() - version[0] / 1e9
    return SETTLE_SECONDS - max(0, age) if version[0] else SETTLE_SECONDS


async def _take_over(path: str) -> list[str]:
    """Take over a file; return the names of the providers that are no longer where they were."""
    try:
        new = await asyncio.to_thread(load_providers, path)
    except ValueError as exc:
        metrics.provider_reloads.labels("refused").inc()
        logger.error("the providers stay as they were, for their file cannot be used: %s", exc)
        return []
    old = configured()
    if new != old:
        _taken[:] = [new]
        metrics.provider_reloads.labels("taken").inc()
        logger.info("the providers have changed: %s", _difference(old, new))
    endpoints = {(each.name, each.endpoint) for each in new}
    return [each.name for each in old if (each.name, each.endpoint) not in endpoints]


def _difference(old: Sequence[Provider], new: Sequence[Provider]) -> str:
    before, after = ({provider.name: provider for provider in each} for each in (old, new))
    groups = {
        "new": after.keys() - before.keys(),
        "gone": before.keys() - after.keys(),
        "changed": {name for name in after.keys() & before.keys() if after[name] != before[name]},
    }
    said = [f"{what} {', '.join(sorted(names))}" for what, names in groups.items() if names]
    return "; ".join(said) or "their order"
