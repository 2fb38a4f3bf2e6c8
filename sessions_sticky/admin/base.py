"""Shared code of all pages: permissions, methods, menu, and errors of the store.

A page is a function of the `ModelAdmin`, the request and the parameters of its path. model_admin.py lists the paths
of the app's pages; a project registers its own with `register_pages`:

    @page("view")
    def show(admin: PageAdmin, request: HttpRequest) -> HttpResponse:
        return admin.render(request, "overview.html", {"title": _("Overview"), "stats": sessions.stats()})

    def urls(admin: PageAdmin) -> list[URLPattern]:
        return [admin.path("overview/", show, name="overview")]
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial, wraps
from typing import Any, ClassVar, Concatenate, ParamSpec, cast
from urllib.parse import urljoin

from django.contrib import messages
from django.contrib.admin import ModelAdmin
from django.contrib.admin.utils import quote
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.timezone import get_current_timezone_name
from django.utils.translation import gettext as _

from sessions_sticky import audit
from sessions_sticky.admin import registry
from sessions_sticky.admin.registry import Needed, Section
from sessions_sticky.exceptions import SessionNotSupported, SessionStoreUnavailable
from sessions_sticky.manager import SessionManager, sessions

logger = logging.getLogger("sessions_sticky")

P = ParamSpec("P")
Page = Callable[Concatenate["PageAdmin", HttpRequest, P], HttpResponse]

READING = ("GET", "HEAD")
TEMPLATES = "admin/sessions_sticky/"


class PageAdmin(ModelAdmin):  # type: ignore[type-arg]
    """A `ModelAdmin` for pages."""

    menu: ClassVar[tuple[Section, ...]] = ()
    end_of_menu: ClassVar[tuple[Section, ...]] = ()

    def path(self, route: str, view: Callable[..., HttpResponse], *, name: str) -> URLPattern:
        """Return the path of a page, named `admin:sessions_sticky_session_{name}`, for logged-in staff only."""
        return path(route, self.admin_site.admin_view(partial(view, self)), name=f"sessions_sticky_session_{name}")

    def url(self, name: str, *args: str) -> str:
        """Return the URL of a page by its name in `path`."""
        return reverse(f"{self.admin_site.name}:sessions_sticky_session_{name}", args=args)

    def session_url(self, conversation_id: str) -> str:
        """Return the URL of a session's page."""
        return self.url("change", quote(conversation_id))

    def back(self, request: HttpRequest, url: str) -> str:
        """Return the URL after a change: the given one, or the front page for users who may change but not view."""
        return url if self.allows(request, "view") else reverse(f"{self.admin_site.name}:index")

    def render(
        self,
        request: HttpRequest,
        template: str,
        context: dict[str, Any],
        *,
        status: int = 200,
        section: str = "changelist",
        fragment: str = "",
    ) -> TemplateResponse:
        """Render a template with the context of Django admin and the user's permissions.

        `template` is a name in this app's folder, or with a slash a complete one. `section` is the name of the menu's
        section that the page belongs to; a page with an entry of its own needs none. With `?fragment` the template
        `fragment` is rendered, if given: a part of the page, without the context of its frame.
        """
        frame: dict[str, Any] = {}
        if fragment and "fragment" in request.GET:
            template = fragment
        else:
            frame = {**self.admin_site.each_context(request), "sections": self._sections(request, section)}
        name = template if "/" in template else f"{TEMPLATES}{template}"
        shared = {
            **frame,
            "opts": self.opts,
            "timezone": get_current_timezone_name(),
            "may_change": self.allows(request, "change"),
            "may_delete": self.allows(request, "delete"),
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, name, {**shared, **context}, status=status)

    def manager(self, request: HttpRequest) -> SessionManager:
        """Return the manager that records the user as the author of changes."""
        return sessions.acting_as(audit.actor(request))

    def allows(self, request: HttpRequest, action: Needed) -> bool:
        """Return whether the user may `view`, `change` or `delete` sessions, by `has_view_permission` and so on."""
        return bool(getattr(self, f"has_{action}_permission")(request))

    def _sections(self, request: HttpRequest, parent: str) -> list[dict[str, Any]]:
        """Return the menu; `current` is "page" for the entry of this page, otherwise "true" for that of its parent."""
        menu = (*self.menu, *(pages.section for pages in registry.pages), *self.end_of_menu)
        by_url = {self.url(each.name): each for each in menu if self.allows(request, each.needed)}
        here = request.path if request.path in by_url else self.url(parent)
        current = "page" if here == request.path else "true"
        return [
            {"name": each.name, "title": each.title, "url": url, "current": current if url == here else ""}
            for url, each in by_url.items()
        ]


def page(needed: Needed, *methods: str, instead: str = "") -> Callable[[Page[P]], Page[P]]:
    """Require a permission on sessions, and allow the given methods (by default GET and HEAD).

    A page that allows only POST redirects GET and HEAD to the path `instead`, relative to its own: a user whose login
    expired while a form was open arrives there after the next login.
    An unavailable store becomes a page with status 503, an unsupported cache one with 501.
    """

    def decorate(view: Page[P]) -> Page[P]:
        @wraps(view)
        def guarded(admin: PageAdmin, request: HttpRequest, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
            if not admin.allows(request, needed):
                raise PermissionDenied
            if instead and request.method in READING:
                messages.warning(request, _("Nothing was changed. Choose again what to do."))
                return HttpResponseRedirect(admin.back(request, urljoin(request.path, instead)))
            if request.method not in (methods or READING):
                return HttpResponseNotAllowed(methods or READING)
            try:
                return view(admin, request, *args, **kwargs)
            except SessionStoreUnavailable as exc:
                logger.warning("admin: %s", exc)  # operators must not see hosts and ports
                title = _("Redis is full") if exc.is_full else _("Session store unavailable")
                context = {"title": title, "is_full": exc.is_full, "changing": request.method not in READING}
                return admin.render(request, "unavailable.html", context, status=503)
            except SessionNotSupported as exc:
                context = {"title": _("The session store does not support this"), "problem": str(exc)}
                return admin.render(request, "not_supported.html", context, status=501)

        return cast("Page[P]", guarded)

    return decorate
