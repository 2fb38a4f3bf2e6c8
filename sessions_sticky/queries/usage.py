"""Usage of the turns of the last minutes or hours, and their activity: turns and moves between providers."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from math import ceil
from typing import Any, NamedTuple

from sessions_sticky import keys
from sessions_sticky.stores.base import Store, require_index
from sessions_sticky.stores.usage import FIRST_BYTES, MAX_MINUTES, MEASURES, MINUTES_KEPT, read_fields, read_hashes
from sessions_sticky.turns import TurnTotals


class RouteUsage(NamedTuple):
    """Usage of turns with one outcome at one provider and model. The outcome `failed` counts failed attempts.

    `first_bytes` are numbers of answers by the upper bound of their time to the first byte, in milliseconds; 0 stands
    for above all bounds.
    """

    provider: str
    model: str
    outcome: str
    totals: TurnTotals
    first_bytes: dict[int, int]


class OwnerUsage(NamedTuple):
    """Usage of the turns of one owner."""

    owner: str
    totals: TurnTotals

    @property
    def external_id(self) -> str:
        """Former name of `owner`; the next version removes it."""
        return self.owner


class UsageReport(NamedTuple):
    """Usage by provider, model and outcome, and by owner, the largest input first."""

    routes: list[RouteUsage]
    owners: list[OwnerUsage]


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


def read_usage(store: Store, minutes: int) -> UsageReport:
    """Sum the last minutes, including the current one; above 60, whole hours."""
    _check(store, minutes)
    now = int(time.time())
    hours = [now // 3600 - ago for ago in range(ceil(minutes / 60))]
    of_routes = [keys.usage("hour", hour) for hour in hours]
    if minutes <= MINUTES_KEPT:
        of_routes = [keys.usage("minute", now // 60 - ago) for ago in range(minutes)]
    replies = store.send(read_hashes([*of_routes, *(keys.usage("owners", hour) for hour in hours)]))
    by_route = _sums(replies[: len(of_routes)], 3)
    by_owner = _sums(replies[len(of_routes) :], 1)
    routes = [
        RouteUsage(provider, model, outcome, _totals(measures), _first_bytes(measures))
        for (provider, model, outcome), measures in sorted(by_route.items())
    ]
    owners = [OwnerUsage(owner, _totals(measures)) for (owner,), measures in sorted(by_owner.items())]
    return UsageReport(routes, sorted(owners, key=lambda each: each.totals.input, reverse=True))


def read_activity(store: Store, minutes: int) -> Activity:
    """Read the last minutes, including the current one, with one command for each hour."""
    _check(store, minutes)
    now = int(time.time()) // 60
    first = now - minutes + 1
    replies = store.send(read_hashes(keys.usage("activity", hour) for hour in range(first // 60, now // 60 + 1)))
    activity = Activity([], [])
    found = [
        (int(minute), field, number)
        for (minute, *field), number in read_fields(replies)
        if minute.isdecimal() and len(minute) < 12 and int(minute) >= first
    ]
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


def first_byte_ms(first_bytes: dict[int, int], share: float) -> int | None:
    """Return the quantile of the times to first byte as a bucket bound; 0: above all bounds, None: no data."""
    left = ceil(share * sum(first_bytes.values()))
    for bound in sorted(first_bytes, key=lambda each: each or float("inf")):
        left -= first_bytes[bound]
        if left <= 0:
            return bound
    return None


def _sums(hashes: Iterable[Any], parts: int) -> dict[tuple[str, ...], Counter[str]]:
    """Return the measures of each route or owner, by the parts of its name."""
    found: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for (*field, measure), number in read_fields(hashes):
        if len(field) == parts:
            found[tuple(field)][measure] += number
    return found


def _totals(measures: Counter[str]) -> TurnTotals:
    return TurnTotals(**{name: measures[name] for name in MEASURES})


def _first_bytes(measures: Counter[str]) -> dict[int, int]:
    return {bound: measures[name] for bound, name in FIRST_BYTES if measures[name]}


def _check(store: Store, minutes: int) -> None:
    """Raise `ValueError` unless usage is kept for so many minutes, `SessionNotSupported` for a cache without usage."""
    if isinstance(minutes, bool) or not isinstance(minutes, int) or not 1 <= minutes <= MAX_MINUTES:
        raise ValueError(f"minutes must be a whole number from 1 to {MAX_MINUTES}, not {minutes!r}")
    require_index(store, "add up usage")
