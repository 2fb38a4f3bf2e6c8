"""Bars and columns, in numbers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree

import pytest
from django.utils import timezone, translation

from sessions_sticky.admin.charts import HEIGHT, WIDTH, Chart, Column, percent

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def elements(chart: Chart, name: str) -> list[ElementTree.Element]:
    return ElementTree.fromstring(f"<svg>{chart.drawing}</svg>").findall(name)


def hours(*numbers: int, red: int = 0) -> Chart:
    return Chart([Column(NOON + timedelta(hours=hour), each, hour == 1, red) for hour, each in enumerate(numbers)])


@pytest.mark.parametrize(
    ("number", "most", "width"), [(0, 0, "0.0%"), (0, 9, "0.0%"), (9, 9, "100.0%"), (1, 3, "33.3%"), (1, 10**6, "2.0%")]
)
def test_percent_is_the_part_of_the_largest_and_never_hides_what_there_is(number: int, most: int, width: str) -> None:
    assert percent(number, most) == width


def test_chart_draws_columns_that_stand_on_the_ground_side_by_side() -> None:
    chart = hours(*range(24))
    assert chart.most == 23
    assert chart.view_box.split()[2] == str(WIDTH)
    columns = [
        {name: float(column.get(name, "")) for name in ("x", "y", "width", "height")}
        for column in elements(chart, "rect")
    ]
    assert len(columns) == 23  # there is none for 0
    assert [each for each in columns if each["y"] + each["height"] != pytest.approx(HEIGHT, abs=0.2)] == []
    ends = [each["x"] + each["width"] for each in columns]
    assert [end for end, following in zip(ends, columns[1:], strict=False) if end >= following["x"]] == []
    assert ends[-1] <= WIDTH
    assert columns[-1]["height"] == HEIGHT


def test_chart_says_the_number_and_the_local_time_of_each_column() -> None:
    chart = hours(1, 2_500, 0)
    with timezone.override("Asia/Kolkata"), translation.override("de"):
        assert [each.findtext("title") for each in elements(chart, "rect")] == ["17:30: 1", "18:30: 2.500"]
        assert [each.text for each in elements(chart, "text")] == ["2.500", "18:30"]


def test_chart_draws_the_red_part_over_its_column_on_the_same_scale() -> None:
    whole, red = elements(hours(4, red=1), "rect")
    assert (whole.get("class"), red.get("class")) == ("sticky-fill", "sticky-bad")
    assert (whole.get("x"), whole.get("height"), red.get("height")) == (red.get("x"), "160.0", "40.0")


def test_chart_is_empty_when_there_is_nothing() -> None:
    assert elements(hours(0, 0), "rect") == []
    assert Chart([]).most == 0
    assert elements(Chart([]), "rect") == []
