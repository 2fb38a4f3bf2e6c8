"""Django's ASGI handler with a fast path for everything below /v1/.

Django starts and joins a thread for each request (signals, middleware, closing the response), which is most of what a
small request costs. Below `/v1/` the handler calls the view directly on the event loop. The responses are the same;
Django's test client and WSGI use the normal path.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, cast

from asgiref.sync import AsyncToSync, sync_to_async
from django.core.handlers.asgi import ASGIHandler
from django.urls import resolve

from sentinel_project import memory
from sentinel_project.data_folder import log_exposed_files
from sentinel_project.gateway import background, metrics
from sentinel_project.gateway.apis.base import ROOT
from sentinel_project.gateway.auth import authenticate
from sentinel_project.gateway.calls import Call, api_path
from sentinel_project.gateway.conf import settings
from sentinel_project.gateway.endpoint import Endpoint, refuse
from sentinel_project.gateway.errors import ApiError, too_large
from sentinel_project.gateway.shutdown import CLIENT_DISCONNECTED, stopping
from sentinel_project.gateway.turns.recorder import recorder
from sentinel_project.http_exchange import EXCHANGE, Exchange
from sessions_sticky.jobs.service import jobs

UNKNOWN_BYTES = 64 * 1024
"""How much of a body is read before authentication, so that clients without a key cannot fill the memory."""

RECANCEL_SECONDS = 0.5
"""How soon the request of a client that has left is cancelled again: Python 3.11 may lose one (`background.cancel`)."""


class GatewayHandler(ASGIHandler):
    """Serves HTTP and the lifespan protocol."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one connection."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})  # there are none; Django would answer 500
        elif api_path(scope).startswith(f"{ROOT}/"):
            await self._serve_api(scope, receive, send)
        else:
            # Django reads the whole body, onto the disk, before it authenticates.
            body = _LimitedBody(scope, receive)
            if not body.is_over:
                await super().__call__(scope, body.receive, _closing(send) if stopping.stop_requested else send)
            if body.is_over:
                await too_large().reply().send_to(send)

    def load_middleware(self, is_async: bool = False) -> None:
        """Run the whole middleware chain in one thread: a mixed chain switches threads for each middleware."""
        super().load_middleware(is_async=False)
        chain = vars(self)["_middleware_chain"]
        self._middleware_chain = chain.awaitable if isinstance(chain, AsyncToSync) else sync_to_async(chain)

    async def send_response(self, response: Any, send: Any) -> None:
        """Send with `nosniff`, which the fast path has no middleware for; the type may be a provider's."""
        response["X-Content-Type-Options"] = "nosniff"
        await super().send_response(response, send)

    async def _live(self, receive: Any, send: Any) -> None:
        """Keep the tasks in the background running while the server does."""
        await receive()
        log_exposed_files()
        jobs.watch()
        tasks = background.start()
        resolve("/healthz")  # imports all views, which takes 0.3 s
        memory.tune()
        stopping.listen()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        stopping.unlisten()
        await background.cancel(tasks)
        await recorder.stop()
        metrics.write_counts()  # those of the last turns, too: uvicorn then ends a worker by the signal that stopped it
        await send({"type": "lifespan.shutdown.complete"})

    async def _serve_api(self, scope: Any, receive: Any, send: Any) -> None:
        work = cast("asyncio.Task[Any]", asyncio.current_task())
        client = _Client(work)
        exchange: Exchange | None = scope.get("extensions", {}).get(EXCHANGE)
        call = Call.of_scope(scope)
        stopping.begin_chat(work)
        try:
            call.raw_body = await _read_body(exchange, scope, receive, call.headers)
            client.watch(exchange, receive)
            endpoint, captured = _resolve_api(call.path)
            reply = await endpoint.answer(call, **captured)
            if stopping.stop_requested:
                reply.headers["Connection"] = "close"
            await reply.send_to(send)
        except ApiError as exc:
            await refuse(call, exc).send_to(send)
        except _Left:
            pass
        except asyncio.CancelledError:
            if stopping.stop_requested and not client.is_watched:  # the request is incomplete
                await refuse(call, stopping.error()).send_to(send)
            elif not client.has_left:
                raise  # the server is stopping
        finally:
            stopping.end_chat(work)
            client.unwatch()


@lru_cache(maxsize=256)
def _resolve_api(path: str) -> tuple[Endpoint, dict[str, Any]]:
    """Return the endpoint of a path, and what the path captures."""
    match = resolve(path)
    return cast("Endpoint", match.func), match.kwargs


class _Client:
    """The client of a request; its disconnect cancels the work, and so the request to the provider."""

    has_left = False
    is_watched = False

    def __init__(self, work: asyncio.Task[Any]) -> None:
        self._work = work
        self._waiting: asyncio.Task[None] | None = None

    def watch(self, exchange: Exchange | None, receive: Any) -> None:
        """Watch for a disconnect after the body was read, by a callback of our own server."""
        self.is_watched = True
        if exchange is not None:
            exchange.call_on_disconnect(self._leave)
        else:
            self._waiting = asyncio.create_task(self._wait(receive))

    def unwatch(self) -> None:
        """Stop watching."""
        if self._waiting is not None:
            self._waiting.cancel()

    async def _wait(self, receive: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._leave()

    def _leave(self) -> None:
        self.has_left = True
        if not self._work.done():
            self._work.cancel(CLIENT_DISCONNECTED)
            asyncio.get_running_loop().call_later(RECANCEL_SECONDS, self._leave)


class _Left(Exception):
    """The client closed the connection before it had sent its request."""


class _LimitedBody:
    """A request's body up to the limit. Beyond it the application sees a disconnect.

    A declared length is over the limit at once; servers enforce it. A chunked body has none.
    """

    def __init__(self, scope: Any, receive: Any) -> None:
        self._receive = receive
        self._room: int = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        headers = dict(scope["headers"])
        if b"transfer-encoding" not in headers and int(headers.get(b"content-length", 0)) > self._room:
            self._room = -1

    @property
    def is_over(self) -> bool:
        return self._room < 0

    async def receive(self) -> Any:
        message = await self._receive()
        self._room -= len(message.get("body", b""))
        return {"type": "http.disconnect"} if self.is_over else message


async def _read_body(exchange: Exchange | None, scope: Any, receive: Any, headers: Mapping[str, str]) -> bytes:
    """Return the whole body. Raises `ApiError`: 413 beyond the limit, 401 for a long body without a key."""
    whole = exchange.take_body() if exchange is not None else None
    if whole is not None:
        if len(whole) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
            raise too_large()
        return whole
    body = _LimitedBody(scope, receive)
    chunks: list[bytes] = []
    size, more, is_known = 0, not body.is_over, False
    while more:
        message = await body.receive()
        if message["type"] == "http.disconnect" and not body.is_over:
            raise _Left
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        more = message.get("more_body", False)
        if more and not is_known and size > UNKNOWN_BYTES:
            await authenticate(headers)
            is_known = True
    if body.is_over:
        raise too_large()
    return b"".join(chunks)


def _closing(send: Any) -> Any:
    """Return a `send` that adds `Connection: close`."""

    async def closing(message: Any) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], (b"Connection", b"close")]}
        await send(message)

    return closing
