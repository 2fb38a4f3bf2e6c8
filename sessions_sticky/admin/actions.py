"""Delete or move selected sessions, after a page that asks for confirmation."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from sessions_sticky import audit
from sessions_sticky.admin.base import PageAdmin, page
from sessions_sticky.admin.filters import MAX_COUNTED, Count, names_in_use
from sessions_sticky.admin.forms import MoveForm, ReasonForm
from sessions_sticky.admin.job import start
from sessions_sticky.admin.selection import Chosen, target_notes
from sessions_sticky.jobs.service import jobs
from sessions_sticky.queries.bulk import Move
from sessions_sticky.session import Session, SessionConflict

MAX_NAMED = 10
"""How many unchanged sessions are named; the others are counted."""


@page("delete", "POST", instead="../")
def delete(admin: PageAdmin, request: HttpRequest) -> HttpResponse:
    """Ask for confirmation, then delete."""
    chosen = Chosen.read(request.POST)
    if not chosen:
        return _refuse_empty(admin, request, chosen)
    if "confirmed" not in request.POST or _needs_confirmation(request, chosen):
        title = _("Delete sessions")
        return _ask(admin, request, template="delete.html", chosen=chosen, count=chosen.count_sessions(), title=title)
    if chosen.all_matching:
        return start(admin, request, chosen.plan())
    _delete_each(admin, request, chosen.bindings)
    return HttpResponseRedirect(admin.back(request, admin.url("changelist") + chosen.query))


@page("change", "POST", instead="../")
def move(admin: PageAdmin, request: HttpRequest) -> HttpResponse:
    """Ask for the target, and for confirmation if all matches are selected; then move."""
    chosen = Chosen.read(request.POST)
    if not chosen:
        return _refuse_empty(admin, request, chosen)
    form = MoveForm(request.POST if MoveForm.is_in(request.POST) else None)
    ask = partial(_ask, admin, request, chosen=chosen, form=form)
    if not form.is_valid():
        return ask(template="move.html", count=chosen.count_sessions(), title=_("Move sessions"), **names_in_use())
    if chosen.all_matching and ("confirmed" not in request.POST or _needs_confirmation(request, chosen)):
        count, title = chosen.count_sessions(form.move), _("Move these sessions?")
        cost, notes = jobs.cost(chosen.plan(form.move)), target_notes(chosen.filters, form.move)
        return ask(template="move_all.html", count=count, title=title, move=form.move, cost=cost, notes=notes)
    if chosen.all_matching:
        return start(admin, request, chosen.plan(form.move))
    _move_each(admin, request, chosen.bindings, form.move)
    back = admin.url("changelist") + chosen.query
    return HttpResponseRedirect(
        admin.back(request, admin.session_url(chosen.bindings[0].id) if chosen.on_detail else back)
    )


@page("change", "POST", instead="../")
def move_back(admin: PageAdmin, request: HttpRequest) -> HttpResponse:
    """Ask for confirmation, then move all matches back to where their last move came from."""
    chosen = Chosen.read(request.POST)
    if not chosen.filters.need_moves:
        return _refuse_empty(admin, request, chosen)
    form = ReasonForm(request.POST if "reason" in request.POST else None)
    if "confirmed" not in request.POST or not form.is_valid():
        ask = partial(_ask, admin, request, chosen=chosen, form=form)
        return ask(template="move_back.html", count=_count_moved(chosen), title=_("Move back"))
    return start(admin, request, chosen.plan(Move(None, None, form.cleaned_data["reason"])))


def _count_moved(chosen: Chosen) -> Count:
    """Count what a move back would change; at most what its operation has moved, where that takes long to count."""
    key = chosen.filters.operation
    job = jobs.get(key) if key else None
    return Count(job.done, exact=False) if job and job.done > MAX_COUNTED else chosen.count_sessions()


def _refuse_empty(admin: PageAdmin, request: HttpRequest, chosen: Chosen) -> HttpResponse:
    messages.warning(request, _("No session was selected, so nothing was changed."))
    return HttpResponseRedirect(admin.back(request, admin.url("changelist") + chosen.query))


def _needs_confirmation(request: HttpRequest, chosen: Chosen) -> bool:
    return chosen.everything and "everything" not in request.POST


def _ask(
    admin: PageAdmin, request: HttpRequest, *, template: str, chosen: Chosen, count: Count, **context: Any
) -> HttpResponse:
    section = "bulk" if chosen.condition_fields else "changelist"  # the list has no such filters
    where = admin.session_url(chosen.bindings[0].id) if chosen.on_detail else admin.url(section) + chosen.query
    shared = {"chosen": chosen, "count": count, "cancel_url": admin.back(request, where)}
    return admin.render(request, template, {**shared, **context}, section=section)


def _delete_each(admin: PageAdmin, request: HttpRequest, bindings: list[Session]) -> None:
    done, left = 0, []
    for binding in bindings:
        try:
            admin.manager(request).delete_unchanged(binding)
        except SessionConflict as exc:
            left.append(exc)
        else:
            done += 1
            audit.record_delete(request, binding.id)
    if done:
        text = ngettext("%(number)d session was deleted.", "%(number)d sessions were deleted.", done)
        messages.success(request, text % {"number": done})
    _report_conflicts(admin, request, left)


def _move_each(admin: PageAdmin, request: HttpRequest, bindings: list[Session], move: Move) -> None:
    done, there, left = 0, 0, []
    for binding in bindings:
        wanted = move.of(binding)
        if wanted == binding:
            there += 1
            continue
        try:
            moved = admin.manager(request).rebind(
                binding, provider=wanted.provider, model=wanted.model, reason=move.reason
            )
        except SessionConflict as exc:
            left.append(exc)
        else:
            done += 1
            audit.record_move(request, binding, moved, move.reason)
    if done:
        text = ngettext(
            "%(number)d session was moved to %(provider)s.", "%(number)d sessions were moved to %(provider)s.", done
        )
        messages.success(request, text % {"number": done, "provider": move.provider})
    if there:
        text = ngettext("%(number)d session was already there.", "%(number)d sessions were already there.", there)
        messages.info(request, text % {"number": there})
    _report_conflicts(admin, request, left)


def _report_conflicts(admin: PageAdmin, request: HttpRequest, conflicts: list[SessionConflict]) -> None:
    shown = conflicts[:MAX_NAMED] if admin.allows(request, "view") else []  # it names the provider
    for conflict in shown:
        messages.warning(request, _describe_conflict(conflict))
    more = len(conflicts) - len(shown)
    if more:
        text = ngettext("%(number)d more session was not changed.", "%(number)d more sessions were not changed.", more)
        messages.warning(request, text % {"number": more})


def _describe_conflict(conflict: SessionConflict) -> str:
    if conflict.current is None:
        return _("Conversation “%(id)s” was not changed: it is no longer bound.") % {"id": conflict.conversation_id}
    return _(
        "Conversation “%(id)s” was not changed: it is now bound to %(provider)s, model %(model)s, and no longer as"
        " displayed."
    ) % {"id": conflict.conversation_id, "provider": conflict.current.provider, "model": conflict.current.model}
