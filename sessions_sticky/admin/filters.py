"""The filters of a page, in its URL and its forms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlencode

from django.http import QueryDict
from django.utils.formats import number_format
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy

from sessions_sticky.conf import conf
from sessions_sticky.exceptions import SessionNotSupported
from sessions_sticky.jobs.job import KEY
from sessions_sticky.manager import sessions
from sessions_sticky.queries.filters import Filters
from sessions_sticky.queries.times import format_instant, parse_duration, parse_time

ANY = Filters()

MAX_COUNTED = 2_000
"""Maximum number of sessions that are read to count them: some ten milliseconds."""


NO_TIME = gettext_lazy(
    "“%s” is not a time. Enter one with a zone, such as 2026-11-26T03:00Z, or how long ago, such as 12h."
)
REFUSALS: dict[str, str | Promise] = {
    "idle_for": gettext_lazy("“%s” is not a duration. Enter seconds, or a number with s, m, h or d, such as 12h."),
    "created_before": NO_TIME,
    "moved_since": NO_TIME,
    "operation": gettext_lazy("“%s” is not the key of an operation, which has 32 hex digits."),
}
"""The messages for values that `conditions_in` cannot parse."""


class Count(NamedTuple):
    """A number of sessions; an upper bound unless `exact`."""

    number: int
    exact: bool

    def __str__(self) -> str:
        return number_format(self.number, force_grouping=True)


def filters_in(query: QueryDict) -> Filters:
    """Read the filters. Empty fields are ignored; `no_owner` filters by the blank owner."""
    owner = "" if query.get("no_owner") else query.get("owner") or None
    return Filters(query.get("provider") or None, query.get("model") or None, owner)


def conditions_in(query: Mapping[str, Any], filters: Filters = ANY) -> Filters:
    """Return filters with the conditions of the query. Raises `ValueError` with a message for users."""
    parse: dict[str, Callable[[str], Any]] = {
        "idle_for": parse_duration,
        "created_before": parse_time,
        "moved_from": str,
        "moved_since": parse_time,
        "operation": _operation_key,
    }
    found: dict[str, Any] = {}
    for name, read in parse.items():
        if text := query.get(name, "").strip():
            try:
                found[name] = read(text)
            except ValueError as exc:
                raise ValueError(str(REFUSALS[name]) % text) from exc
    return filters._replace(**found)


def condition_fields(filters: Filters) -> dict[str, str]:
    """Return the fields that `conditions_in` reads as the conditions of these filters."""
    shown = {"idle_for": "{:.0f}s".format, "created_before": format_instant, "moved_since": format_instant}
    return {name: shown.get(name, str)(value) for name, value in filters.conditions.items()}


def _operation_key(text: str) -> str:
    if not KEY.fullmatch(text):
        raise ValueError(text)
    return text


def fields_of(filters: Filters) -> dict[str, str]:
    """Return the fields that `filters_in` and `conditions_in` read as these filters."""
    no_owner = "1" if filters.owner == "" else ""
    named = {"provider": filters.provider, "model": filters.model, "owner": filters.owner, "no_owner": no_owner}
    return {name: value for name, value in named.items() if value} | condition_fields(filters)


def query_of(filters: Filters, **more: str) -> str:
    """Return filters and further fields that are not empty as the query of a URL; an empty string without any."""
    fields = fields_of(filters) | {name: value for name, value in more.items() if value}
    return f"?{urlencode(fields, errors='replace')}" if fields else ""


def names_in_use(filters: Filters = ANY) -> dict[str, Any]:
    """Return the providers and models with sessions, those of the filters, and the configured providers."""
    try:
        routes = [route for route in sessions.stats().routes if route.sessions]
    except SessionNotSupported:
        routes = []
    providers = {filters.provider or "", *(conf.providers or ()), *(route.provider for route in routes)}
    models = {filters.model or "", *(route.model for route in routes)}
    return {"providers": sorted(providers - {""}), "models": sorted(models - {""})}


def count_of(filters: Filters) -> Count:
    """Count without reading many sessions, which an owner with a provider or model would require."""
    if filters.owner is not None and filters.has_route:
        of_owner = sessions.filter(owner=filters.owner).count()
        of_route = sessions.all().filter(**Filters(filters.provider, filters.model).fields).count()
        if (at_most := min(of_owner, of_route)) > MAX_COUNTED:
            return Count(at_most, exact=False)
    return Count(sessions.all().filter(**filters.fields).count(), exact=True)
