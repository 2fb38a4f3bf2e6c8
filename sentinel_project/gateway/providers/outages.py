"""The history of outages: when each provider failed, its error, and how many requests spilled over and sessions moved.

The worker that gets the first answer adds the outage to a list in Django's cache.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Annotated

import msgspec

from sentinel_project.gateway import shared_cache
from sentinel_project.gateway.providers.health import Health
from sentinel_project.gateway.providers.slots import MAX_ERROR_LENGTH, Recovery
from sessions_sticky import SessionError, keys, sessions
from sessions_sticky.stores.usage import MAX_MINUTES
from sessions_sticky.turns import SPILLED, Seconds

logger = logging.getLogger(__name__)

KEPT = 20
KEEP_SECONDS = 30 * 86_400
SETTLE_SECONDS = 3.0
"""Delay until the turns before a recovery have been counted."""
SAME_SECONDS = 10.0
"""Maximum difference between the times that two workers record for one outage."""

_Number = Annotated[int, msgspec.Meta(ge=0)]


class Outage(msgspec.Struct, frozen=True):
    """One outage, in Unix seconds. Of the provider's conversations: requests spilled over, and sessions moved."""

    began_at: Seconds
    ended_at: Seconds
    error: Annotated[str, msgspec.Meta(max_length=MAX_ERROR_LENGTH)]
    spilled: _Number
    moved: _Number


async def record_forever(health: Health) -> None:
    """Record the ends of outages that this process meets, until cancelled."""
    ended: asyncio.Queue[Recovery] = asyncio.Queue()
    health.on_recovery = ended.put_nowait
    while True:
        recovery = await ended.get()
        ended_at = time.time() - (health.now() - recovery.ended_at)
        began_at = ended_at - (recovery.ended_at - recovery.began_at)
        await asyncio.sleep(SETTLE_SECONDS)
        try:
            await shared_cache.in_thread(_record, recovery.provider, began_at, ended_at, recovery.error)
        except Exception as exc:  # cache backends raise different errors
            logger.warning("outage of provider %r not recorded: %s", recovery.provider, type(exc).__name__)


def read(name: str) -> list[Outage]:
    """Return the outages of a provider, the latest first; raises the cache's own errors."""
    return shared_cache.read(_key(name), list[Outage]) or []


def _record(name: str, began_at: float, ended_at: float, error: str) -> None:
    spilled, moved = _consequences(name, began_at)
    others = [each for each in read(name) if abs(each.began_at - began_at) > SAME_SECONDS]
    latest = Outage(began_at, ended_at, error, spilled, moved)
    shared_cache.write(_key(name), [latest, *others][:KEPT], KEEP_SECONDS)


def _consequences(name: str, began_at: float) -> tuple[int, int]:
    """Return how many requests were spilled over from a provider, and how many sessions moved, since a time."""
    minutes = int((time.time() - began_at) // 60) + 2
    try:
        turns, moves = sessions.activity(min(minutes, MAX_MINUTES))
    except SessionError:
        return 0, 0
    since = began_at - 60
    return (
        sum(
            each.turns
            for each in turns
            if each.bound_provider == name and each.outcome == SPILLED and each.began_at.timestamp() > since
        ),
        sum(each.sessions for each in moves if each.from_provider == name and each.began_at.timestamp() > since),
    )


def _key(name: str) -> str:
    return keys.prefixed(f"provider-outages:{name}")
