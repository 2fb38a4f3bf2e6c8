"""Bars and columns, in numbers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from sessions_sticky.admin.charts import HEIGHT, WIDTH, columns, percent

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("number", "most", "width"), [(0, 0, "0.0%"), (0, 9, "0.0%"), (9, 9, "100.0%"), (1, 3, "33.3%"), (1, 10**6, "2.0%")]
)
def test_percent_is_the_part_of_the_largest_and_never_hides_what_there_is(number: int, most: int, width: str) -> None:
    assert percent(number, most) == width


def test_columns_stand_on_the_ground_side_by_side_when_drawn() -> None:
    drawn = columns([(NOON + timedelta(hours=hour), hour) for hour in range(24)])
    assert drawn.most == 23
    lefts = [float(column.x) for column in drawn.columns]
    assert lefts == sorted(lefts)
    assert all(float(column.y) + float(column.height) == pytest.approx(HEIGHT, abs=0.2) for column in drawn.columns)
    assert float(drawn.columns[-1].x) + float(drawn.columns[-1].width) <= WIDTH
    assert float(drawn.columns[-1].height) == HEIGHT
    assert float(drawn.columns[0].height) == 0
    assert [column.began_at.hour for column in drawn.columns if column.labelled] == [14, 20, 2, 8]


def test_columns_are_flat_when_nothing_was_created() -> None:
    assert {column.height for column in columns([(NOON, 0)] * 24).columns} == {"0.0"}
