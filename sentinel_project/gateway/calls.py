"""What an endpoint of the API takes: a request, from the ASGI server or from Django."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest

from sentinel_project.gateway.errors import ApiError, too_large
from sentinel_project.gateway.request_log import RequestLog

if TYPE_CHECKING:
    from sentinel_project.gateway.key_quota import Slot


class Call:
    """A request, with its `log`. `path` is within the application, `query` is raw, `headers` have lower-case names.

    `slot` is its place within the limits of its key; None without limits.
    """

    __slots__ = ("headers", "log", "method", "path", "query", "raw_body", "slot")

    def __init__(self, method: str, path: str, query: str, headers: dict[str, str], raw_body: bytes) -> None:
        self.method, self.path, self.query, self.headers, self.raw_body = method, path, query, headers, raw_body
        self.log = RequestLog(headers)
        self.slot: Slot | None = None

    @classmethod
    def of_scope(cls, scope: Any) -> Call:
        """Return the request of an ASGI scope, without its body."""
        query = scope["query_string"].decode(errors="replace")
        return cls(scope["method"], api_path(scope), query, joined_headers(scope), b"")

    @classmethod
    def of_django(cls, request: HttpRequest, *, reads_body: bool = True) -> Call:
        """Return a request that came through Django's own handlers. Raises `ApiError` 413.

        Django's body can be read once: without `reads_body` it is not, and the call has none.
        """
        scope = getattr(request, "scope", None)
        headers = joined_headers(scope) if scope else {name.lower(): value for name, value in request.headers.items()}
        try:
            body = request.body if reads_body else b""
        except RequestDataTooBig as exc:
            raise too_large() from exc
        return cls(str(request.method), request.path_info, request.META.get("QUERY_STRING", ""), headers, body)

    @property
    def body(self) -> bytes:
        """The whole body. Raises `ApiError` 415 for a compressed one."""
        encoding = self.headers.get("content-encoding", "identity").strip().lower()
        if encoding != "identity":
            message = f"The request body must not be compressed, but Content-Encoding is {encoding[:32]!r}"
            raise ApiError(415, message, code="unsupported_encoding", headers={"Accept-Encoding": "identity"})
        return self.raw_body

    def parameter(self, name: str) -> str | None:
        """Return the last value of a parameter of the query; None without one."""
        return parse_qs(self.query, keep_blank_values=True).get(name, [None])[-1]


def api_path(scope: Any) -> str:
    """Return a request's path within the application, without the server's `--root-path`."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def joined_headers(scope: Any) -> dict[str, str]:
    """Return all headers: also those with an underscore in the name, which Django drops. Repeated ones are joined.

    ASGI has their names in lower case.
    """
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        # What is not UTF-8 stays distinct, and is refused as an id: with "replace" two conversations could become one.
        name, value = raw_name.decode("latin-1"), raw_value.decode(errors="surrogateescape")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers
