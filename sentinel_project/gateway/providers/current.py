"""The current providers: those of the start, then those of their file whenever it changes.

A change takes effect without a restart, in all workers of a machine at the same moment: two seconds after the file was
written. By then all workers have noticed it, and an editor has written all of it. A worker that knew a new provider
before the others would bind conversations to it, and those would move them.
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

_reloaded: list[tuple[Provider, ...]] = []
"""The providers of the last reload; empty before the first one."""
_drained: list[tuple[tuple[Provider, ...], frozenset[str], tuple[Provider, ...]]] = []
"""The last result of `providers` while some are drained, after its two inputs."""


def configured() -> tuple[Provider, ...]:
    """Return the providers as the file has them."""
    return _reloaded[0] if _reloaded else settings.SENTINEL_PROVIDERS


def providers() -> tuple[Provider, ...]:
    """Return the current providers; those that an operator drains have the weight 0."""
    current, drained = configured(), controls.drained()
    if not drained:
        return current
    if not _drained or _drained[0][0] is not current or _drained[0][1] != drained:
        effective = tuple(msgspec.structs.replace(each, weight=0) if each.name in drained else each for each in current)
        _drained[:] = [(current, drained, effective)]
    return _drained[0][2]


def provider_names() -> list[str]:
    """Return the names of the current providers, to which sessions may be moved."""
    return [provider.name for provider in providers()]


async def watch_forever(path: str | None, on_new_endpoint: Callable[[str], None] = lambda name: None) -> None:
    """Apply changes of the file until cancelled; an invalid file is logged and changes nothing.

    `path` None: there is no file. `on_new_endpoint` is called with the name of each provider whose URL or key has
    changed.
    """
    known: Version | None = None  # not the file's now: it may have changed since the settings read it
    while path is not None:
        version = await asyncio.to_thread(_version, path)
        if version != known:
            await asyncio.sleep(_settles_in(version))
            if await asyncio.to_thread(_version, path) != version:
                continue  # it is still being written
            known = version
            for name in await _apply(path):
                on_new_endpoint(name)
        await asyncio.sleep(POLL_SECONDS)


def _version(path: str) -> Version:
    """Return time of the last change in nanoseconds, size and inode of the file; zeros without a file."""
    try:
        status = os.stat(path)
    except OSError:
        return 0, 0, 0
    # The inode's change: a file that is moved into place keeps its own times.
    return status.st_ctime_ns, status.st_size, status.st_ino


def _settles_in(version: Version) -> float:
    """Return the seconds until the file may be read; at most `SETTLE_SECONDS`, also if another clock is ahead."""
    age = time.time() - version[0] / 1e9
    return SETTLE_SECONDS - max(0, age) if version[0] else SETTLE_SECONDS


async def _apply(path: str) -> list[str]:
    """Apply a changed file; return the names of the providers whose endpoint has changed."""
    try:
        new = await asyncio.to_thread(load_providers, path)
    except ValueError as exc:
        metrics.provider_reloads.labels("refused").inc()
        logger.error("providers not reloaded, their file is invalid: %s", exc)
        return []
    old = configured()
    if new != old:
        _reloaded[:] = [new]
        metrics.provider_reloads.labels("taken").inc()
        logger.info("providers reloaded: %s", _difference(old, new))
    endpoints = {(each.name, each.endpoint) for each in new}
    return [each.name for each in old if (each.name, each.endpoint) not in endpoints]


def _difference(old: Sequence[Provider], new: Sequence[Provider]) -> str:
    before, after = ({provider.name: provider for provider in each} for each in (old, new))
    groups = {
        "new": after.keys() - before.keys(),
        "gone": before.keys() - after.keys(),
        "changed": {name for name in after.keys() & before.keys() if after[name] != before[name]},
    }
    changes = [f"{kind} {', '.join(sorted(names))}" for kind, names in groups.items() if names]
    return "; ".join(changes) or "their order"
