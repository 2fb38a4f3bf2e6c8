"""API keys in Django admin: looked at and revoked there, made by `manage.py createkey`."""

from __future__ import annotations

from django.contrib import admin, messages
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from sentinel_project.gateway.models import ApiKey, ApiKeyQuerySet


@admin.register(ApiKey)
class ApiKeyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Nothing of a key can be edited; revoking is an action, for those who may change keys."""

    list_display = ["hint", "owner", "created_at", "revoked_at"]
    list_filter = [("revoked_at", admin.EmptyFieldListFilter)]
    search_fields = ["owner", "hint"]
    fields = ["hint", "owner", "created_at", "revoked_at"]
    readonly_fields = ["hint", "owner", "created_at", "revoked_at"]
    actions = ["revoke"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Deny: a key made here could not be shown."""
        return False

    @admin.action(description=_("Revoke selected API keys"), permissions=["change"])
    def revoke(self, request: HttpRequest, queryset: ApiKeyQuerySet) -> None:
        """Revoke the selected keys."""
        for key in queryset.filter(revoked_at=None):
            self.log_change(request, key, "Revoked.")
        count = queryset.revoke()
        text = ngettext("%d API key was revoked.", "%d API keys were revoked.", count) % count
        self.message_user(request, text, messages.SUCCESS)
