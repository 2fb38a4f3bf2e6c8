"""The Django app."""

from __future__ import annotations

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class SessionsStickyConfig(AppConfig):
    """Registers the system checks."""

    name = "sessions_sticky"
    verbose_name = _("Sticky sessions")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register."""
        from sessions_sticky import checks  # noqa: F401
