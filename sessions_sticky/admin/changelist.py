"""The list of sessions, and its search."""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple
from urllib.parse import urlencode

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.translation import gettext as _

from sessions_sticky.admin.base import PageAdmin, page
from sessions_sticky.admin.filters import count_of, fields_of, filters_in, names_in_use, query_of
from sessions_sticky.admin.formatting import session_rows
from sessions_sticky.exceptions import InvalidConversationId, InvalidCursor, SessionNotSupported
from sessions_sticky.manager import sessions
from sessions_sticky.queries.filters import Filters

PAGE_SIZE = 50
MAX_CURSORS = 20
"""Maximum number of cursors in a URL: how far "Previous" goes back, in pages."""


class Position(NamedTuple):
    """A page of the list: the number of sessions before it, and the cursors of the last pages, the last of this one.

    Its text is the parameter `cursor` of the page.
    """

    before: int = 0
    cursors: tuple[str, ...] = ("",)

    @classmethod
    def read(cls, text: str) -> Position:
        """Parse the result of `str`; raise `InvalidCursor` for other text."""
        before, *cursors = text.split(".") if text else ("0", "")
        if not (before.isascii() and before.isdecimal() and len(before) <= 12 and cursors):
            raise InvalidCursor("The position was not issued by an earlier page")
        return cls(int(before), tuple(cursors))

    def __str__(self) -> str:
        return ".".join([str(self.before), *self.cursors]) if self.cursors != ("",) else ""

    @property
    def previous(self) -> Position | None:
        """The page before this one; None on the first page, and if it is not known."""
        return Position(max(self.before - PAGE_SIZE, 0), self.cursors[:-1]) if len(self.cursors) > 1 else None

    def following(self, cursor: str | None, shown: int) -> Position | None:
        """Return the page at the next cursor, if there is one; `shown` is the number of sessions on this page."""
        return Position(self.before + shown, (*self.cursors, cursor)[-MAX_CURSORS:]) if cursor else None


@page("view")
def show(admin: PageAdmin, request: HttpRequest) -> HttpResponse:
    """List sessions, most recently active first. `q` is the search parameter of Django's lists."""
    if text := request.GET.get("q"):
        return HttpResponseRedirect(_search_url(admin, text))
    filters = filters_in(request.GET)
    try:
        position = Position.read(request.GET.get("cursor", ""))
        listed = sessions.all().filter(**filters.fields).page(cursor=position.cursors[-1] or None, limit=PAGE_SIZE)
    except InvalidCursor:
        messages.warning(request, _("That page does not exist. This is the first one."))
        return HttpResponseRedirect(admin.url("changelist") + query_of(filters))
    number = len(listed.entries)
    previous, following = position.previous, position.following(listed.next_cursor, number)
    context = {
        "title": _("Sessions"),
        "rows": session_rows(listed.entries, admin.session_url),
        "count": count_of(filters),
        "filters": filters,
        "fields": {**fields_of(filters), "cursor": str(position)},
        **names_in_use(filters),
        "first_number": position.before + 1,
        "last_number": position.before + number,
        "first_query": query_of(filters) if str(position) else None,
        "previous_query": query_of(filters, cursor=str(previous)) if previous else None,
        "next_query": query_of(filters, cursor=str(following)) if following else None,
    }
    return admin.render(request, "list.html", context)


@page("view")
def find(admin: PageAdmin, request: HttpRequest) -> HttpResponse:
    """Redirect to the session or the owner's sessions that `q` names exactly; else list the ids that contain it."""
    text, cursor = request.GET.get("q", ""), request.GET.get("cursor", "")
    stripped = text.strip()
    if not cursor:
        for wanted in dict.fromkeys([text, stripped]):
            if wanted and (url := _found(admin, request, wanted)):
                return HttpResponseRedirect(url)
    if not stripped:
        return HttpResponseRedirect(admin.url("changelist"))
    try:
        page = sessions.search(stripped, cursor=cursor or None, limit=PAGE_SIZE)
    except InvalidCursor:
        return HttpResponseRedirect(_search_url(admin, stripped))
    context = {
        "title": _("Search"),
        "q": stripped,
        "rows": session_rows(page.entries, admin.session_url),
        "first_url": _search_url(admin, stripped) if cursor else None,
        "next_url": _search_url(admin, stripped, cursor=page.next_cursor) if page.next_cursor else None,
    }
    return admin.render(request, "search_results.html", context)


def _search_url(admin: PageAdmin, text: str, **more: str) -> str:
    return f"{admin.url('search')}?{urlencode({'q': text, **more}, errors='replace')}"


def _found(admin: PageAdmin, request: HttpRequest, text: str) -> str | None:
    is_bound = is_owner = has_history = False
    with suppress(InvalidConversationId):
        is_bound = sessions.inspect(text) is not None
    with suppress(SessionNotSupported):
        is_owner = sessions.filter(owner=text).count() > 0
    if is_bound and is_owner:
        messages.info(request, _("There is also an owner with this name. Filter the list to see their sessions."))
    if is_owner and not is_bound:
        return admin.url("changelist") + query_of(Filters(owner=text))
    with suppress(InvalidConversationId, SessionNotSupported):
        has_history = is_bound or bool(sessions.history(text))
    return admin.session_url(text) if has_history else None
