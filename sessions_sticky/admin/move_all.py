"""Move all sessions of a provider: form, preview, start, and the list of recent operations."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.translation import gettext_lazy as _

from sessions_sticky.admin.base import PageAdmin, page
from sessions_sticky.admin.filters import names_in_use
from sessions_sticky.admin.forms import KEEP_MODEL, MoveForm, named
from sessions_sticky.admin.job import recent_operations, start
from sessions_sticky.admin.selection import target_notes
from sessions_sticky.conf import is_target
from sessions_sticky.jobs.job import Plan
from sessions_sticky.jobs.service import jobs
from sessions_sticky.manager import sessions
from sessions_sticky.queries.filters import Filters

MAX_OPERATIONS = 20
"""Number of recent operations on the page."""


class MoveAllForm(MoveForm):
    """The provider whose sessions move, the target and the reason."""

    prefix = None  # type: ignore[assignment]  # its page has no other fields
    from_provider = named(_("Move from provider"), "sticky-providers")
    from_model = named(
        _("Only this model"), "sticky-models", required=False, help_text=_("Leave empty for all models.")
    )
    provider = named(_("Move to provider"), "sticky-providers")
    model = named(_("Move to model"), "sticky-models", required=False, help_text=KEEP_MODEL)
    field_order = ["from_provider", "from_model", "provider", "model", "reason"]

    def clean(self) -> dict[str, Any]:
        """Refuse a move to the same provider and model."""
        data: dict[str, Any] = super().clean() or self.cleaned_data
        stays = data.get("from_provider") and data.get("from_provider") == data.get("provider")
        if stays and data.get("model") in ("", data.get("from_model")):
            self.add_error("provider", _("Source and target are the same. Choose another provider or model."))
        return data

    @property
    def plan(self) -> Plan:
        """The plan of the validated form."""
        data = self.cleaned_data
        return Plan(Filters(data["from_provider"], data["from_model"] or None), self.move)


@page("view", "GET", "HEAD", "POST")
def show(admin: PageAdmin, request: HttpRequest) -> HttpResponse:
    """Show the form and the preview; start when posted."""
    if request.method == "POST":
        return _start(admin, request)
    if "provider" in request.GET:
        return _show(admin, request, MoveAllForm(request.GET))
    return _show(admin, request, MoveAllForm(initial={"from_provider": request.GET.get("from_provider", "")}))


@page("view")
def former(admin: PageAdmin, request: HttpRequest) -> HttpResponse:
    """Redirect from the former path of this page, which the next version removes."""
    return HttpResponseRedirect(f"{admin.url('move_all')}?{request.GET.urlencode()}")


def _start(admin: PageAdmin, request: HttpRequest) -> HttpResponse:
    if not admin.allows(request, "change"):
        raise PermissionDenied
    form = MoveAllForm(request.POST)
    if not form.is_valid():
        return _show(admin, request, form)
    return start(admin, request, form.plan)


def _show(admin: PageAdmin, request: HttpRequest, form: MoveAllForm) -> HttpResponse:
    context = {"title": _("Move all sessions"), "form": form, "operations": recent_operations(MAX_OPERATIONS)}
    if form.is_bound and form.is_valid() and admin.allows(request, "change"):
        plan, source = form.plan, form.cleaned_data["from_provider"]
        context |= {"preview": plan, "count": jobs.count(plan), "cost": jobs.cost(plan)}
        context["notes"] = target_notes(plan.filters, form.move)
        context["is_source_unknown"] = not is_target(source) and not sessions.filter(provider=source).count()
    else:
        context |= names_in_use()
    return admin.render(request, "move_provider.html", context)
