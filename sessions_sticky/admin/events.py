"""The recent events of all conversations, and the bulk operations."""

from __future__ import annotations

from typing import NamedTuple

from django.http import HttpRequest, HttpResponse
from django.utils.functional import Promise
from django.utils.text import Truncator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from sessions_sticky.admin.base import PageAdmin, page
from sessions_sticky.admin.filters import conditions_in, names_in_use
from sessions_sticky.admin.job import recent_operations
from sessions_sticky.jobs.job import KEY
from sessions_sticky.manager import sessions
from sessions_sticky.queries.pages import MAX_PAGE
from sessions_sticky.stores.history import Event, EventFilter, Kind

MAX_SHOWN = 100
"""Maximum number of events on the page."""
MAX_ID_LENGTH = 60
KINDS: dict[Kind, str | Promise] = {
    "created": gettext_lazy("Bound"),
    "rebound": gettext_lazy("Moved"),
    "deleted": gettext_lazy("Deleted"),
}


class EventRow(NamedTuple):
    """An event on the page; `name` is the beginning of its conversation id, empty for an operation."""

    event: Event
    kind: str | Promise
    name: str
    url: str


@page("view")
def show(admin: PageAdmin, request: HttpRequest) -> HttpResponse:
    """List the last events, or with `since` those from then on; the newest first."""
    query, error = request.GET, ""
    wanted = EventFilter(*(query.get(name, "").strip() or None for name in EventFilter._fields))
    try:
        since = conditions_in(query).moved_since
    except ValueError as exc:
        since, error = None, str(exc)
    after = None if since is None else f"{int(since * 1000)}-0"
    read = [] if error else sessions.recent(after=after, limit=MAX_PAGE)
    found = [event for event in reversed(read) if wanted.match(event)]
    context = {
        "title": _("Events"),
        "rows": [_row(admin, event) for event in found[:MAX_SHOWN]],
        "left_out": max(0, len(found) - MAX_SHOWN),
        "more": len(read) == MAX_PAGE,
        "wanted": wanted,
        "since": query.get("moved_since", ""),
        "error": error,
        "kinds": KINDS,
        **names_in_use(),
    }
    return admin.render(request, "events.html", context)


@page("view")
def operations(admin: PageAdmin, request: HttpRequest) -> HttpResponse:
    """List the operations of the last day, including those of commands."""
    return admin.render(request, "operations.html", {"title": _("Operations"), "operations": recent_operations()})


def _row(admin: PageAdmin, event: Event) -> EventRow:
    name = event.conversation_id
    if len(name) > MAX_ID_LENGTH:
        name = Truncator(name).chars(MAX_ID_LENGTH)
    return EventRow(event, KINDS[event.kind], name, _url(admin, event))


def _url(admin: PageAdmin, event: Event) -> str:
    """Return the URL of the conversation or the operation; empty for an operation without one."""
    if event.conversation_id:
        return admin.session_url(event.conversation_id)
    return admin.url("operation", event.operation) if KEY.fullmatch(event.operation) else ""
