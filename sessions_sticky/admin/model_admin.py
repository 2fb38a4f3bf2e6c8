"""The `ModelAdmin` that the pages of sessions hang on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import quote
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse

from sessions_sticky.admin import actions, changelist, detail, drain, job, overview
from sessions_sticky.admin.decorators import Section
from sessions_sticky.manager import SessionManager, sessions
from sessions_sticky.models import Session

TEMPLATES = "admin/sessions_sticky/"

PAGES: tuple[ModuleType, ...] = (changelist, overview, drain, job, actions, detail)
"""Modules with a function `urls`, in the order of their sections in the menu."""


class SessionAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Sessions as if they were rows. There is no table: nothing of `ModelAdmin` that queries one is reachable."""

    def get_urls(self) -> list[URLPattern]:
        """Return the pages' paths instead of a table's."""
        return [url for module in PAGES for url in module.urls(self)]

    def path(self, route: str, view: Callable[..., HttpResponse], *, name: str) -> URLPattern:
        """Return the path of a page, by name `admin:sessions_sticky_session_{name}`; for logged-in staff alone."""
        return path(route, self.admin_site.admin_view(partial(view, self)), name=f"sessions_sticky_session_{name}")

    def url(self, name: str, *args: str) -> str:
        """Return the URL of a page by the name it has in `path`."""
        return reverse(f"{self.admin_site.name}:sessions_sticky_session_{name}", args=args)

    def session_url(self, conversation_id: str) -> str:
        """Return the URL of a session's page."""
        return self.url("change", quote(conversation_id))

    def back(self, request: HttpRequest, url: str) -> str:
        """Return the URL to go to after a change: the given one, or the front page for who may change but not view."""
        return url if self.allows(request, "view") else reverse(f"{self.admin_site.name}:index")

    def sections(self, request: HttpRequest) -> list[dict[str, Any]]:
        """Return the menu, as far as the user may go there."""
        found: list[Section] = [module.SECTION for module in PAGES if hasattr(module, "SECTION")]
        return [
            {"title": section.title, "url": (url := self.url(section.name)), "here": request.path == url}
            for section in found
            if self.allows(request, section.needed)
        ]

    def render(
        self, request: HttpRequest, template: str, context: dict[str, Any], *, status: int = 200
    ) -> TemplateResponse:
        """Show a template of this app, with what Django admin's templates need and what the user may do."""
        shared = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "sections": self.sections(request),
            "may_change": self.allows(request, "change"),
            "may_delete": self.allows(request, "delete"),
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, f"{TEMPLATES}{template}", {**shared, **context}, status=status)

    def manager(self, request: HttpRequest) -> SessionManager:
        """Return the sessions; the history names the user for what is changed."""
        return sessions.acting_as(request.user.get_username())

    def allows(self, request: HttpRequest, action: str) -> bool:
        """Tell whether the user may `view`, `change` or `delete` sessions; as in the API, none implies another."""
        return bool(request.user.has_perm(f"sessions_sticky.{action}_session"))

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
