"""The page of help: the words of the pages, and links of the project."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext_lazy as _

from sessions_sticky.admin import registry
from sessions_sticky.admin.base import PageAdmin, page

GLOSSARY = (
    (_("Conversation"), _("What a client continues with each request. It has an id, or is recognized by its content.")),
    (_("Session, binding"), _("The stored record that ties a conversation to a provider and a model.")),
    (_("Owner"), _("The user or program that a conversation belongs to: in the gateway, the owner of the API key.")),
    (_("Provider"), _("A service that answers requests.")),
    (_("Route"), _("A provider and a model together.")),
    (_("Bind"), _("Store the session of a new conversation.")),
    (_("Move, rebind"), _("Change the provider or model of a session permanently, with a reason.")),
    (_("Move all"), _("Move all sessions of a provider to another one.")),
    (_("Move back"), _("Return a session to the provider and model that its last move came from.")),
    (_("Spill over"), _("Let another provider answer once. The session stays where it is.")),
    (_("Extend, touch"), _("Reset the time left of a session to the idle time.")),
    (_("Delete"), _("Remove a session. The next request may go to any provider, with a cold prompt cache.")),
    (_("Operation"), _("One change of many sessions: a move, a move back or a deletion, by filters.")),
    (_("Idle time"), _("How long a session is kept without being used.")),
    (_("Time left"), _("What remains of the idle time until a session expires.")),
    (_("Cooling down"), _("A provider gets no requests until a stated time, after failures or a limit.")),
    (_("Failing"), _("A provider has not answered since its first failure. Others answer its conversations.")),
    (_("Lost"), _("A provider has not answered anything for 90 s, probes included: its active conversations move.")),
    (_("Degraded"), _("Answered while the session store was unavailable: by the session last seen, or by ranking.")),
    (_("Drain"), _("Give a provider no new conversations until it is released. Existing ones stay.")),
    (_("Hold"), _("Keep the conversations of a provider: while it is failing they spill over but do not move.")),
    (_("Release"), _("End drain and hold.")),
    (_("Warm, cold"), _("Whether the prompt cache of a provider still holds a conversation.")),
    (_("Pause"), _("Refuse an API key until it is resumed.")),
    (_("Revoke"), _("Refuse an API key permanently.")),
)
"""The words and their meanings."""


@page("view")
def show(admin: PageAdmin, request: HttpRequest) -> HttpResponse:
    """Explain the words."""
    links = [(title, reverse(name)) for title, name in registry.links]
    return admin.render(request, "help.html", {"title": _("Help"), "glossary": GLOSSARY, "links": links})
