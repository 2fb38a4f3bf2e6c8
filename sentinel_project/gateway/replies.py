"""A reply of an endpoint of the API."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
from django.http import HttpResponse, HttpResponseBase, StreamingHttpResponse


class Reply(NamedTuple):
    """An answer, whole or as a stream; Django's take 40 us of a request, for cookies and charsets."""

    status: int
    headers: dict[str, str]
    body: bytes | AsyncGenerator[bytes]

    async def send_to(self, send: Any) -> None:
        """Send the reply to an ASGI server. Its type may be a provider's: browsers must not guess another one."""
        headers = {**self.headers, "X-Content-Type-Options": "nosniff"}
        if isinstance(self.body, bytes):
            headers["Content-Length"] = str(len(self.body))
        lines = [_encoded(name, value) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": self.status, "headers": lines})
        if isinstance(self.body, bytes):
            await send({"type": "http.response.body", "body": self.body})
            return
        async with aclosing(self.body) as chunks:
            async for chunk in chunks:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    def as_response(self) -> HttpResponseBase:
        """Return the reply for Django's own handlers."""
        response = HttpResponse if isinstance(self.body, bytes) else StreamingHttpResponse
        return response(self.body, status=self.status, headers=self.headers)


@lru_cache(maxsize=128)  # most headers are those of other replies
def _encoded(name: str, value: str) -> tuple[bytes, bytes]:
    return name.lower().encode("latin-1"), value.encode("latin-1")


def json_reply(body: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """Return `body` as JSON."""
    return Reply(status, {"Content-Type": "application/json", **(headers or {})}, msgspec.json.encode(body))


def call_at_end(body: bytes | AsyncGenerator[bytes], on_end: Callable[[], None]) -> None:
    """Call `on_end` once a stream has ended; at once for a whole body.

    A stream ends with its iterator, also with one that is dropped before its first item.
    """
    if isinstance(body, bytes):
        on_end()
    else:
        weakref.finalize(body, _call_on, asyncio.get_running_loop(), on_end)


def _call_on(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    """Schedule a call on an event loop, because any thread may collect garbage."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(call)
