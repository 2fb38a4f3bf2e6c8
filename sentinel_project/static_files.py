"""Serve static files with ServeStatic, without slowing down other requests."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from asgiref.sync import async_to_sync, sync_to_async
from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from servestatic.middleware import ServeStaticMiddleware

GetResponse = Callable[[HttpRequest], HttpResponseBase]


def static_files(get_response: GetResponse) -> GetResponse:
    """Serve paths below `STATIC_URL`; pass other requests on.

    ServeStatic's own middleware is async alone. In a chain that is not, every request would pay for an event loop and
    two changes of threads, which is a third of what a page of the API costs. Its initialization scans
    all files of all apps, which takes as long as 20 such pages, so it runs at the first request for a file.
    """
    prefix = ServeStaticMiddleware.default_static_prefix(settings)

    @cache
    def serve() -> GetResponse:
        return async_to_sync(ServeStaticMiddleware(sync_to_async(get_response)))

    def middleware(request: HttpRequest) -> HttpResponseBase:
        return serve()(request) if request.path_info.startswith(prefix) else get_response(request)

    return middleware
