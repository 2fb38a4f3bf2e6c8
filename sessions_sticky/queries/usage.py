"""Usage of the turns of the last minutes or hours."""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

from sessions_sticky.queries.reads import check_usage
from sessions_sticky.stores import usage
from sessions_sticky.stores.base import Store
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


def read_usage(store: Store, minutes: int) -> UsageReport:
    """Sum the last minutes, including the current one; above 60, whole hours."""
    check_usage(store, minutes)
    batch = usage.read_commands(minutes)
    replies = store.send(batch)
    hours = ceil(minutes / 60)
    by_route = usage.read_sums(replies[:-hours], 3)
    by_owner = usage.read_sums(replies[-hours:], 1)
    routes = [
        RouteUsage(provider, model, outcome, usage.totals_of(measures), usage.first_bytes_of(measures))
        for (provider, model, outcome), measures in sorted(by_route.items())
    ]
    owners = [OwnerUsage(owner, usage.totals_of(measures)) for (owner,), measures in sorted(by_owner.items())]
    return UsageReport(routes, sorted(owners, key=lambda each: each.totals.input, reverse=True))


def first_byte_ms(first_bytes: dict[int, int], share: float) -> int | None:
    """Return the quantile of the times to first byte as a bucket bound; 0: above all bounds, None: no data."""
    left = ceil(share * sum(first_bytes.values()))
    for bound in sorted(first_bytes, key=lambda each: each or float("inf")):
        left -= first_bytes[bound]
        if left <= 0:
            return bound
    return None
