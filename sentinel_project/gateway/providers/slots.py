"""The state of a provider's slots and how it changes; performs no I/O.

A provider has a slot for itself as a whole, its account, each model, its pace and its prompt caches.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from sentinel_project.gateway.providers.failures import Cools

ACCOUNT_SECONDS = 60
"""The first cooldown of an account: an operator has to pay a bill or set a variable."""
MAX_COOLDOWN_SECONDS = 300
MAX_DOUBLINGS = 9
"""Doublings of 1 s that exceed MAX_COOLDOWN_SECONDS. Without a limit, days of failures would overflow 2.0 ** 1024."""
MAX_RETRY_AFTER_SECONDS = 3600
TRIAL_SECONDS = 10
"""How long other requests wait for the result of a trial before another one is sent."""
LOST_SECONDS = 90
"""Time without any answer, probes included, after which a provider is lost: its conversations move."""
MAX_ERROR_LENGTH = 200

PROVIDER = "provider"
ACCOUNT = "account"
SLOW = "slow"
"""The slot of a provider's pace: `is_stated` while it starts its streams too late."""
CACHE = "cache"
"""The slot of a provider's prompt caches: a conversation found them cold at `cooled_at`; `is_stated`: so did two."""
COLD = "prompt caches are cold"
"""The `error` of that slot."""


def named(name: str, slot: str) -> str:
    """Return a provider's slot for a log line."""
    return f"provider {name!r}" if slot == PROVIDER else f"{slot} of provider {name!r}"


def model_slot(model: str) -> str:
    """Return the slot of a provider's model; other slots are PROVIDER and ACCOUNT."""
    return f"model:{model}"


class Failure(NamedTuple):
    """What a failed request says. `retry_after` is the wait in seconds that the provider states, None without one.

    `is_alive`: the provider answered, if only to refuse. `conversation` names whose request failed. `error` is what
    operators see of it: at most `MAX_ERROR_LENGTH` characters are kept.
    """

    cools: Cools
    retry_after: float | None = None
    is_alive: bool = False
    conversation: str = ""
    error: str = ""

    @property
    def is_certain(self) -> bool:
        """Whether it counts immediately: a request cannot have caused it, or the provider states a time."""
        return self.cools is not Cools.OUTLIER or self.retry_after is not None


class SlotState(msgspec.Struct, frozen=True):
    """The state of one slot of a provider; every change makes a new one, with a new `id`.

    `failures` counts cooldowns in a row, 0 is healthy; the last began at `cooled_at`. `is_stated`: its end is a time
    that the provider stated. `failing_since` and `failed_at` are the first and the last failure without any answer;
    `failing_since` is None after one. `unanswered_since`: no answer since then; None while only limits were reached.
    `error` is the last one. `at` is when this became known.
    """

    id: str = ""
    failures: int = 0
    cooled_at: float = 0
    cooling_until: float = 0
    is_stated: bool = False
    failing_since: float | None = None
    failed_at: float = 0
    at: float = 0
    unanswered_since: float | None = None
    error: str = ""

    @property
    def is_lost(self) -> bool:
        """Whether the provider is lost, so that its conversations should move."""
        return self.failing_since is not None and self.failed_at - self.failing_since >= LOST_SECONDS

    @property
    def is_cold_once(self) -> bool:
        """Whether one conversation has found the prompt caches cold; a second one would prove it."""
        return self.error == COLD and not self.is_stated

    def cooled(self, slot: str, failure: Failure, now: float, cooldown_seconds: float) -> SlotState:
        """Return the state after a failure that cools the slot down."""
        base = ACCOUNT_SECONDS if slot == ACCOUNT and cooldown_seconds else cooldown_seconds
        # Requests that were under way together fail together: they count once.
        together = self.failures > 0 and now - self.cooled_at < base
        failures = self.failures if together else self.failures + 1
        cooled_at = self.cooled_at if together else now
        until = cooled_at + min(base * 2.0 ** min(failures - 1, MAX_DOUBLINGS), MAX_COOLDOWN_SECONDS)
        is_stated = failure.retry_after is not None and slot not in (ACCOUNT, PROVIDER)
        if is_stated:
            until = now + min(failure.retry_after or 0, MAX_RETRY_AFTER_SECONDS)
        since = None if failure.is_alive else self._failing_since(now)
        unanswered = self.unanswered_since
        if unanswered is None and failure.cools is not Cools.MODEL:
            unanswered = now
        error = failure.error[:MAX_ERROR_LENGTH]
        return SlotState("", failures, cooled_at, until, is_stated, since, now, 0, unanswered, error)

    def on_trial(self, now: float, cooldown_seconds: float) -> SlotState:
        """Return the state while one request tries a slot whose cooldown is over; the others wait for its outcome."""
        until = now + min(TRIAL_SECONDS, cooldown_seconds)
        return msgspec.structs.replace(self, cooling_until=until, is_stated=False)

    def found_cold(self, now: float) -> SlotState:
        """Return the state of the prompt caches' slot after a conversation found them cold."""
        return SlotState(cooled_at=now, is_stated=self.is_cold_once, error=COLD)

    def probed(self, now: float, *, is_alive: bool) -> SlotState:
        """Return the state after a probe of a provider that cools down; the cooldown stays."""
        since = None if is_alive else self._failing_since(now)
        return msgspec.structs.replace(self, failing_since=since, failed_at=now)

    def _failing_since(self, now: float) -> float:
        """Return the start of an outage: now, unless a failure was observed less than `LOST_SECONDS` ago."""
        if self.failing_since is not None and now - self.failed_at < LOST_SECONDS:
            return self.failing_since
        return now


HEALTHY = SlotState()


class Recovery(NamedTuple):
    """The end of an outage by the first answer; times are monotonic seconds."""

    provider: str
    began_at: float
    ended_at: float
    error: str
