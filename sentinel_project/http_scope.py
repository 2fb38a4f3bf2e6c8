"""The ASGI scope of a request."""

from __future__ import annotations

import asyncio
from typing import Any

from sentinel_project.http_request import Request


def addresses(transport: asyncio.BaseTransport) -> dict[str, Any]:
    """Return the part of an ASGI scope that is the same for all requests of a connection."""
    return {
        "server": _address(transport.get_extra_info("sockname")),
        "client": _address(transport.get_extra_info("peername")),
        "scheme": "https" if transport.get_extra_info("sslcontext") else "http",
    }


def _address(name: Any) -> tuple[str, int | None] | None:
    """Return an ASGI address of a socket's name: a path for a Unix socket, of which the client's is empty."""
    if isinstance(name, tuple):
        return name[:2]
    return (name, None) if name else None


def asgi_scope(request: Request, about: dict[str, Any]) -> dict[str, Any]:
    """Return the ASGI scope of a request; `about` has its addresses, `root_path` and `state`."""
    root = about["root_path"]
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": request.version,
        "method": request.method,
        "path": root + request.path,
        "raw_path": root.encode() + request.raw_path,
        "query_string": request.query,
        "headers": request.headers,
        **about,
    }
