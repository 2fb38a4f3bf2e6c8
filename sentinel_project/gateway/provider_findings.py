"""Findings on the providers for `manage.py sessions doctor`."""

from __future__ import annotations

from collections.abc import Iterator

from django.utils.translation import gettext as _

from sentinel_project.gateway.provider_status import ProviderStatus, State, format_time, statuses
from sessions_sticky.queries.server_info import Finding, Level

SUBJECT = "provider"


def check_providers() -> Iterator[Finding]:
    """Yield a finding for each provider."""
    for status in statuses():
        if status.state is State.UNKNOWN:
            message = _("The state of %s is not known without the session store") % status.provider.name
            yield Finding(Level.WARNING, SUBJECT, message)
        else:
            yield _finding(status)


def _finding(status: ProviderStatus) -> Finding:
    name = status.provider.name
    if status.failing_since is not None:
        since = f"{format_time(status.failing_since)} UTC"
        message = _("%(name)s has been failing since %(since)s (%(error)s)")
        message %= {"name": name, "since": since, "error": status.error}
        if status.state is State.LOST and not status.is_held:
            message += ". " + _("Its conversations move permanently with their next chat")
        return Finding(Level.ERROR, SUBJECT, message, _("Check the provider; see manage.py gateway providers"))
    if status.state is State.COOLING:
        message = _("%(name)s is cooling down (%(error)s)") % {"name": name, "error": status.error}
        return Finding(Level.WARNING, SUBJECT, message, _("Check its limits"))
    if status.state is State.SLOW:
        hint = _("Its requests go elsewhere; check the provider")
        return Finding(Level.WARNING, SUBJECT, _("%s begins its streams too slowly") % name, hint)
    if not status.takes_new:
        return Finding(Level.NOTE, SUBJECT, _("%s takes no new conversations") % name)
    if status.is_held:
        return Finding(Level.NOTE, SUBJECT, _("%s is held: its conversations do not move") % name)
    return Finding(Level.OK, SUBJECT, _("%s is healthy") % name)
