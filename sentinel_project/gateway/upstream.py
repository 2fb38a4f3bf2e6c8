"""Calling a provider: native async I/O, answers passed on as they arrive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, NamedTuple

import aiohttp
import msgspec
from django.conf import settings

from sentinel_project.gateway import echo
from sentinel_project.gateway.errors import ApiError
from sentinel_project.gateway.providers import Provider

CONNECT_SECONDS = 5
MAX_ERROR_BYTES = 64 * 1024


class Answer(NamedTuple):
    """A provider's successful answer; `body` is an iterator when it is a stream."""

    content_type: str
    body: bytes | AsyncIterator[bytes]


async def call(provider: Provider, body: dict[str, Any]) -> Answer:
    """Send a chat completion request to a provider.

    Raises `ApiError`: the provider's own error in the OpenAI shape, 502 when it cannot be reached or refuses the
    gateway's credentials, 504 when it does not answer in time.
    """
    wants_stream = bool(body.get("stream"))
    if provider.base_url is None:
        if wants_stream:
            return Answer("text/event-stream", echo.stream(provider.name, body))
        return Answer("application/json", echo.completion(provider.name, body))
    headers = {"Content-Type": "application/json"}
    if provider.api_key is not None:
        headers["Authorization"] = f"Bearer {provider.api_key}"
    client = await _client()
    try:
        response = await client.post(
            f"{provider.base_url}/chat/completions",
            data=msgspec.json.encode(body),
            headers=headers,
            allow_redirects=False,  # a provider must not send the key and the prompt elsewhere
        )
        try:
            if response.status != 200:
                raise await _refusal(provider, response)
            if not wants_stream:
                return Answer(response.content_type, await response.read())
        except BaseException:
            response.close()
            raise
    except (aiohttp.ClientError, TimeoutError, OSError) as exc:
        raise _failure(provider, exc) from exc
    return Answer(response.headers.get("Content-Type", "text/event-stream"), _chunks(provider, response))


async def _chunks(provider: Provider, response: aiohttp.ClientResponse) -> AsyncGenerator[bytes]:
    """Yield what arrives; a stream that breaks ends with an error event. Closing it ends the upstream request."""
    try:
        async for chunk in response.content.iter_any():
            yield chunk
    except (aiohttp.ClientError, TimeoutError, OSError) as exc:
        yield _failure(provider, exc).event()
    finally:
        response.close()


async def _refusal(provider: Provider, response: aiohttp.ClientResponse) -> ApiError:
    """The provider's error, for the client. One about the gateway's key is not about the client's: it becomes 502."""
    text = await response.content.read(MAX_ERROR_BYTES)
    said = _openai_error(text)
    message = said.get("message") or f"Provider {provider.name!r} answered {response.status}"
    headers = {name: response.headers[name] for name in ("Retry-After",) if name in response.headers}
    if response.status in (401, 402, 403):
        message = f"Provider {provider.name!r} refused the gateway's credentials ({response.status})"
        return ApiError(502, message, type="upstream_error", code="upstream_refused", headers=headers)
    status = response.status if response.status >= 400 else 502
    return ApiError(
        status,
        message,
        type=said.get("type") or "upstream_error",
        param=said.get("param"),
        code=said.get("code"),
        headers=headers,
    )


def _openai_error(text: bytes) -> dict[str, Any]:
    try:
        body = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError):
        return {}
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return {}
    return {name: value if name == "code" else str(value) for name, value in error.items() if value is not None}


def _failure(provider: Provider, exc: Exception) -> ApiError:
    if isinstance(exc, TimeoutError) and not isinstance(exc, aiohttp.ConnectionTimeoutError):
        message = f"Provider {provider.name!r} did not answer in time"
        return ApiError(504, message, type="upstream_error", code="upstream_timeout")
    message = f"Provider {provider.name!r} cannot be reached"
    if isinstance(exc, (aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError)):
        message = f"Provider {provider.name!r} broke off its answer"
    return ApiError(502, message, type="upstream_error", code="upstream_unreachable")


_clients: dict[asyncio.AbstractEventLoop, tuple[aiohttp.ClientSession, AsyncGenerator[None]]] = {}


async def _client() -> aiohttp.ClientSession:
    """The HTTP client of the running event loop, closed when the loop ends."""
    loop = asyncio.get_running_loop()
    if loop not in _clients:
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_SECONDS, sock_read=settings.SENTINEL_UPSTREAM_TIMEOUT_SECONDS
        )
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept-Encoding": "identity", "User-Agent": "sessions_sticky"},
        )
        _clients[loop] = session, _close_with(loop, session)
        await anext(_clients[loop][1])
    return _clients[loop][0]


async def _close_with(loop: asyncio.AbstractEventLoop, session: aiohttp.ClientSession) -> AsyncGenerator[None]:
    try:
        yield
    finally:  # run by the loop's `shutdown_asyncgens`
        _clients.pop(loop, None)
        await session.close()
