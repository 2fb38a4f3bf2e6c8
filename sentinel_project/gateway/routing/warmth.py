"""Where a conversation that was spilled has its prompt cache, and whether it returns to the provider it is bound to.

Returning is right while the cache there is warm. It is not when the cache has expired, nor when the provider came back
with an empty one after a restart. The trail says what should be warm where. It is read only while a provider is in
doubt: it cannot serve now, or could not within the time that caches live. Then one conversation at a time returns, and
the others that are warm elsewhere stay there, until a return shows what the provider's cache still holds and it has
not failed for some time.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from typing import NamedTuple

from sentinel_project.gateway import clock
from sentinel_project.gateway.conf import settings
from sentinel_project.gateway.providers.config import Provider
from sentinel_project.gateway.providers.health import Health
from sentinel_project.gateway.routing.reasons import CACHE_EXPIRED, CAME_BACK_COLD
from sessions_sticky import PromptCache, Session, SessionError, SessionManager, Trail, Usage
from sessions_sticky.turns import MIN_CACHED_TOKENS

READ_SECONDS = 0.25
"""How long a request waits for its trail; without it the request is routed as if nothing was known."""
RETURN_SECONDS = 60
"""How long the others wait for the outcome of a return."""
SHARE_SECONDS = 1
"""How long they wait after a cold one: until then another worker's finding is known here."""
QUIET_SECONDS = 10
"""How long a provider must not have failed before all return at once: a saturated one would refuse them again."""


class Returning(NamedTuple):
    """A conversation that returns to its provider while it is not known whether the cache there is still warm."""

    provider: str
    conversation_id: str
    expected: int
    health: Health
    warmth: Warmth

    def end(self, provider: str, usage: Usage | None) -> None:
        """Record which provider answered and what it used; None: there was no answer, or its usage is not known."""
        self.warmth.record_return(self, usage if provider == self.provider else None)


class Decision(NamedTuple):
    """How a conversation in doubt is routed.

    `first` is the provider to ask first, None to keep the order; `move_reason` why it moves if another than its own
    answers, None if it then only spills.
    """

    first: str | None = None
    move_reason: str | None = None
    returning: Returning | None = None


class Warmth:
    """What this process knows of providers in doubt."""

    def __init__(self) -> None:
        self._doubtful_since: dict[str, float] = {}
        self._away: set[str] = set()
        """Providers that could not serve when this process last routed one of their conversations."""
        self._returns: dict[str, float] = {}
        self._cold: dict[str, str] = {}
        """The last conversation that found a provider cold. One alone may have changed its beginning."""

    def note_failing(self, names: Sequence[str]) -> None:
        """Note the providers that fail now: their caches may be empty when they are back."""
        for name in names:
            self._doubtful_since[name] = time.monotonic()

    async def decide(
        self,
        session: Session,
        manager: SessionManager,
        candidates: list[Provider],
        configured: Sequence[Provider],
        health: Health,
    ) -> Decision | None:
        """Return how to route a session whose provider is in doubt; None when it is not, or nothing is known.

        A provider that is only slow or busy is among the candidates, behind others: its caches are not in doubt.
        """
        can_serve = any(each.name == session.provider for each in candidates)
        if not can_serve:
            self.note_failing([session.provider])
            self._away.add(session.provider)
        elif session.provider in self._away:  # it is back: only some workers try its cache now
            self._away.discard(session.provider)
            self._block_returns(session.provider, random.uniform(0, 2 * SHARE_SECONDS))  # noqa: S311 - no secret
        elif not self._is_doubtful(session.provider, configured):
            return None
        if not settings.SENTINEL_TRAIL_TURNS:
            return None
        trail = await _read(manager, session.id)
        home = next((each for each in configured if each.name == session.provider), None)
        # Without a turn at home it was bound before there were trails, or by another program: it may be warm there.
        if trail is None or home is None or home.name not in trail.caches:
            return None
        return self._decide(session, trail, home, candidates, health)

    def _decide(
        self, session: Session, trail: Trail, home: Provider, candidates: list[Provider], health: Health
    ) -> Decision:
        is_first, now = candidates[0].name == home.name, clock.now()
        at_home, last = trail.caches[home.name], trail.last_provider
        is_away = last != home.name and any(each.name == last for each in candidates)
        away = last if is_away and last is not None and trail.caches[last].expires_at > now else None
        if at_home.expires_at <= now:
            return Decision(away, CACHE_EXPIRED)
        if not is_first or away is None:
            return Decision(away)
        if _is_cold(at_home, home, health, now):
            return Decision(away, CAME_BACK_COLD)
        if at_home.tokens < MIN_CACHED_TOKENS:
            return Decision()
        if time.monotonic() - self._returns.get(home.name, -RETURN_SECONDS) < RETURN_SECONDS:
            return Decision(away)
        self._returns[home.name] = time.monotonic()
        return Decision(returning=Returning(home.name, session.id, at_home.tokens, health, self))

    def record_return(self, returning: Returning, usage: Usage | None) -> None:
        """Record what a return found. A cache that held less than half of what it should is cold.

        Not only one that held nothing: conversations share their first blocks, which the first return warms for all.
        """
        name = returning.provider
        self._returns.pop(name, None)
        if usage is None:
            return
        if usage.read * 2 >= returning.expected:
            self._cold.pop(name, None)
            returning.health.record_warm(name)
            if time.monotonic() - self._doubtful_since.get(name, -QUIET_SECONDS) < QUIET_SECONDS:
                self._block_returns(name, SHARE_SECONDS)
            else:
                self._doubtful_since.pop(name, None)
        elif self._cold.get(name) != returning.conversation_id:
            self._cold[name] = returning.conversation_id
            self._block_returns(name, SHARE_SECONDS)
            returning.health.record_cold(name)

    def _block_returns(self, name: str, seconds: float) -> None:
        """Block returns to a provider for `seconds`."""
        self._returns[name] = time.monotonic() - RETURN_SECONDS + seconds

    def _is_doubtful(self, name: str, configured: Sequence[Provider]) -> bool:
        since = self._doubtful_since.get(name)
        if since is None:
            return False
        if time.monotonic() - since < max(each.cache_seconds for each in configured):
            return True
        del self._doubtful_since[name]
        return False


async def watch_forever(warmth: Warmth, health: Health, seconds: float = 0.5) -> None:
    """Note the providers that fail, also those that only other workers have met, until cancelled."""
    while True:
        warmth.note_failing(health.failing())
        await asyncio.sleep(seconds)


def _is_cold(at_home: PromptCache, home: Provider, health: Health, now: float) -> bool:
    """Return whether the provider was found cold after the conversation's last turn there."""
    cold_for = health.cold_for(home.name)
    return cold_for is not None and at_home.expires_at - home.cache_seconds < now - cold_for


async def _read(manager: SessionManager, session_id: str) -> Trail | None:
    try:
        async with asyncio.timeout(READ_SECONDS):
            return await manager.atrail(session_id)
    except (SessionError, TimeoutError):
        return None
