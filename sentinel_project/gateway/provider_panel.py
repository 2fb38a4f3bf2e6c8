"""The banner and the state of the providers, as panels of the sessions' overview in Django admin."""

from __future__ import annotations

from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from sentinel_project.gateway.banner import banner
from sentinel_project.gateway.providers.reload import providers
from sentinel_project.gateway.providers.status import ProviderStatus, statuses
from sessions_sticky.admin.registry import Panel


def banner_panel(request: HttpRequest) -> Panel:
    """Return the panel that says whether customers are affected."""
    return Panel("", "admin/gateway/banner.html", {"banner": banner(_statuses(request))}, is_first=True)


def panel(request: HttpRequest) -> Panel:
    """Return the panel of the providers."""
    failing_first = sorted(_statuses(request), key=lambda each: each.failing_since is None)
    return Panel(_("Providers"), "admin/gateway/providers.html", {"statuses": failing_first}, is_first=True)


def routes() -> list[tuple[str, str]]:
    """Return the providers that are configured, with each of their models."""
    return [(provider.name, model) for provider in providers() for model in provider.models]


def _statuses(request: HttpRequest) -> list[ProviderStatus]:
    """Return the statuses, read once for both panels of a request."""
    found: list[ProviderStatus] | None = getattr(request, "_provider_statuses", None)
    if found is None:
        found = statuses()
        request._provider_statuses = found  # type: ignore[attr-defined]
    return found
