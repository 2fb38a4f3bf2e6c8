"""The banner and the state of the providers, as panels of the sessions' overview in Django admin."""

from __future__ import annotations

from django.http import HttpRequest
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from sentinel_project.gateway.banner import banner, failing_since
from sentinel_project.gateway.provider_status import ProviderStatus, latest_health, status, statuses
from sentinel_project.gateway.providers.current import providers
from sessions_sticky.admin.registry import Panel


def banner_panel(request: HttpRequest) -> Panel:
    """Return the panel that says whether customers are affected."""
    return Panel("", "admin/gateway/banner.html", {"banner": banner(_statuses(request))}, is_first=True)


def panel(request: HttpRequest) -> Panel:
    """Return the panel of the providers."""
    failing_first = sorted(_statuses(request), key=lambda each: each.failing_since is None)
    return Panel(_("Providers"), "admin/gateway/providers.html", {"statuses": failing_first}, is_first=True)


def note(provider: str, model: str) -> str:
    """Say why a provider answers no requests for a model now, and until when; empty while it does."""
    found = next((each for each in providers() if each.name == provider and model in each.models), None)
    if found is None:
        text = gettext("%(provider)s is not configured for %(model)s: the conversation moves with its next chat.")
        return text % {"provider": provider, "model": model}
    now = status(found, latest_health()[0])
    if now.cooling_models and model not in now.cooling_models:
        return ""
    parts = [] if now.failing_since is None else [failing_since(now, now.failing_since)]
    if now.next_try_at is not None:
        text = gettext("%(provider)s is cooling down until %(until)s.")
        parts.append(text % {"provider": provider, "until": f"{now.next_try_at:%H:%M:%S} UTC"})
    return " ".join(parts)


def _statuses(request: HttpRequest) -> list[ProviderStatus]:
    """Return the statuses, read once for both panels of a request."""
    found: list[ProviderStatus] | None = getattr(request, "_provider_statuses", None)
    if found is None:
        found = statuses()
        request._provider_statuses = found  # type: ignore[attr-defined]
    return found
