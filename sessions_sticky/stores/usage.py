"""Usage of turns, summed by minute and by hour: HASHes of numbers whose fields are JSON lists.

The fields are `[provider, model, outcome, measure]` for the routes and `[owner, measure]` for the owners. Measures are
the fields of `TurnTotals`, and `first_byte` with the bucket's upper bound in milliseconds (0: above all bounds).

The activity of an hour is one HASH. Its fields are `[minute, "turns", outcome, bound provider, provider]` and
`[minute, "moves", reason, by, from provider, to provider]`.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import msgspec

from sessions_sticky import keys
from sessions_sticky.connections.commands import Batch, Command, Script, ScriptCall
from sessions_sticky.metrics import FIRST_BYTE_BUCKETS, GATEWAY
from sessions_sticky.turns import FAILED, REBOUND, Turn, TurnTotals

INCREMENT = Script("increment")

MINUTES_KEPT, HOURS_KEPT = 60, 24
MAX_MINUTES = HOURS_KEPT * 60
OPERATOR = "operator"
MAX_REASON_LENGTH = 200
"""Maximum number of characters of a reason in the activity; the history has all of it."""
FIRST_BYTE_MS = [round(1_000 * seconds) for seconds in FIRST_BYTE_BUCKETS]
"""Upper bounds of the buckets of times to the first byte; the stored measures have them in their names."""
FIRST_BYTES = [(bound, f"first_byte {bound}") for bound in (*FIRST_BYTE_MS, 0)]
"""Each bound with its measure."""
MEASURES = TurnTotals.__struct_fields__

Sums = Counter[tuple[str, ...]]
"""Numbers by the parts of their field."""
Numbers = tuple[int, ...]
"""What a turn adds to each of the measures."""


class UsageSums(NamedTuple):
    """Sums of some turns by provider, model, outcome and measure, by owner and measure, and of the activity."""

    routes: Sums
    owners: Sums
    activity: Sums


def add_up(turns: Iterable[tuple[Turn, tuple[int, int]]]) -> UsageSums:
    """Sum turns, each with the tokens expected and lost."""
    routes, owners, activity = Sums(), Sums(), Sums()
    by_route: defaultdict[tuple[str, ...], list[Numbers]] = defaultdict(list)
    by_owner: defaultdict[tuple[str, ...], list[Numbers]] = defaultdict(list)
    for turn, (expected, lost) in turns:
        route = turn.provider, turn.model, turn.outcome
        lost_money = round(lost * turn.price.discount) if turn.price else 0
        numbers = (*turn.sums, expected, lost, lost_money)
        by_route[route].append(numbers)
        by_owner[(turn.owner,)].append(numbers)
        if turn.first_byte_ms is not None:
            routes[*route, FIRST_BYTES[bisect_left(FIRST_BYTE_MS, turn.first_byte_ms)][1]] += 1
        for attempt in turn.attempts:
            routes[attempt.provider, turn.model, FAILED, "turns"] += 1
            activity["turns", FAILED, turn.bound_provider, attempt.provider] += 1
        activity["turns", turn.outcome, turn.bound_provider, turn.provider] += 1
        if turn.outcome == REBOUND:
            activity["moves", turn.reason, GATEWAY, turn.bound_provider, turn.provider] += 1
    _add(routes, by_route)
    _add(owners, by_owner)
    return UsageSums(routes, owners, activity)


def move_sums(reason: str, actor: str, numbers: Mapping[tuple[str, str], int]) -> UsageSums:
    """Return the activity of moving numbers of sessions, each from one provider to another one."""
    by = GATEWAY if actor == GATEWAY else OPERATOR
    reason = reason[:MAX_REASON_LENGTH].encode(errors="replace").decode()  # lone surrogates have no UTF-8 form
    moves = {("moves", reason, by, *providers): number for providers, number in numbers.items()}
    return UsageSums(Sums(), Sums(), Sums(moves))


def add_commands(sums: UsageSums) -> Batch:
    """Add to the sums of this minute and this hour."""
    now = int(time.time())
    minute = str(now // 60)
    activity = Sums({(minute, *field): number for field, number in sums.activity.items()})
    parts = (
        (keys.usage("activity", now // 3600), activity, (HOURS_KEPT + 2) * 3600),
        (keys.usage("minute", now // 60), sums.routes, (MINUTES_KEPT + 2) * 60),
        (keys.usage("hour", now // 3600), sums.routes, (HOURS_KEPT + 2) * 3600),
        (keys.usage("owners", now // 3600), sums.owners, (HOURS_KEPT + 2) * 3600),
    )
    return Batch([_increment(key, part, kept_seconds) for key, part, kept_seconds in parts if part])


def read_hashes(names: Iterable[str]) -> Batch:
    """Read HASHes of numbers, each as a list of field, number, field, number ..."""
    return Batch([Command(("HGETALL", name)) for name in names])


def read_fields(hashes: Iterable[Any]) -> Iterator[tuple[list[str], int]]:
    """Yield the fields of HASHes and their numbers; ignore invalid ones of other programs."""
    for flat in hashes:
        for name, number in zip(flat[::2], flat[1::2], strict=True):
            try:
                field, value = _FIELD.decode(name), int(number)
            except (msgspec.MsgspecError, ValueError):
                continue
            if field:
                yield field, value


def _increment(key: str, sums: Sums, kept_seconds: int) -> ScriptCall[Any]:
    numbers = ((msgspec.json.encode(field), number) for field, number in sums.items())
    return INCREMENT.call([key], kept_seconds, *chain.from_iterable(numbers))


def _add(sums: Sums, rows: Mapping[tuple[str, ...], Sequence[Numbers]]) -> None:
    for field, its_rows in rows.items():
        for measure, column in zip(MEASURES, zip(*its_rows, strict=True), strict=True):
            if number := sum(column):
                sums[*field, measure] += number


_FIELD = msgspec.json.Decoder(list[str])
