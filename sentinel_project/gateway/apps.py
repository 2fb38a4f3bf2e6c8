"""The gateway's Django app: API keys and the chat API."""

from __future__ import annotations

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class GatewayConfig(AppConfig):
    """Named `gateway` in the database and the admin."""

    name = "sentinel_project.gateway"
    verbose_name = _("Gateway")

    def ready(self) -> None:
        """Register the check of the data folder."""
        from sentinel_project import data_folder  # noqa: F401
