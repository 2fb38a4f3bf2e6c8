"""Template filters for times."""

from __future__ import annotations

from datetime import UTC, datetime

from django.template import Context, Template
from django.utils import timezone

MOMENT = datetime(999, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)


def render(text: str) -> str:
    return Template("{% load sessions_sticky tz %}{% localtime on %}" + text + "{% endlocaltime %}").render(
        Context({"at": MOMENT})
    )


def test_timestamp_is_a_time_element_in_the_current_time_zone() -> None:
    with timezone.override(timezone.get_fixed_timezone(90)):
        shown = render("{{ at|timestamp }}")
    assert shown == '<time datetime="0999-01-02T04:34:05.678901+01:30">0999-01-02 04:34:05</time>'


def test_timestamp_ends_with_the_minutes_when_asked() -> None:
    assert render('{{ at|timestamp:"minutes" }}').endswith(">0999-01-02 03:04</time>")


def test_filters_show_the_times_of_the_filter_date() -> None:
    expected = '<time datetime="{{ at|date:"c" }}">{{ at|date:"Y-m-d H:i:s" }}</time>'
    assert render("{{ at|timestamp }}") == render(expected)
    assert render("{{ at|iso }}") == render('{{ at|date:"c" }}')
