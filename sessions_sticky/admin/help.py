"""The page of help: the words of the pages, and links of the project."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext_lazy as _

from sessions_sticky.admin import registry
from sessions_sticky.admin.base import PageAdmin, page

GLOSSARY = (
    (_("Conversation"), _("What a client continues with each request. It has an id, or is recognized.")),
    (_("Session, binding"), _("The stored record that ties a conversation to a provider and a model.")),
    (_("Owner"), _("Whose conversation it is: in the gateway, the owner of the API key.")),
    (_("Provider"), _("Who answers requests.")),
    (_("Bind"), _("Store the session of a new conversation.")),
    (_("Move, rebind"), _("Change the provider or model of a session for good, with a reason.")),
    (_("Move back"), _("Return a session to the provider and model that its last move came from.")),
    (_("Spill over"), _("Let another provider answer once. The session stays where it is.")),
    (_("Extend"), _("Reset the idle time of a session.")),
    (
        _("Delete"),
        _("Remove a session. The next message may go to any provider, with a cold prompt cache."),
    ),
    (_("Drain"), _("Move all sessions of a provider elsewhere. In drain mode it takes no new conversations.")),
    (_("Operation"), _("One change of many sessions: a drain, a move back, a deletion by filters.")),
    (_("Time left"), _("The idle time after which an unused session expires.")),
    (_("Cooling down"), _("A provider gets no requests until a stated time, after failures or a limit.")),
    (_("Failing"), _("A provider has not answered since its first failure. Others answer its conversations.")),
    (_("Lost"), _("A provider has given no sign of life for 90 s: its active conversations move.")),
    (_("Degraded"), _("Answered while the session store was unavailable: by the session last seen, or by ranking.")),
    (_("Hold"), _("Its conversations do not move, however long a provider is down.")),
    (_("Warm, cold"), _("Whether the prompt cache of a provider still holds a conversation.")),
    (_("Pause, revoke"), _("Refuse an API key until it is resumed; for good.")),
)
"""The words and their meanings."""


@page("view")
def show(admin: PageAdmin, request: HttpRequest) -> HttpResponse:
    """Explain the words."""
    links = [(title, reverse(name)) for title, name in registry.links()]
    return admin.render(request, "help.html", {"title": _("Help"), "glossary": GLOSSARY, "links": links})
