"""Which providers are up: learned from the answers to chats, kept by each process, shared by shared_health.py.

A failure (no connection, no answer in time, 5xx, 429) cools a provider down: nobody is sent there for a while. When
that is over one request tries it; the others wait for its outcome. Success ends it, failure doubles the while.

Times are Unix seconds, for other machines read them too; their clocks are taken to agree within a second. What one
says whose clock is far ahead is not believed until then.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated

import msgspec

MAX_COOLDOWN_SECONDS = 300
MAX_DOUBLINGS = 9
"""From 1 s to more than MAX_COOLDOWN_SECONDS; after 1024, which some days of failures take, floats end."""
MAX_RETRY_AFTER_SECONDS = 3600
TRIAL_SECONDS = 10
"""How long the others wait for the outcome of a trial before one more is let through."""
LOST_SECONDS = 90
"""After failing for so long without any sign of life a provider is lost: its conversations move for good."""
CLOCK_SECONDS = 60
"""How far ahead another machine's clock may be; what is from later still would stand, for nothing is newer."""

Seconds = Annotated[float, msgspec.Meta(ge=0)]


class Condition(msgspec.Struct, frozen=True):
    """What is known of one provider; every change makes a new one.

    `failures` counts cooldowns in a row, 0 is healthy; the last began at `cooled_at`. `failing_since` and `failed_at`
    are the first and the last time that it gave no sign of life; 0 when it has given one since. `at` is when this
    became known.
    """

    failures: Annotated[int, msgspec.Meta(ge=0)] = 0
    cooled_at: Seconds = 0
    cooling_until: Seconds = 0
    failing_since: Seconds = 0
    failed_at: Seconds = 0
    at: Seconds = 0


HEALTHY = Condition()


def is_credible(condition: Condition, now: float) -> bool:
    """Whether a condition may be true `now`: nothing in it is from the future, and its cooldown not longer than any."""
    until = condition.cooling_until - MAX_RETRY_AFTER_SECONDS
    times = (condition.cooled_at, until, condition.failing_since, condition.failed_at, condition.at)
    return max(times) <= now + CLOCK_SECONDS


def is_lost(condition: Condition) -> bool:
    """Whether a provider has given no sign of life for so long that its conversations should move."""
    return condition.failing_since > 0 and condition.failed_at - condition.failing_since >= LOST_SECONDS


def _failing_since(condition: Condition, now: float) -> float:
    """Return since when a provider fails that fails now; anew when nobody looked for long: it was not configured."""
    return condition.failing_since if now - condition.failed_at < LOST_SECONDS and condition.failing_since else now


class Health:
    """The condition of every provider, by name. `on_change` is called with the name of one that has changed."""

    def __init__(self, cooldown_seconds: float, clock: Callable[[], float] = time.time) -> None:
        self.conditions: dict[str, Condition] = {}
        self.on_change: Callable[[str], None] = lambda name: None
        self._cooldown_seconds = cooldown_seconds
        self._now = clock

    def is_cooling(self, name: str) -> bool:
        """Whether nobody is to be sent there now."""
        return self._now() < self._of(name).cooling_until

    def seconds_left(self, name: str) -> float:
        """How long the cooldown goes on; 0 when there is none."""
        return max(0.0, self._of(name).cooling_until - self._now())

    def is_lost(self, name: str) -> bool:
        """Whether it has given no sign of life for so long that its conversations should move."""
        return is_lost(self._of(name))

    def begin(self, name: str) -> None:
        """Note that a request goes there: after a cooldown it is the trial, and the others are held back."""
        condition = self._of(name)
        if condition.failures:
            hold = min(TRIAL_SECONDS, self._cooldown_seconds)
            self._set(name, msgspec.structs.replace(condition, cooling_until=self._now() + hold))

    def failed(self, name: str, *, retry_after: float | None = None, alive: bool = False) -> None:
        """Cool down. `retry_after` seconds are the provider's own wish; `alive`: it did answer, if only to refuse."""
        now, condition = self._now(), self._of(name)
        # Requests that were under way together fail together: they count once.
        together = now - condition.cooled_at < self._cooldown_seconds
        failures = condition.failures if together and condition.failures else condition.failures + 1
        cooled_at = condition.cooled_at if together else now
        doublings = min(failures - 1, MAX_DOUBLINGS)
        cooldown = min(self._cooldown_seconds * 2.0**doublings, MAX_COOLDOWN_SECONDS)
        until = cooled_at + cooldown if retry_after is None else now + min(retry_after, MAX_RETRY_AFTER_SECONDS)
        since = 0 if alive else _failing_since(condition, now)
        self._set(name, Condition(failures, cooled_at, until, since, 0 if alive else now))

    def answered(self, name: str) -> None:
        """Note a success."""
        if self._of(name).failures:
            self._set(name, HEALTHY)

    def probed(self, name: str, *, alive: bool) -> None:
        """Note whether a provider that is cooling down gives a sign of life; the cooldown stays.

        Not told to others, who look for themselves: it would put what this process knows of the cooldown, old as it
        may be, in the place of what another has learned since.
        """
        condition, now = self._of(name), self._now()
        since = 0 if alive else _failing_since(condition, now)
        self.conditions[name] = msgspec.structs.replace(condition, failing_since=since, failed_at=now)

    def learn(self, name: str, condition: Condition) -> None:
        """Take over what another process knows, if it is newer."""
        if condition.at > self._of(name).at:
            self.conditions[name] = condition

    def failing(self) -> list[str]:
        """Return the names of the providers that are not healthy."""
        return [name for name, condition in self.conditions.items() if condition.failures]

    def _of(self, name: str) -> Condition:
        return self.conditions.get(name, HEALTHY)

    def _set(self, name: str, condition: Condition) -> None:
        self.conditions[name] = msgspec.structs.replace(condition, at=self._now())
        self.on_change(name)
