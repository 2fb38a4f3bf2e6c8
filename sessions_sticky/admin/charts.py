"""Compute SVG attributes of bars and columns, without scripts and styles; performs no I/O."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

WIDTH, HEIGHT = 720, 160
"""Size of the drawing with the columns, in SVG units."""
GAP = 4
LABEL_EVERY = 6
"""Number of columns per label."""
LEAST = 2.0
"""The minimum height of a column, or width of a bar in percent, for a number above 0."""


class Column(NamedTuple):
    """A column for one hour, in SVG units. `labelled`: whether its time is written below."""

    began_at: datetime
    number: int
    x: str
    y: str
    width: str
    height: str
    middle: str
    labelled: bool


class Columns(NamedTuple):
    """A drawing of columns, its size and its largest number."""

    columns: list[Column]
    most: int
    width: int
    height: int


def percent(number: int, most: int) -> str:
    """Return a number relative to the largest as an SVG attribute, at least the visible minimum."""
    part = 100 * number / most if most else 0
    return f"{max(part, LEAST) if number else 0:.1f}%"


def columns(numbers: Sequence[tuple[datetime, int]], *, most: int | None = None) -> Columns:
    """Return columns from left to right; `most` is the number of a full column, by default the largest."""
    if most is None:
        most = max((number for _, number in numbers), default=0)
    step = WIDTH / max(len(numbers), 1)
    drawn = [_column(place, step, most, *each) for place, each in enumerate(numbers)]
    return Columns(drawn, most, WIDTH, HEIGHT)


def _column(place: int, step: float, most: int, began_at: datetime, number: int) -> Column:
    height = max(HEIGHT * number / most, LEAST) if number else 0
    return Column(
        began_at=began_at,
        number=number,
        x=f"{place * step + GAP / 2:.1f}",
        y=f"{HEIGHT - height:.1f}",
        width=f"{max(step - GAP, step / 2):.1f}",
        height=f"{height:.1f}",
        middle=f"{(place + 0.5) * step:.1f}",
        labelled=place % LABEL_EVERY == 2,
    )
