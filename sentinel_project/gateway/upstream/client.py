"""Calling a provider: native async I/O, answers passed on as they arrive."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from functools import partial
from typing import Any, NamedTuple

import aiohttp
import msgspec
from django.conf import settings

from sentinel_project.gateway import metrics
from sentinel_project.gateway.errors import ApiError
from sentinel_project.gateway.providers import echo
from sentinel_project.gateway.providers.config import Provider
from sentinel_project.gateway.shutdown import stopping
from sentinel_project.gateway.upstream.errors import Failed, failure, refusal, too_long
from sentinel_project.gateway.upstream.masking import mask_body

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 5
CLOSING_SECONDS = 2
"""How soon a kept connection breaks if the provider was closing it; later, it had begun to answer, and did fail."""
MAX_ANSWER_BYTES = 64 * 2**20
"""The longest answer that is no stream; a few pictures in base64 are in the room of that."""
MAX_EVENT_BYTES = 16 * 2**20
"""The longest event of a stream: so much is kept until its end has come."""
MEDIA_TYPES = ("application/json", "text/event-stream", "application/x-ndjson")
"""The types of answers that are passed on."""


class Answer(NamedTuple):
    """A provider's successful answer; `body` is an iterator when it is a stream."""

    content_type: str
    body: bytes | AsyncGenerator[bytes]


async def call(provider: Provider, body: dict[str, Any]) -> Answer:
    """Send a chat completion request to a provider; a stream is returned when its first byte has come.

    Raises `Failed`, `Refused`, or `ApiError` for an error that is the request's own, in the OpenAI shape.
    """
    wants_stream = bool(body.get("stream"))
    if provider.base_url is None:
        if wants_stream:
            return Answer("text/event-stream", echo.stream(provider.name, body))
        return Answer("application/json", echo.completion(provider.name, body))
    try:
        async with asyncio.timeout(settings.SENTINEL_UPSTREAM_TIMEOUT_SECONDS):
            return await _ask(provider, body, wants_stream=wants_stream)
    except (aiohttp.ClientError, TimeoutError, OSError) as exc:
        raise failure(provider, exc) from exc


async def _ask(provider: Provider, body: dict[str, Any], *, wants_stream: bool) -> Answer:
    response = await _post(provider, _json(body))
    try:
        if response.status != 200:
            raise await refusal(provider, response)
        first = await (response.content.readany() if wants_stream else _whole(provider, response))
        if not first:
            raise aiohttp.ServerDisconnectedError  # without a length an answer that breaks off looks like a whole one
        if not wants_stream:
            return Answer(_media_type(response, "application/json"), mask_body(first, provider.api_key))
    except BaseException:
        response.close()
        raise
    return Answer(_media_type(response, "text/event-stream"), _chunks(provider, response, first))


async def _post(provider: Provider, body: bytes) -> aiohttp.ClientResponse:
    """Send; once more when a kept connection breaks: the provider may close it at any moment, which is no failure."""
    clients, reuses = await _clients_of_loop(), list[str]()
    send = partial(
        aiohttp.ClientSession.post,
        url=f"{provider.base_url}/chat/completions",
        data=body,
        headers={**_authorization(provider), "Content-Type": "application/json"},
        allow_redirects=False,  # a provider must not send the key and the prompt elsewhere
        trace_request_ctx=reuses,
    )
    sent = time.monotonic()
    try:
        return await send(clients.keeping)
    except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
        if not reuses or time.monotonic() - sent > CLOSING_SECONDS:
            raise
        return await send(clients.connecting)  # a provider that stops closes all that are kept


async def _note_reuse(
    client: aiohttp.ClientSession, context: Any, params: aiohttp.TraceConnectionReuseconnParams
) -> None:
    if context.trace_request_ctx is not None:  # that of a probe
        context.trace_request_ctx.append("reused")


