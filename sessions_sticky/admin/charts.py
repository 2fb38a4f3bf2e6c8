"""Draw bars and columns as SVG, without scripts and styles; performs no I/O.

The columns are not drawn by a template, which takes ten times as long for a hundred of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from django.utils.formats import number_format
from django.utils.safestring import SafeString, mark_safe
from django.utils.timezone import localtime

WIDTH, HEIGHT = 720, 160
"""Size of the columns, in SVG units."""
ABOVE, BELOW = 24, 30
"""Height of the labels above and below the columns, in SVG units."""
GAP = 4
LEAST = 2.0
"""The minimum height of a column, or width of a bar in percent, for a number above 0."""
GRID = f"""
<line class="sticky-grid" x1="0" x2="{WIDTH}" y1="0" y2="0"></line>\
<line class="sticky-grid" x1="0" x2="{WIDTH}" y1="{HEIGHT}" y2="{HEIGHT}"></line>"""


class Column(NamedTuple):
    """The number of an hour or a minute, and how much of it is red. `labelled`: whether its time is written below."""

    began_at: datetime
    number: int
    labelled: bool
    red: int = 0


class Chart(NamedTuple):
    """A drawing of columns, from left to right."""

    columns: list[Column]

    @property
    def most(self) -> int:
        """The number of a full column."""
        return max((column.number for column in self.columns), default=0)

    @property
    def view_box(self) -> str:
        """The attribute `viewBox`."""
        return f"0 {-ABOVE} {WIDTH} {ABOVE + HEIGHT + BELOW}"

    @property
    def drawing(self) -> SafeString:
        """The content of the SVG element; columns of the number 0 are left out."""
        most, step = self.most, WIDTH / max(len(self.columns), 1)
        parts = [GRID, f'<text class="sticky-axis" x="0" y="-7">{_number(most)}</text>']
        for place, column in enumerate(self.columns):
            parts += _draw(column, place * step, step, most)
        return mark_safe("\n".join(parts))  # noqa: S308 - only numbers and times


def percent(number: int, most: int) -> str:
    """Return a number relative to the largest as an SVG attribute, at least the visible minimum."""
    part = 100 * number / most if most else 0
    return f"{max(part, LEAST) if number else 0:.1f}%"


def _draw(column: Column, left: float, step: float, most: int) -> Iterator[str]:
    """Yield the SVG elements of a column; `step` is its width with the gap."""
    time = f"{localtime(column.began_at):%H:%M}"
    x, width = left + GAP / 2, max(step - GAP, step / 2)
    for number, kind in ((column.number, "sticky-fill"), (column.red, "sticky-bad")):
        if number:
            height = max(HEIGHT * number / most, LEAST)
            place = f'x="{x:.1f}" y="{HEIGHT - height:.1f}" width="{width:.1f}" height="{height:.1f}"'
            yield f'<rect class="{kind}" {place}><title>{time}: {_number(number)}</title></rect>'
    if column.labelled:
        middle = left + step / 2
        yield f'<text class="sticky-axis sticky-axis-hour" x="{middle:.1f}" y="{HEIGHT + 9}">{time}</text>'


def _number(number: int) -> str:
    return number_format(number, force_grouping=True)
