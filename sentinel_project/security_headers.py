"""Content security policy: pages load only from this server, so injected markup cannot run scripts."""

from __future__ import annotations

from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase

GetResponse = Callable[[HttpRequest], HttpResponseBase]

HEADER = "Content-Security-Policy"
POLICY = "default-src 'self'; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
STYLED_POLICY = f"{POLICY}; style-src 'self' 'unsafe-inline'; img-src 'self' data:"
"""For the API's documentation: Swagger UI writes styles and pictures into the page."""


def security_headers(get_response: GetResponse) -> GetResponse:
    """Middleware: add the policy to responses without one; not with DEBUG, whose error pages contain scripts."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        response = get_response(request)
        if not settings.DEBUG:
            response.headers.setdefault(HEADER, POLICY)
        return response

    return middleware


def styled(view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    """Allow inline styles on a page."""

    def handle(request: HttpRequest) -> HttpResponseBase:
        response = view(request)
        response.headers[HEADER] = STYLED_POLICY
        return response

    return handle
