"""The overview: what happens now, moves, numbers of sessions, and the state of the store.

The first is read again every few seconds with few commands, the rest once a minute.
"""

from __future__ import annotations

import logging
import re
import time
from collections import Counter
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from sessions_sticky.admin import charts, registry
from sessions_sticky.admin.base import PageAdmin, page
from sessions_sticky.admin.charts import Chart, Column
from sessions_sticky.admin.filters import query_of
from sessions_sticky.admin.formatting import OUTCOMES
from sessions_sticky.exceptions import SessionNotSupported, SessionStoreUnavailable
from sessions_sticky.manager import sessions
from sessions_sticky.queries import doctor
from sessions_sticky.queries.filters import Filters
from sessions_sticky.queries.pages import RouteStats, Stats
from sessions_sticky.queries.server_info import Finding, Level
from sessions_sticky.queries.usage import MinuteMoves, MinuteTurns
from sessions_sticky.turns import FAILED, UNANSWERED

logger = logging.getLogger("sessions_sticky")

MAX_ROUTES = 40
"""Maximum number of routes on the page; the list of sessions finds the others."""
MAX_MOVES = 12
REFRESH_SECONDS = 5
WHOLE_EVERY = 12
"""Number of refreshes of which one is of the whole page."""
MINUTES = 60
MINUTES_PER_LABEL = 15
HOURS_PER_LABEL = 6


BADGES: dict[Level, str | Promise] = {
    Level.OK: gettext_lazy("OK"),
    Level.NOTE: gettext_lazy("Note"),
    Level.WARNING: gettext_lazy("Warning"),
    Level.ERROR: gettext_lazy("Error"),
}
UNIT = re.compile(r"(?<=\d) (?=m?s\b)")
"""The space before a unit of time."""
SUBJECTS: dict[str, str | Promise] = {
    "cache": gettext_lazy("Cache"),
    "clock": gettext_lazy("Clock"),
    "eviction": gettext_lazy("Eviction"),
    "expiry": gettext_lazy("Expiry"),
    "history": gettext_lazy("History"),
    "index": gettext_lazy("Index"),
    "latency": gettext_lazy("Latency"),
    "memory": gettext_lazy("Memory"),
    "persistence": gettext_lazy("Persistence"),
    "reachable": gettext_lazy("Reachable"),
    "role": gettext_lazy("Role"),
    "server": gettext_lazy("Server"),
    "sessions": gettext_lazy("Sessions"),
    "settings": gettext_lazy("Settings"),
    "values": gettext_lazy("Values"),
    "version": gettext_lazy("Version"),
}
"""Translated subjects of findings; others are shown unchanged."""


class RouteRow(NamedTuple):
    """A provider and model on the page; `query` finds its sessions in the list."""

    stats: RouteStats
    percent: str
    query: str


class Traffic(NamedTuple):
    """The turns of the last hour; those that no provider answered are red in the chart."""

    turns: int
    outcomes: list[tuple[str | Promise, int]]
    chart: Chart


class Moves(NamedTuple):
    """Sessions that were moved in the last hour; `routes` has the largest groups."""

    number: int
    routes: list[tuple[tuple[str, str, str, str], int]]
    more: int


@page("view")
def show(admin: PageAdmin, request: HttpRequest) -> HttpResponse:
    """Show the overview; with `?fragment` return only its parts, with `?fragment=recent` those that change quickly."""
    render = partial(admin.render, request, "overview.html", fragment="overview_figures.html")
    is_whole = request.GET.get("fragment") != "recent"
    panels = [make(request) for make in registry.panels]
    context = {
        "title": _("Overview"),
        "refresh_seconds": REFRESH_SECONDS,
        "whole_every": WHOLE_EVERY,
        "now": timezone.now(),
        "is_whole": is_whole,
        "panels": [each for each in panels if is_whole or each.is_first],
    }
    try:
        figures = {**_recent(), **(_figures() if is_whole else {})}
    except SessionStoreUnavailable as exc:
        logger.warning("admin: %s", exc)
        return render({**context, "down": True}, status=503)
    return render({**context, **figures})


def _recent() -> dict[str, Any]:
    """Return the traffic and moves of the last hour; nothing from a cache that cannot count them."""
    try:
        activity = sessions.activity(MINUTES)
    except SessionNotSupported:
        return {}
    return {"traffic": _traffic(activity.turns), "moves": _moves(activity.moves)}


def _traffic(turns: list[MinuteTurns]) -> Traffic:
    last = int(time.time()) // 60
    minutes = [datetime.fromtimestamp(minute * 60, UTC) for minute in range(last - MINUTES + 1, last + 1)]
    by_minute, unanswered, outcomes = Counter[datetime](), Counter[datetime](), Counter[str]()
    for each in turns:
        if each.outcome != FAILED:
            by_minute[each.began_at] += each.turns
            outcomes[each.outcome] += each.turns
        if each.outcome == UNANSWERED:
            unanswered[each.began_at] += each.turns
    columns = [
        Column(minute, by_minute[minute], minute.minute % MINUTES_PER_LABEL == 0, unanswered[minute])
        for minute in minutes
    ]
    named = [(OUTCOMES.get(outcome, outcome), number) for outcome, number in outcomes.most_common()]
    return Traffic(outcomes.total(), named, Chart(columns))


def _moves(moves: list[MinuteMoves]) -> Moves:
    sums: Counter[tuple[str, str, str, str]] = Counter()
    for each in moves:
        sums[each.from_provider, each.to_provider, each.reason, each.by] += each.sessions
    return Moves(sums.total(), sums.most_common(MAX_MOVES), max(0, len(sums) - MAX_MOVES))


def _figures() -> dict[str, Any]:
    stats = sessions.stats()
    hours = sessions.created_per_hour()
    findings = [_finding(finding) for finding in doctor.examine(sample=False)]
    return {
        "sessions": stats.sessions,
        "created_last_hour": sum(route.created_last_hour for route in stats.routes),
        "created_last_day": sum(hour.created for hour in hours),
        "routes": route_rows(stats),
        "more_routes": max(0, len(stats.routes) - MAX_ROUTES),
        "chart": Chart(
            [Column(each.began_at, each.created, place % HOURS_PER_LABEL == 2) for place, each in enumerate(hours)]
        ),
        "findings": findings,
        "errors": [finding for finding in findings if finding["level"] == Level.ERROR],
    }


def route_rows(stats: Stats) -> list[RouteRow]:
    """Return the routes with the most sessions, each relative to the largest."""
    routes = sorted(stats.routes, key=lambda route: (-route.sessions, -route.created_last_day))[:MAX_ROUTES]
    most = max((route.sessions for route in routes), default=0)
    return [
        RouteRow(route, charts.percent(route.sessions, most), query_of(Filters(route.provider, route.model)))
        for route in routes
    ]


def _finding(finding: Finding) -> dict[str, Any]:
    subject = SUBJECTS.get(finding.subject, finding.subject)
    message = UNIT.sub("\N{NO-BREAK SPACE}", finding.message)
    return {**finding._asdict(), "subject": subject, "message": message, "badge": BADGES[finding.level]}
