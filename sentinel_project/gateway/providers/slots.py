"""The state of a provider's slots: the provider as a whole, its account, each model, its prompt caches; no I/O."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from sentinel_project.gateway.providers.failures import Cools

PROVIDER = "provider"
ACCOUNT = "account"
SLOW = "slow"
"""The slot of a provider's pace: `is_stated` while it starts its streams too late."""
MAX_ERROR_LENGTH = 200
CACHE = "cache"
"""The slot of a provider's prompt caches: a conversation found them cold at `cooled_at`; `is_stated`: so did two."""


def model_slot(model: str) -> str:
    """Return the slot of a provider's model; other slots are PROVIDER and ACCOUNT."""
    return f"model:{model}"


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


HEALTHY = SlotState()


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
