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

from sentinel_project.gateway import routing
from sentinel_project.gateway.auth import keys
from sentinel_project.gateway.endpoint import refuse
from sentinel_project.gateway.errors import ApiError, too_large
from sentinel_project.gateway.shared_health import probe_forever, share_forever

_resolve = lru_cache(maxsize=256)(resolve)


class GatewayHandler(ASGIHandler):
    """Serves HTTP and the lifespan protocol."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one connection."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http" and scope["path"].startswith("/v1/"):
            await self._serve_api(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    def load_middleware(self, is_async: bool = False) -> None:
        """Let the whole chain run in one thread: mixed, Django hops to one and back for each middleware."""
        super().load_middleware(is_async=False)
        chain = vars(self)["_middleware_chain"]
        self._middleware_chain = chain.awaitable if isinstance(chain, AsyncToSync) else sync_to_async(chain)

    async def _live(self, receive: Any, send: Any) -> None:
        """Keep in the background what the chats need at hand: API keys, and the condition of providers."""
        await receive()
        health, providers = routing.health, settings.SENTINEL_PROVIDERS
        background = [
            asyncio.create_task(keys.refresh_forever()),
            asyncio.create_task(share_forever(health, providers, DEFAULT_CACHE_ALIAS)),
            asyncio.create_task(probe_forever(health, providers)),
        ]
        # What is loaded by now stays: leaving it out of every collection takes the worst pauses (40 ms) away.
        gc.collect()
        gc.freeze()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        await send({"type": "lifespan.shutdown.complete"})

    async def _serve_api(self, scope: Any, receive: Any, send: Any) -> None:
        work = cast("asyncio.Task[Any]", asyncio.current_task())
        leaving: asyncio.Task[None] | None = None
        try:
            request = ASGIRequest(scope, BytesIO(await _body(receive)))
            leaving = asyncio.create_task(_cancel_when_left(work, receive))
            view, args, kwargs = _resolve(scope["path"])
            response = await view(request, *args, **kwargs)
            if not response.streaming:
                response["Content-Length"] = str(len(response.content))  # else the server sends chunks
            await self.send_response(response, send)
        except ApiError as exc:
            await self.send_response(refuse(ASGIRequest(scope, BytesIO()), exc), send)
        except _Left:
            pass
        except asyncio.CancelledError:
            if leaving is None or not leaving.done():
                raise  # the server is stopping
        finally:
            if leaving is not None:
                leaving.cancel()


class _Left(Exception):
    """The client closed the connection before it had sent its request."""


async def _body(receive: Any) -> bytes:
    """Return the whole body; raises `ApiError` 413 as soon as it is over the limit."""
    chunks: list[bytes] = []
    room, more = settings.DATA_UPLOAD_MAX_MEMORY_SIZE, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Left
        chunks.append(message.get("body", b""))
        room -= len(chunks[-1])
        if room < 0:
            raise too_large(settings.DATA_UPLOAD_MAX_MEMORY_SIZE)
        more = message.get("more_body", False)
    return b"".join(chunks)


async def _cancel_when_left(work: asyncio.Task[Any], receive: Any) -> None:
    """Cancel the work, and with it the request to the provider, when the client closes the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
    work.cancel()
