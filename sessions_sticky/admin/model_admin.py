"""The `ModelAdmin` of sessions."""

from __future__ import annotations

from django.http import HttpRequest
from django.urls import URLPattern

from sessions_sticky.admin import actions, changelist, detail, drain, job, overview
from sessions_sticky.admin.base import PageAdmin
from sessions_sticky.models import Session


class SessionAdmin(PageAdmin):
    """Sessions as if they were rows. There is no table: nothing of `ModelAdmin` that queries one is reachable."""

    menu = (changelist.SECTION, overview.SECTION, drain.SECTION)

    def get_urls(self) -> list[URLPattern]:
        """Return the pages' paths instead of a table's."""
        return [url for module in (changelist, overview, drain, job, actions, detail) for url in module.urls(self)]

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Session:
        """Return what stands for a session, bound or not: there is no table to look into."""
        return Session(pk=object_id)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Deny: sessions are made by chats."""
        return False

    def has_view_permission(self, request: HttpRequest, obj: Session | None = None) -> bool:
        """Tell whether the user may look."""
        return self.allows(request, "view")

    def get_model_perms(self, request: HttpRequest) -> dict[str, bool]:
        """Return what Django admin's lists of models link to: nothing for who may not look."""
        may_view = self.allows(request, "view")
        return {name: may_view and allowed for name, allowed in super().get_model_perms(request).items()}
