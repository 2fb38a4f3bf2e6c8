"""What all pages share: who may see them, which methods they take, and what they say when the store does not answer.

A page is a function of the `SessionAdmin`, the request and what its path holds. A module of pages lists its paths:

    @page("view")
    def show(admin: SessionAdmin, request: HttpRequest) -> HttpResponse:
        return admin.render(request, "overview.html", {"title": _("Overview"), "stats": sessions.stats()})

    def urls(admin: SessionAdmin) -> list[URLPattern]:
        return [admin.path("overview/", show, name="overview")]

    SECTION = Section("overview", gettext_lazy("Overview"))
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Concatenate, Literal, NamedTuple, ParamSpec, cast

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.utils.translation import gettext as _

from sessions_sticky.exceptions import SessionNotSupported, SessionStoreUnavailable

if TYPE_CHECKING:
    from django_stubs_ext import StrOrPromise

    from sessions_sticky.admin.model_admin import SessionAdmin

logger = logging.getLogger("sessions_sticky")

P = ParamSpec("P")
Page = Callable[Concatenate["SessionAdmin", HttpRequest, P], HttpResponse]
Needed = Literal["view", "change", "delete"]

READING = ("GET", "HEAD")


class Section(NamedTuple):
    """An entry of the menu above all pages: a page's name and title, and what its users need.

    A module of pages has one as `SECTION`, or none.
    """

    name: str
    title: StrOrPromise
    needed: Needed = "view"


def page(needed: Needed, *methods: str) -> Callable[[Page[P]], Page[P]]:
    """Let users in who have a permission on sessions, with some methods (without any: GET and HEAD).

    A store that does not answer becomes a page with status 503, a cache that cannot do it one with 501.
    """

    def decorate(view: Page[P]) -> Page[P]:
        @wraps(view)
        def guarded(admin: SessionAdmin, request: HttpRequest, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
            if not admin.allows(request, needed):
                raise PermissionDenied
            if request.method not in (methods or READING):
                return HttpResponseNotAllowed(methods or READING)
            try:
                return view(admin, request, *args, **kwargs)
            except SessionStoreUnavailable as exc:
                logger.warning("admin: %s", exc)  # names hosts and ports, which are not for every operator
                return _unavailable(admin, request)
            except SessionNotSupported as exc:
                return _not_supported(admin, request, exc)

        return cast("Page[P]", guarded)

    return decorate


def _unavailable(admin: SessionAdmin, request: HttpRequest) -> HttpResponse:
    context = {"title": _("The session store does not answer"), "changing": request.method not in READING}
    return admin.render(request, "unavailable.html", context, status=503)


def _not_supported(admin: SessionAdmin, request: HttpRequest, exc: SessionNotSupported) -> HttpResponse:
    context = {"title": _("The session store cannot do this"), "problem": str(exc)}
    return admin.render(request, "not_supported.html", context, status=501)
