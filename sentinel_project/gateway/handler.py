"""Django's ASGI handler with a short way to the chat API.

Django starts and joins a thread for each request (signals, middleware, closing the response), which is most of what a
small request costs. Below `/v1/` none of that is needed: the handler calls the view on the event loop and nothing in
between waits on a thread. What the views answer is the same either way; Django's test client and WSGI take the long
one.
"""

from __future__ import annotations

import asyncio
import gc
from functools import lru_cache
from io import BytesIO
from typing import Any, cast

from asgiref.sync import AsyncToSync, sync_to_async
from django.conf import settings
from django.core.cache import DEFAULT_CACHE_ALIAS
from django.core.handlers.asgi import ASGIHandler, ASGIRequest
from django.urls import resolve

from sentinel_project.data_folder import log_exposed_files
from sentinel_project.gateway import metrics
from sentinel_project.gateway.auth import authenticate, keys
from sentinel_project.gateway.endpoint import api_path, refuse
from sentinel_project.gateway.errors import ApiError, too_large
from sentinel_project.gateway.providers import reload as provider_file
from sentinel_project.gateway.providers.health_sync import probe_forever, share_forever
from sentinel_project.gateway.routing import plan as routing
from sentinel_project.gateway.routing.warmth import watch_forever
from sentinel_project.gateway.shutdown import CLIENT_DISCONNECTED, stopping
from sentinel_project.gateway.turns.recorder import recorder

UNKNOWN_BYTES = 64 * 1024
"""How much of a body is taken in before the key is looked at: nobody without one is to fill the memory."""

_resolve = lru_cache(maxsize=256)(resolve)


class GatewayHandler(ASGIHandler):
    """Serves HTTP and the lifespan protocol."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one connection."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        if scope["type"] == "http" and api_path(scope).startswith("/v1/"):
            await self._serve_api(scope, receive, send)
        else:
            await super().__call__(scope, receive, _closing(send) if stopping.stop_requested else send)

    def load_middleware(self, is_async: bool = False) -> None:
        """Let the whole chain run in one thread: mixed, Django hops to one and back for each middleware."""
        super().load_middleware(is_async=False)
        chain = vars(self)["_middleware_chain"]
        self._middleware_chain = chain.awaitable if isinstance(chain, AsyncToSync) else sync_to_async(chain)

    async def send_response(self, response: Any, send: Any) -> None:
        """Send. The short way has no middleware to say nosniff, and the type below `/v1/` may be a provider's."""
        response["X-Content-Type-Options"] = "nosniff"
        await super().send_response(response, send)

    async def _live(self, receive: Any, send: Any) -> None:
        """Keep in the background what the chats need at hand: API keys, the providers and their condition."""
        await receive()
        log_exposed_files()
        health, providers = routing.health, provider_file.providers
        forever = [
            keys.refresh_forever(),
            share_forever(health, providers, DEFAULT_CACHE_ALIAS),
            probe_forever(health, providers),
            provider_file.watch_forever(settings.SENTINEL_PROVIDERS_FILE),
            metrics.count_tasks_forever(),
            recorder.flush_forever(),
            watch_forever(routing.warmth, health),
            routing.load.count_workers_forever(metrics.count_workers),
        ]
        background = [asyncio.create_task(each) for each in forever]
        # What is loaded by now stays: leaving it out of every collection takes the worst pauses (40 ms) away.
        gc.collect()
        gc.freeze()
        stopping.listen()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        stopping.unlisten()
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        await recorder.stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def _serve_api(self, scope: Any, receive: Any, send: Any) -> None:
        work = cast("asyncio.Task[Any]", asyncio.current_task())
        leaving: asyncio.Task[None] | None = None
        stopping.begin_chat(work)
        try:
            request = ASGIRequest(scope, BytesIO(await _body(scope, receive)))
            leaving = asyncio.create_task(_cancel_when_left(work, receive))
            view, args, kwargs = _resolve(api_path(scope))
            response = await view(request, *args, **kwargs)
            if not response.streaming:
                response["Content-Length"] = str(len(response.content))  # else the server sends chunks
            if stopping.stop_requested:
                response["Connection"] = "close"
            await self.send_response(response, send)
        except ApiError as exc:
            await self.send_response(refuse(ASGIRequest(scope, BytesIO()), exc), send)
        except _Left:
            pass
        except asyncio.CancelledError:
            if stopping.stop_requested and leaving is None:  # the request is not even there yet
                await self.send_response(refuse(ASGIRequest(scope, BytesIO()), stopping.error()), send)
            elif leaving is None or not leaving.done():
                raise  # the server is stopping
        finally:
            stopping.end_chat(work)
            if leaving is not None:
                leaving.cancel()


class _Left(Exception):
    """The client closed the connection before it had sent its request."""


async def _body(scope: Any, receive: Any) -> bytes:
    """Return the whole body; raises `ApiError` 413 as soon as it is over the limit, 401 when it is long for no key."""
    chunks: list[bytes] = []
    room, more, is_known = settings.DATA_UPLOAD_MAX_MEMORY_SIZE, True, False
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Left
        chunks.append(message.get("body", b""))
        room -= len(chunks[-1])
        if room < 0:
            raise too_large(settings.DATA_UPLOAD_MAX_MEMORY_SIZE)
        more = message.get("more_body", False)
        if more and not is_known and settings.DATA_UPLOAD_MAX_MEMORY_SIZE - room > UNKNOWN_BYTES:
            await authenticate({name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]})
            is_known = True
    return b"".join(chunks)


async def _cancel_when_left(work: asyncio.Task[Any], receive: Any) -> None:
    """Cancel the work, and with it the request to the provider, when the client closes the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
    work.cancel(CLIENT_DISCONNECTED)


def _closing(send: Any) -> Any:
    """Return a `send` that tells the client to close the connection after this answer."""

    async def closing(message: Any) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], (b"Connection", b"close")]}
        await send(message)

    return closing
