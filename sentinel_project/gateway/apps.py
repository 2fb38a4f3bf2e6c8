"""The gateway's Django app: API keys and the chat API."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _

if TYPE_CHECKING:
    from sessions_sticky.queries.server_info import Finding


class GatewayConfig(AppConfig):
    """Named `gateway` in the database and the admin."""

    name = "sentinel_project.gateway"
    verbose_name = _("Gateway")

    def ready(self) -> None:
        """Register the check of the data folder, and that of the providers with `manage.py sessions doctor`."""
        from sentinel_project import data_folder  # noqa: F401
        from sessions_sticky.queries.doctor import register_check

        register_check(_check_providers)


def _check_providers() -> Iterable[Finding]:
    from sentinel_project.gateway.provider_findings import check_providers  # loads the whole gateway

    return check_providers()
