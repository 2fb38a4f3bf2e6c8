"""The overview: numbers of sessions, created sessions, rebinds, and the state of the store."""

from __future__ import annotations

import logging
from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from sessions_sticky.admin import charts, registry
from sessions_sticky.admin.base import PageAdmin, Section, page
from sessions_sticky.admin.charts import Bar
from sessions_sticky.admin.filters import query_of
from sessions_sticky.exceptions import SessionNotSupported, SessionStoreUnavailable
from sessions_sticky.manager import sessions
from sessions_sticky.queries import doctor
from sessions_sticky.queries.filters import Filters, RouteStats, Stats
from sessions_sticky.queries.server_info import Finding, Level

if TYPE_CHECKING:
    from django_stubs_ext import StrOrPromise


logger = logging.getLogger("sessions_sticky")

MAX_ROUTES = 40
"""Maximum number of routes on the page; the list of sessions finds the others."""
MAX_REASONS = 12
MAX_EVENTS = 1_000
"""Number of events that are searched for rebinds."""
REFRESH_SECONDS = 5


BADGES: dict[Level, StrOrPromise] = {
    Level.OK: gettext_lazy("OK"),
    Level.NOTE: gettext_lazy("Note"),
    Level.WARNING: gettext_lazy("Warning"),
    Level.ERROR: gettext_lazy("Error"),
}
SUBJECTS: dict[str, StrOrPromise] = {
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


class Rebinds(NamedTuple):
    """The rebinds among the last `events` events, by reason; `since` is the time of the first of them."""

    number: int
    events: int
    since: datetime | None
    reasons: list[Bar]


@page("view")
def show(admin: PageAdmin, request: HttpRequest) -> HttpResponse:
    """Show the overview; with `?fragment` return only the figures, for refreshes."""
    template = "overview_figures.html" if "fragment" in request.GET else "overview.html"
    context = {"title": _("Overview"), "refresh_seconds": REFRESH_SECONDS, "now": timezone.now()}
    try:
        figures = _figures(request)
    except SessionStoreUnavailable as exc:
        logger.warning("admin: %s", exc)
        return admin.render(request, template, {**context, "down": True}, status=503)
    return admin.render(request, template, {**context, **figures})


def urls(admin: PageAdmin) -> list[URLPattern]:
    """Return the URL patterns of this module."""
    return [admin.path("overview/", show, name="overview")]


SECTION = Section("overview", gettext_lazy("Overview"))


def _figures(request: HttpRequest) -> dict[str, Any]:
    stats = sessions.stats()
    hours = sessions.created_per_hour()
    return {
        "sessions": stats.sessions,
        "created_last_hour": sum(route.created_last_hour for route in stats.routes),
        "created_last_day": sum(hour.created for hour in hours),
        "routes": route_rows(stats),
        "more_routes": max(0, len(stats.routes) - MAX_ROUTES),
        "chart": charts.columns([(hour.began_at, hour.created) for hour in hours]),
        "rebinds": _rebinds(),
        "findings": [_finding(finding) for finding in doctor.examine()],
        "panels": registry.panels(request),
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
    return {**finding._asdict(), "subject": subject, "badge": BADGES[finding.level]}


def _rebinds() -> Rebinds | None:
    """Count the last rebinds by reason; None without a history."""
    try:
        events = sessions.recent(limit=MAX_EVENTS)
    except SessionNotSupported:
        return None
    reasons: Counter[str] = Counter()
    for event in events:
        if event.kind == "rebound":
            reasons[event.reason] += event.sessions
    bars = charts.bars(reasons.most_common(MAX_REASONS))
    return Rebinds(reasons.total(), len(events), events[0].at if events else None, bars)
