"""Sessions in Django admin: pages over the store, as if sessions were rows."""

from __future__ import annotations

from django.contrib import admin

from sessions_sticky.admin.model_admin import SessionAdmin as SessionAdmin
from sessions_sticky.models import Session

admin.site.register(Session, SessionAdmin)
