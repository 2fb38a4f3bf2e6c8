"""The counters of recently created sessions by minute and hour, and requests for them."""

from __future__ import annotations

import time
from typing import Literal

from sessions_sticky import keys
from sessions_sticky.connections.commands import Batch, Command
from sessions_sticky.stores.history import PlannedChange

HOUR_MINUTES, DAY_HOURS = 60, 24
MINUTE_COUNTS = HOUR_MINUTES + 1
"""Number of counters for the last hour: one more than its minutes, because clocks differ."""

Counts = tuple[Literal["", "created", "done"], tuple[str, str]]
"""The option `counts` of a change, and its two counters."""


def counters_of(change: PlannedChange | None, counter: str) -> Counts:
    """Return the counters of a change: `counter` if given, else those of a new session's `created_at`."""
    if change is not None and counter:
        return "done", (counter, counter)
    created_at = change.after.created_at if change is not None and change.kind == "created" and change.after else 0
    if time.time() - created_at < DAY_HOURS * 3600:
        return "created", (keys.created("minute", created_at // 60), keys.created("hour", created_at // 3600))
    return "", (keys.index_all(), keys.index_all())


def created() -> Batch:
    """Read the counters of the last hour, `MINUTE_COUNTS` by minute, and those of the last day by hour.

    Each is a list of route name, number, route name, number ...
    """
    minute, hour = int(time.time()) // 60, int(time.time()) // 3600
    minutes = [keys.created("minute", minute - ago) for ago in range(-1, HOUR_MINUTES)]
    hours = [keys.created("hour", hour - ago) for ago in range(-1, DAY_HOURS)]
    return Batch([Command(("HGETALL", key)) for key in (*minutes, *hours)])


def created_per_hour(hour: int) -> Batch:
    """Read the counters of an hour, and of each of the 23 before it."""
    return Batch([Command(("HGETALL", keys.created("hour", hour - ago))) for ago in range(DAY_HOURS)])
