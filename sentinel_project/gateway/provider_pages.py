"""The page of the providers in Django admin: their state, their outages, and actions on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from sentinel_project.gateway.provider_status import ProviderStatus, statuses
from sentinel_project.gateway.providers import actions, outages
from sentinel_project.gateway.providers.actions import Action, ControlsUnavailable, UnknownProvider
from sentinel_project.gateway.providers.outages import Outage
from sessions_sticky import audit
from sessions_sticky.admin.base import PageAdmin, page
from sessions_sticky.admin.registry import Section

if TYPE_CHECKING:
    from django_stubs_ext import StrOrPromise

SECTION = Section("providers", gettext_lazy("Providers"))
TEMPLATES = "admin/gateway/"
TITLES: dict[Action, StrOrPromise] = {
    Action.DRAIN: gettext_lazy("Drain"),
    Action.TRY: gettext_lazy("Try now"),
    Action.HOLD: gettext_lazy("Hold"),
    Action.RELEASE: gettext_lazy("Release"),
}
EFFECTS: dict[Action, StrOrPromise] = {
    Action.DRAIN: gettext_lazy("It will take no new conversations. Existing ones stay until you move them."),
    Action.TRY: gettext_lazy("Its cooldown will end: the next request tests whether it has recovered."),
    Action.HOLD: gettext_lazy("While it is failing, other providers will serve its conversations, which do not move."),
    Action.RELEASE: gettext_lazy("It will take new conversations, and its conversations will move when it is lost."),
}
RESULTS: dict[Action, StrOrPromise] = {
    Action.DRAIN: gettext_lazy("Provider %s takes no new conversations now."),
    Action.TRY: gettext_lazy("The cooldown of provider %s has ended."),
    Action.HOLD: gettext_lazy("Provider %s is held: its conversations do not move."),
    Action.RELEASE: gettext_lazy("Provider %s is released from drain and hold."),
}


@page("view")
def show(admin: PageAdmin, request: HttpRequest) -> HttpResponse:
    """Show all providers."""
    rows = [
        {"status": each, "outages": _outages(each), "buttons": [(action, TITLES[action]) for action in _possible(each)]}
        for each in statuses()
    ]
    context = {"title": _("Providers"), "rows": rows, "change_url": admin.url("provider_change")}
    return admin.render(request, f"{TEMPLATES}provider_list.html", context)


@page("change", "GET", "HEAD", "POST")
def change(admin: PageAdmin, request: HttpRequest) -> HttpResponse:
    """Ask for confirmation, then act on one provider."""
    given = request.POST if request.method == "POST" else request.GET
    name = given.get("provider", "")
    try:
        action = Action(given.get("action", ""))
        actions.check_name(name)
    except (ValueError, UnknownProvider) as exc:
        raise Http404(str(exc)) from exc
    back = admin.back(request, admin.url("providers"))
    if request.method == "POST":
        try:
            actions.act(name, action, by=audit.actor(request))
        except ControlsUnavailable:
            messages.error(request, _("The session store is unavailable: nothing was changed."))
        else:
            title = f"{TITLES[action]}: {name}"
            audit.record(request, audit.Flag.CHANGE, None, f"Provider {name!r}: {action}", object_repr=title)
            everywhere = _("All workers follow within a second.")
            messages.success(request, f"{RESULTS[action] % name} {everywhere}")
        return HttpResponseRedirect(back)
    context = {
        "title": f"{TITLES[action]}: {name}",
        "provider": name,
        "action": action,
        "button": TITLES[action],
        "effect": EFFECTS[action],
        **(_left_without(name) if action is Action.DRAIN else {}),
        "cancel_url": back,
    }
    return admin.render(request, f"{TEMPLATES}provider_change.html", context, section="providers")


def urls(admin: PageAdmin) -> list[URLPattern]:
    """Return the URL patterns of the pages."""
    return [
        admin.path("providers/", show, name="providers"),
        admin.path("providers/change/", change, name="provider_change"),
    ]


def _possible(status: ProviderStatus) -> list[Action]:
    """Return the actions that a provider's state allows."""
    is_possible = {
        Action.TRY: status.seconds_left > 0,
        Action.DRAIN: status.takes_new,
        Action.HOLD: not status.is_held,
        Action.RELEASE: status.is_drained or status.is_held,
    }
    return [action for action, possible in is_possible.items() if possible]


def _left_without(name: str) -> dict[str, list[str]]:
    """Return the models without another provider if this one is drained: never, and at the moment."""
    alone, found = actions.only_here(name), statuses()
    models = {model for each in found if each.provider.name == name for model in each.provider.models}
    served = set[str]().union(*(each.served_models for each in found if each.takes_new and each.provider.name != name))
    return {"alone": alone, "down": sorted(models - served - set(alone))}


def _outages(status: ProviderStatus) -> list[Outage] | None:
    """Return the outages of a provider; None if they cannot be read."""
    try:
        return outages.read(status.provider.name)
    except Exception:
        return None
