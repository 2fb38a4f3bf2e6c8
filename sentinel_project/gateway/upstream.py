"""Calling a provider: native async I/O, answers passed on as they arrive."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from email.utils import parsedate_to_datetime
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
    body: bytes | AsyncGenerator[bytes]


class Failed(ApiError):
    """The provider failed: no connection, no answer in time, 5xx or 429. Another one may well answer.

    `reason` is its status or the error's code, never its own words: they may be anything, the message's text too.
    `retry_after` is its own wish in seconds, if it has one; `alive` tells that it did answer.
    """

    reason: str = ""
    retry_after: float | None = None
    alive: bool = False


class Refused(ApiError):
    """The provider does not serve this gateway or this model; `provider_status` is its 401, 402, 403 or 404."""

    provider_status = 0


async def call(provider: Provider, body: dict[str, Any]) -> Answer:
    """Send a chat completion request to a provider; a stream is returned when its first byte has come.

    Raises `Failed`, `Refused`, or `ApiError` for an error that is the request's own, in the OpenAI shape.
    """
    wants_stream = bool(body.get("stream"))
    if provider.base_url is None:
        if wants_stream:
            return Answer("text/event-stream", echo.stream(provider.name, body))
        return Answer("application/json", echo.completion(provider.name, body))
    client = await _client()
    try:
        response = await client.post(
            f"{provider.base_url}/chat/completions",
            data=msgspec.json.encode(body),
            headers={**_authorization(provider), "Content-Type": "application/json"},
            allow_redirects=False,  # a provider must not send the key and the prompt elsewhere
        )
        try:
            if response.status != 200:
                raise await _refusal(provider, response)
            if not wants_stream:
                return Answer(response.content_type, await response.read())
            first = await response.content.readany()
        except BaseException:
            response.close()
            raise
    except (aiohttp.ClientError, TimeoutError, OSError) as exc:
        raise _failure(provider, exc) from exc
    return Answer(response.headers.get("Content-Type", "text/event-stream"), _chunks(provider, response, first))


async def probe(provider: Provider) -> int:
    """Return the status of a provider's list of models. Raises `aiohttp.ClientError`, `TimeoutError` or `OSError`."""
    if provider.base_url is None:
        return 200
    client = await _client()
    timeout = aiohttp.ClientTimeout(total=CONNECT_SECONDS)
    url, headers = f"{provider.base_url}/models", _authorization(provider)
    async with client.get(url, headers=headers, timeout=timeout, allow_redirects=False) as response:
        return response.status


async def _chunks(provider: Provider, response: aiohttp.ClientResponse, chunk: bytes) -> AsyncGenerator[bytes]:
    """Yield what arrives; a stream that breaks or stalls ends with an error event. Closing it ends the request."""
    rest = b""
    try:
        while chunk:
            whole, rest = _split(rest + chunk)
            if whole:
                yield whole
            async with asyncio.timeout(settings.SENTINEL_IDLE_TIMEOUT_SECONDS):
                chunk = await response.content.readany()
        if rest:
            yield rest
    except (aiohttp.ClientError, TimeoutError, OSError) as exc:
        yield _failure(provider, exc).event()
    finally:
        response.close()


def _authorization(provider: Provider) -> dict[str, str]:
    return {} if provider.api_key is None else {"Authorization": f"Bearer {provider.api_key}"}


def _split(data: bytes) -> tuple[bytes, bytes]:
    """Return the events that are complete, and the rest: nobody could read an error event after half an event."""
    end = max(data.rfind(b"\n\n") + 2, data.rfind(b"\n\r\n") + 3)
    return (data[:end], data[end:]) if end > 2 else (b"", data)


async def _error_text(provider: Provider, response: aiohttp.ClientResponse) -> bytes:
    """The start of an error's body, without the gateway's key, which some providers repeat."""
    text = b""
    while len(text) < MAX_ERROR_BYTES and (chunk := await response.content.readany()):
        text += chunk
    return text.replace(provider.api_key.encode(), b"***") if provider.api_key else text


async def _refusal(provider: Provider, response: aiohttp.ClientResponse) -> ApiError:
    """The provider's error, for the client. One about the gateway's key is not about the client's: it becomes 502."""
    status = response.status
    said = _openai_error(await _error_text(provider, response))
    message = said.get("message") or f"Provider {provider.name!r} answered {status}"
    own_words: dict[str, Any] = {name: said.get(name) for name in ("param", "code")}
    own_words["type"] = said.get("type") or "upstream_error"
    headers = {name: response.headers[name] for name in ("Retry-After",) if name in response.headers}
    if status in (401, 402, 403, 404):
        refused = Refused(status, message, **own_words)
        if status != 404:
            message = f"Provider {provider.name!r} refused the gateway's credentials ({status})"
            refused = Refused(502, message, type="upstream_error", code="upstream_refused")
        refused.provider_status = status
        return refused
    if status < 500 and status != 429:
        return ApiError(status if status >= 400 else 502, message, headers=headers, **own_words)
    failed = Failed(status, message, headers=headers, **own_words)
    failed.reason = str(status)
    failed.alive = status == 429
    failed.retry_after = _seconds(headers.get("Retry-After"))
    return failed


def _seconds(retry_after: str | None) -> float | None:
    """Read a `Retry-After` header (RFC 9110: seconds or a date); None when there is none or it is neither."""
    if retry_after is None:
        return None
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except ValueError:
        return None


def _openai_error(text: bytes) -> dict[str, Any]:
    try:
        body = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return {}
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return {}
    return {name: value if name == "code" else str(value) for name, value in error.items() if value is not None}


def _failure(provider: Provider, exc: Exception) -> Failed:
    status, code, message = 502, "upstream_unreachable", f"Provider {provider.name!r} cannot be reached"
    if isinstance(exc, TimeoutError) and not isinstance(exc, aiohttp.ConnectionTimeoutError):
        status, code, message = 504, "upstream_timeout", f"Provider {provider.name!r} did not answer in time"
    elif isinstance(exc, (aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError)):
        message = f"Provider {provider.name!r} broke off its answer"
    failed = Failed(status, message, type="upstream_error", code=code)
    failed.reason = code
    return failed


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
