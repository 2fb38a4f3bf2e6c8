"""The page of the owners in Django admin: who used the gateway most in the last day, and with which keys."""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from sentinel_project.gateway.models import ApiKey
from sessions_sticky import TurnTotals, sessions
from sessions_sticky.admin.base import PageAdmin, page
from sessions_sticky.admin.filters import query_of
from sessions_sticky.admin.registry import Section
from sessions_sticky.queries.filters import Filters

SECTION = Section("owners", gettext_lazy("Owners"))
MAX_SHOWN = 50
"""Maximum number of owners on the page; the sessions of each are counted."""
MAX_KEYS = 20


class OwnerRow(NamedTuple):
    """An owner: turns of the last day and of the last hour, sessions, and keys with the latest use first."""

    name: str
    day: TurnTotals
    hour: TurnTotals
    sessions: int
    query: str
    keys: list[ApiKey]


@page("view")
def show(admin: PageAdmin, request: HttpRequest) -> HttpResponse:
    """List the owners with the most tokens of the last day, or with `sort=hour` the most requests of this hour."""
    day, hour = sessions.usage().owners, sessions.usage(60).owners
    in_hour = {each.owner: each.totals for each in hour}
    is_by_hour = request.GET.get("sort") == "hour"
    if is_by_hour:
        day.sort(key=lambda each: in_hour.get(each.owner, TurnTotals()).turns, reverse=True)
    shown = day[:MAX_SHOWN]
    may_see_keys = request.user.has_perm("gateway.view_apikey")
    keys = _keys([each.owner for each in shown]) if may_see_keys else {}
    rows = [
        OwnerRow(
            name=each.owner,
            day=each.totals,
            hour=in_hour.get(each.owner, TurnTotals()),
            sessions=sessions.filter(owner=each.owner).count(),
            query=query_of(Filters(owner=each.owner)),
            keys=keys.get(each.owner, []),
        )
        for each in shown
    ]
    context = {
        "title": _("Owners"),
        "rows": rows,
        "left_out": len(day) - len(shown),
        "is_by_hour": is_by_hour,
        "may_see_keys": may_see_keys,
        "may_pause": request.user.has_perm("gateway.change_apikey"),
    }
    return admin.render(request, "admin/gateway/owner_list.html", context)


def urls(admin: PageAdmin) -> list[URLPattern]:
    """Return the URL patterns of this module."""
    return [admin.path("owners/", show, name="owners")]


def _keys(owners: list[str]) -> dict[str, list[ApiKey]]:
    found: dict[str, list[ApiKey]] = defaultdict(list)
    for key in ApiKey.objects.of(*owners).filter(revoked_at=None).order_by("-last_used_at", "-pk"):
        if len(found[key.owner]) < MAX_KEYS:
            found[key.owner].append(key)
    return found