def _json(body: dict[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(body)
    except RecursionError as exc:  # it was just shallow enough to be read
        raise ApiError(400, "The request body is nested too deeply", code="invalid_json") from exc


async def probe(provider: Provider) -> int:
    """Return the status of a provider's list of models. Raises `aiohttp.ClientError`, `TimeoutError` or `OSError`."""
    if provider.base_url is None:
        return 200
    client = (await _clients_of_loop()).keeping
    timeout = aiohttp.ClientTimeout(total=CONNECT_SECONDS)
    url, headers = f"{provider.base_url}/models", _authorization(provider)
    async with client.get(url, headers=headers, timeout=timeout, allow_redirects=False) as response:
        return response.status


async def _chunks(provider: Provider, response: aiohttp.ClientResponse, chunk: bytes) -> AsyncGenerator[bytes]:
    """Yield what arrives; a stream that breaks or stalls ends with an error event. Closing it ends the request."""
    rest = bytearray()
    try:
        while chunk:
            if whole := _take_whole(rest, chunk):
                yield mask_body(whole, provider.api_key)
            if len(rest) > MAX_EVENT_BYTES:
                yield _last_event(provider, too_long(provider, MAX_EVENT_BYTES))
                return
            async with asyncio.timeout(settings.SENTINEL_IDLE_TIMEOUT_SECONDS):
                chunk = await response.content.readany()
        if rest:
            yield mask_body(bytes(rest), provider.api_key)
    except asyncio.CancelledError as exc:
        if not stopping.caused(exc):
            raise
        yield stopping.error().event()
    except (aiohttp.ClientError, TimeoutError, OSError) as exc:
        yield _last_event(provider, failure(provider, exc))
    finally:
        response.close()


def _media_type(response: aiohttp.ClientResponse, default: str) -> str:
    """Return the type of an answer if it is one of `MEDIA_TYPES`: in any other text a provider may repeat its key."""
    if response.content_type not in MEDIA_TYPES:
        return default
    return response.content_type + ("; charset=utf-8" if (response.charset or "").lower() == "utf-8" else "")


def _last_event(provider: Provider, failed: Failed) -> bytes:
    """Note a failure within a stream, whose status was told long ago, and return what tells the client."""
    metrics.upstream_failures.labels(provider.name, failed.reason).inc()
    logger.warning("provider %r broke off a stream: %s", provider.name, failed.logged)
    return failed.event()


def _authorization(provider: Provider) -> dict[str, str]:
    return {} if provider.api_key is None else {"Authorization": f"Bearer {provider.api_key}"}


def _take_whole(rest: bytearray, chunk: bytes) -> bytes:
    """Add a chunk to the rest and take the events that are complete: nobody could read an error after half an event."""
    seen = max(0, len(rest) - 2)  # before that is no end, or it were not the rest
    rest += chunk
    end = max(rest.rfind(b"\n\n", seen) + 2, rest.rfind(b"\n\r\n", seen) + 3)
    if end <= 2:
        return b""
    whole = bytes(rest[:end])
    del rest[:end]
    return whole


async def _whole(provider: Provider, response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    while chunk := await response.content.readany():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise too_long(provider, MAX_ANSWER_BYTES)
    return bytes(body)


class Clients(NamedTuple):
    """HTTP clients: one that keeps its connections, and one that makes a new connection for each request."""

    keeping: aiohttp.ClientSession
    connecting: aiohttp.ClientSession


_clients: dict[asyncio.AbstractEventLoop, tuple[Clients, AsyncGenerator[None]]] = {}


async def _clients_of_loop() -> Clients:
    """The HTTP clients of the running event loop, closed when the loop ends."""
    loop = asyncio.get_running_loop()
    if loop not in _clients:
        clients = Clients(_client(force_close=False), _client(force_close=True))
        _clients[loop] = clients, _close_with(loop, clients)
        await anext(_clients[loop][1])
    return _clients[loop][0]


def _client(*, force_close: bool) -> aiohttp.ClientSession:
    trace = aiohttp.TraceConfig()
    trace.on_connection_reuseconn.append(_note_reuse)
    return aiohttp.ClientSession(
        trace_configs=[trace],
        connector=aiohttp.TCPConnector(limit=0, force_close=force_close),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),  # reads have theirs
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"Accept-Encoding": "identity", "User-Agent": "sessions_sticky"},
    )


async def _close_with(loop: asyncio.AbstractEventLoop, clients: Clients) -> AsyncGenerator[None]:
    try:
        yield
    finally:  # run by the loop's `shutdown_asyncgens`
        _clients.pop(loop, None)
        for client in clients:
            await client.close()
