"""The admin API, to include under one prefix: `path("api/sessions/", include("sessions_sticky.urls"))`.

There is no router: the ids of conversations hold any character, slashes too, which routers cannot express.
"""

from __future__ import annotations

from django.core.exceptions import ImproperlyConfigured

try:
    from sessions_sticky.api.urls import app_name, urlpatterns
except ModuleNotFoundError as exc:
    if (exc.name or "").partition(".")[0] not in ("rest_framework", "drf_spectacular"):
        raise
    raise ImproperlyConfigured(
        "sessions_sticky.urls needs Django REST framework and drf-spectacular: pip install 'sessions_sticky[drf]'"
    ) from exc

__all__ = ["app_name", "urlpatterns"]
