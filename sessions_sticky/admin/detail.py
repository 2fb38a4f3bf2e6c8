"""The page of one session."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, NamedTuple

from django.contrib import messages
from django.contrib.admin.utils import quote
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.functional import Promise
from django.utils.translation import gettext as _

from sessions_sticky import audit, keys
from sessions_sticky.admin import registry
from sessions_sticky.admin.base import PageAdmin, page
from sessions_sticky.admin.filters import names_in_use
from sessions_sticky.admin.formatting import DURATIONS, OUTCOMES, session_rows
from sessions_sticky.admin.forms import MoveForm
from sessions_sticky.conf import conf
from sessions_sticky.exceptions import InvalidConversationId, SessionNotSupported
from sessions_sticky.identity.stored import read_session_id
from sessions_sticky.jobs.job import KEY
from sessions_sticky.jobs.service import jobs
from sessions_sticky.manager import sessions
from sessions_sticky.queries.server_info import format_percent
from sessions_sticky.session import Session
from sessions_sticky.stores.history import Event
from sessions_sticky.turns import MILLION, RecordedTurn, TurnTotals, Usage

MAX_EVENTS = 200
MAX_RAW_LENGTH = 10_000
"""Maximum length of the displayed stored value, in characters."""


class TurnRow(NamedTuple):
    """A turn on the page; `cached` is the part of its input that came from the cache, empty without input."""

    turn: RecordedTurn
    outcome: str | Promise
    cached: str


@page("view")
def show(admin: PageAdmin, request: HttpRequest, conversation_id: str) -> HttpResponse:
    """Show a session without extending it; without a session show the history, with status 404."""
    _check(conversation_id)
    raw = sessions.get_raw(conversation_id)
    entry = sessions.inspect(conversation_id)
    with suppress(SessionNotSupported):
        if entry is None and KEY.fullmatch(conversation_id) and jobs.get(conversation_id):
            return HttpResponseRedirect(admin.url("operation", conversation_id))  # Django's recent actions link here
    shown = session_rows([entry], admin.session_url)[0] if entry else None
    context = {
        "title": _("Session") if shown else _("No session for this conversation"),
        "conversation_id": conversation_id,
        "shown": shown,
        "stored_id": read_session_id(
            conversation_id, model=entry.session.model if entry else None, scope=conf.conversation_scope
        ),
        "raw": None if raw is None else _text(raw),
        **_turns(conversation_id, entry.session if entry else None),
        "provider_notes": registry.provider_notes(entry.session.provider, entry.session.model) if entry else [],
        "ttl_seconds": sessions.ttl_seconds,
        "formats": DURATIONS,
        "form": MoveForm(),
        **names_in_use(),
        "quoted_id": quote(conversation_id),
        **_history(conversation_id),
    }
    return admin.render(request, "detail.html", context, status=200 if shown else 404)


@page("change", "POST", instead="../change/")
def touch(admin: PageAdmin, request: HttpRequest, conversation_id: str) -> HttpResponse:
    """Reset the idle time."""
    _check(conversation_id)
    if admin.manager(request).touch(conversation_id):
        audit.record_touch(request, conversation_id)
        messages.success(request, _("The session was extended: its idle time starts again."))
    else:
        messages.warning(request, _("The conversation is no longer bound, so there was nothing to extend."))
    return HttpResponseRedirect(admin.back(request, admin.session_url(conversation_id)))


@page("view")
def changes(admin: PageAdmin, request: HttpRequest, conversation_id: str) -> HttpResponse:
    """Show changes by users from Django admin's log."""
    _check(conversation_id)
    return admin.history_view(request, quote(conversation_id))


def _check(conversation_id: str) -> None:
    try:
        keys.check(conversation_id)
    except InvalidConversationId as exc:
        raise Http404(str(exc)) from exc


def _turns(conversation_id: str, session: Session | None) -> dict[str, Any]:
    """Return the last turns, the newest first, and the totals; money in units of the currency.

    `spilled` is the last turn if another provider than the session's answered it.
    """
    trail = sessions.trail(conversation_id)
    totals, last = trail.totals, trail.turns[-1] if trail.turns else None
    is_elsewhere = session is not None and last is not None and last.status < 400 and last.provider != session.provider
    return {
        "spilled": last if is_elsewhere else None,
        "spill_overs": trail.spill_overs[::-1],
        "turns": [
            TurnRow(turn, OUTCOMES.get(turn.outcome, turn.outcome), _cached(turn.usage))
            for turn in reversed(trail.turns)
        ],
        "totals": totals,
        "cached": _cached(totals),
        "saved": totals.saved / MILLION,
        "lost_money": totals.lost_money / MILLION,
    }


def _cached(used: Usage | TurnTotals | None) -> str:
    """Return the part of the input that came from prompt caches, in percent; empty without input."""
    return format_percent(used.read / used.input, 1) if used and used.input else ""


def _history(conversation_id: str) -> dict[str, Any]:
    """Return the last events, newest first, and the number of omitted ones; None without a history."""
    try:
        events: list[Event] = sessions.history(conversation_id)
    except SessionNotSupported:
        return {"events": None}
    return {"events": events[: -MAX_EVENTS - 1 : -1], "left_out": max(0, len(events) - MAX_EVENTS)}


def _text(raw: Any) -> str:
    """Return a stored value as printable text; it may contain any bytes."""
    text = raw.decode(errors="replace") if isinstance(raw, bytes) else repr(raw)
    return text if len(text) <= MAX_RAW_LENGTH else f"{text[:MAX_RAW_LENGTH]}…"
