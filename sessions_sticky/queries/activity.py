"""What happened in the last minutes: turns and moves between providers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

from sessions_sticky.queries.reads import check_usage
from sessions_sticky.stores import usage
from sessions_sticky.stores.base import Store


class MinuteTurns(NamedTuple):
    """Turns of one minute. The outcome `failed` counts failed attempts, at the provider that failed."""

    began_at: datetime
    outcome: str
    bound_provider: str
    provider: str
    turns: int


class MinuteMoves(NamedTuple):
    """Sessions that were moved in one minute, `by` "gateway" or "operator"."""

    began_at: datetime
    reason: str
    by: str
    from_provider: str
    to_provider: str
    sessions: int


class Activity(NamedTuple):
    """Turns and moves by minute, the oldest first."""

    turns: list[MinuteTurns]
    moves: list[MinuteMoves]


def read_activity(store: Store, minutes: int) -> Activity:
    """Read the last minutes, including the current one, with one command for each hour."""
    check_usage(store, minutes)
    found = usage.read_activity(store.send(usage.activity_commands(minutes)), minutes)
    activity = Activity([], [])
    for minute, field, number in sorted(found):
        began_at = datetime.fromtimestamp(minute * 60, UTC)
        match field:
            case ["turns", outcome, bound, provider]:
                activity.turns.append(MinuteTurns(began_at, outcome, bound, provider, number))
            case ["moves", reason, by, from_provider, to_provider]:
                activity.moves.append(MinuteMoves(began_at, reason, by, from_provider, to_provider, number))
            case _:
                continue  # of another program
    return activity
