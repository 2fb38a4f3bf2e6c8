"""Bulk changes and export of sessions by all filters, including those that the index cannot answer."""

from __future__ import annotations

import msgspec
from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest
from django.utils.translation import gettext as _

from sessions_sticky.admin.base import PageAdmin, page
from sessions_sticky.admin.filters import conditions_in, filters_in, names_in_use
from sessions_sticky.admin.forms import BulkForm
from sessions_sticky.admin.selection import Chosen
from sessions_sticky.manager import sessions
from sessions_sticky.queries.pages import entry_json


@page("view")
def show(admin: PageAdmin, request: HttpRequest) -> HttpResponse:
    """Ask for the filters; with filters count the matches and offer what to do with them."""
    form = BulkForm(request.GET if request.GET else None)
    context = {"title": _("Bulk changes"), "form": form, **names_in_use()}
    if form.is_bound and form.is_valid():
        chosen = Chosen([], True, conditions_in(request.GET, filters_in(request.GET)), "", False)
        if chosen.everything:
            form.add_error(None, _("Fill in at least one field: a bulk change needs a filter."))
        else:
            context |= {"chosen": chosen, "count": chosen.count_sessions(), "query": request.GET.urlencode()}
    return admin.render(request, "bulk.html", context)


@page("view")
def export(admin: PageAdmin, request: HttpRequest) -> HttpResponse:
    """Return the matches as JSON, one object a line, as `sessions list --all --json` prints them."""
    try:
        filters = conditions_in(request.GET, filters_in(request.GET))
    except ValueError as exc:
        return HttpResponseBadRequest(str(exc), content_type="text/plain; charset=utf-8")
    found = sessions.all().filter(**filters.fields)
    lines = (msgspec.json.encode(entry_json(entry)) + b"\n" for entry in found)
    headers = {"Content-Disposition": 'attachment; filename="sessions.jsonl"'}
    return HttpResponse(lines, content_type="application/x-ndjson", headers=headers)
