"""ASGI middleware that limits what a client may send.

Django reads the whole body of every request, onto the disk, before it authenticates. This stops at
`SENTINEL_MAX_BODY_BYTES`, on all paths. The server's own limits (headers, connections, time) are in http_protocol.py.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings

from sentinel_project.gateway.calls import Call, api_path
from sentinel_project.gateway.endpoint import refuse
from sentinel_project.gateway.errors import too_large

DISCONNECT = {"type": "http.disconnect"}


class Limits:
    """Refuses a request whose body is too large, as soon as that is known, and every WebSocket."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one connection."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})  # there are none; Django would answer 500
        elif scope["type"] != "http":
            await self._app(scope, receive, send)
        elif (declared := _declared(scope)) is None:
            body = _Body(receive, settings.DATA_UPLOAD_MAX_MEMORY_SIZE)
            await self._app(scope, body.receive, send)
            if body.is_over:
                await _refuse(scope, send)
        elif declared > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
            await _refuse(scope, send)
        else:
            await self._app(scope, receive, send)


class _Body:
    """A request's body up to a limit. Beyond it the application sees a disconnect."""

    def __init__(self, receive: Any, limit: int) -> None:
        self._receive = receive
        self._room = limit

    @property
    def is_over(self) -> bool:
        return self._room < 0

    async def receive(self) -> Any:
        message = await self._receive()
        self._room -= len(message.get("body", b""))
        return DISCONNECT if self.is_over else message


def _declared(scope: Any) -> int | None:
    """Return the declared length of the body, which servers enforce; None for a chunked body."""
    headers = dict(scope["headers"])
    length = headers.get(b"content-length")
    return None if length is None or b"transfer-encoding" in headers else int(length)


async def _refuse(scope: Any, send: Any) -> None:
    error = too_large(settings.DATA_UPLOAD_MAX_MEMORY_SIZE)
    is_api = api_path(scope).startswith("/v1/")  # which has a request id and a line in the log
    reply = refuse(Call.of_scope(scope, b""), error) if is_api else error.reply()
    await reply.send_to(send)
