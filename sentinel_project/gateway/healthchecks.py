"""The state of the process, for load balancers and for Prometheus."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from asgiref.sync import sync_to_async
from django.contrib import admin
from django.db import Error
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect

from sentinel_project.gateway import metrics
from sentinel_project.gateway.models import ApiKey
from sentinel_project.gateway.replies import json_reply
from sessions_sticky import SessionError, sessions

PATHS = ("/healthz", "/readyz", "/metrics")


def any_host(get_response: Callable[[HttpRequest], HttpResponseBase]) -> Callable[[HttpRequest], HttpResponseBase]:
    """Middleware: answer these paths for any host, because Kubernetes and Prometheus use addresses."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        if request.path_info in PATHS:
            request.get_host = lambda: "localhost"  # type: ignore[method-assign]
        return get_response(request)

    return middleware


def front_page(request: HttpRequest) -> HttpResponse:
    """Redirect browsers to the admin; answer HEAD probes of clients such as Claude Code with 200."""
    return HttpResponse() if request.method == "HEAD" else redirect("admin:index")


def start_page(request: HttpRequest) -> HttpResponseBase:
    """Redirect users who may view sessions to the overview; show others the index of Django admin."""
    if admin.site.has_permission(request) and request.user.has_perm("sessions_sticky.view_session"):
        return redirect("admin:sessions_sticky_session_overview")
    return admin.site.admin_view(admin.site.index)(request)


async def healthz(request: HttpRequest) -> HttpResponseBase:
    """Return 200: the process answers."""
    return json_reply({"status": "ok"}).as_response()


async def readyz(request: HttpRequest) -> HttpResponseBase:
    """Return whether store and database are available; 503 if not."""
    try:
        await sessions.aget("readyz")
        store = "ok"
    except SessionError:
        store = "unavailable"
    parts = {"store": store, "database": await sync_to_async(_database_state)()}
    ready = set(parts.values()) == {"ok"}
    reply = json_reply({"status": "ok" if ready else "unavailable", **parts}, status=200 if ready else 503)
    return reply.as_response()


async def prometheus(request: HttpRequest) -> HttpResponse:
    """Return the metrics."""
    body, content_type = await asyncio.to_thread(metrics.render)  # with many workers or labels it takes a while
    return HttpResponse(body, content_type=content_type)


def _database_state() -> str:
    try:
        ApiKey.objects.exists()  # a database that is locked, or has no tables yet, answers `SELECT 1`
    except Error:
        return "unavailable"
    return "ok"
