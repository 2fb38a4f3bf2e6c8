"""The `ModelAdmin` of sessions."""

from __future__ import annotations

from django.http import HttpRequest
from django.urls import URLPattern

from sessions_sticky.admin import actions, bulk, changelist, detail, drain, events, help, job, overview, registry
from sessions_sticky.admin.base import PageAdmin
from sessions_sticky.models import Session


class SessionAdmin(PageAdmin):
    """Pages for sessions. There is no table: methods of `ModelAdmin` that query one are unreachable."""

    menu = (
        *(changelist.SECTION, overview.SECTION, drain.SECTION),
        *(bulk.SECTION, events.OPERATIONS, events.SECTION),
    )
    end_of_menu = (help.SECTION,)

    def get_urls(self) -> list[URLPattern]:
        """Return the URL patterns of the pages."""
        modules = (changelist, overview, drain, bulk, events, help, job, actions)
        own = [url for module in modules for url in module.urls(self)]
        registered = [url for pages in registry.pages() for url in pages.urls(self)]
        return [*own, *registered, *detail.urls(self)]

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Session:
        """Return a model instance for any conversation id, without a query."""
        return Session(pk=object_id)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Deny: chats create sessions."""
        return False

    def has_view_permission(self, request: HttpRequest, obj: Session | None = None) -> bool:
        """Return whether the user may view sessions."""
        return self.allows(request, "view")

    def get_model_perms(self, request: HttpRequest) -> dict[str, bool]:
        """Return the permissions for Django admin's lists of models; none for users who may not view."""
        may_view = self.allows(request, "view")
        return {name: may_view and allowed for name, allowed in super().get_model_perms(request).items()}
