"""Call providers with native async I/O, and forward answers as they arrive."""

from __future__ import annotations

import asyncio
import io
import logging
import socket
import time
from collections.abc import AsyncGenerator
from contextvars import ContextVar
from typing import NamedTuple

import aiohttp
import msgspec

from sentinel_project.gateway.apis.base import Api, ApiRequest
from sentinel_project.gateway.apis.body import Body
from sentinel_project.gateway.providers.config import Provider
from sentinel_project.gateway.tracing import trace_attempt
from sentinel_project.gateway.upstream import echo, headers
from sentinel_project.gateway.upstream.alarm import Alarm
from sentinel_project.gateway.upstream.errors import failure, not_an_answer, rejection, stream_error, too_long
from sentinel_project.gateway.upstream.masking import mask_body
from sentinel_project.gateway.upstream.relay import Progress, open_stream

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 5
CLOSING_SECONDS = 2
"""How soon a pooled connection breaks if the provider was closing it; a later break is a failure."""
MAX_HEADER_BYTES = 64 * 1024
"""Maximum length of a response header: some providers send their whole policy."""
MAX_WRITE_BYTES = 2**20
"""Maximum size of a request that is written at once; larger ones are written in pieces, as the provider reads them."""
MAX_ANSWER_BYTES = 64 * 2**20
"""Maximum size of a plain answer; enough for some images in base64."""

_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Until(NamedTuple):
    """Deadlines of a request in loop time: for its `answer`, and for the first `content` of a stream.

    A stream with a long prelude is forwarded before its content.
    """

    answer: float
    content: float


class Answer(NamedTuple):
    """A provider's successful answer. `body` is an iterator when it is a stream; `headers` go to the client.

    `progress` says whether a stream has had content; None for other answers.
    """

    headers: dict[str, str]
    body: bytes | AsyncGenerator[bytes]
    progress: Progress | None = None


@trace_attempt
async def call(provider: Provider, request: ApiRequest, body: Body, hint: str | None, until: Until) -> Answer:
    """Send a request, with `body` instead of the client's, to a provider; `hint` goes into its affinity header.

    A stream is returned when its answer begins, or its prelude is long. Raises `UpstreamFailure`, or `ApiError` for an
    error that is the request's own.
    """
    if provider.base_url is None:
        answer = echo.answer(provider.name, request, body)
        return Answer({"Content-Type": "text/event-stream" if request.is_stream else "application/json"}, answer)
    alarm = Alarm(asyncio.get_running_loop())
    try:
        with alarm.at(until.answer):
            return await _ask(provider, request, body.encode(), hint, until.content)
    except (aiohttp.ClientError, TimeoutError, OSError) as exc:
        raise failure(provider, exc) from _without_frames(exc)
    finally:
        alarm.close()


def _without_frames(error: BaseException) -> BaseException:
    """Drop the tracebacks of an error and its causes: their frames hold the errors and the request's body."""
    each: BaseException | None = error
    while each is not None:
        each.__traceback__, each = None, each.__context__
    return error


async def _ask(provider: Provider, request: ApiRequest, body: bytes, hint: str | None, content_until: float) -> Answer:
    response = await _send(provider, request, body, headers.to_provider(provider, request, hint))
    try:
        if response.status != 200:
            raise await rejection(provider, request.api, response)
        if request.is_stream:
            progress = Progress(request.api, content_until)
            stream = await open_stream(provider, request.api, response, progress)
            return Answer(_headers(provider, response, "text/event-stream"), stream, progress)
        whole = await _read_body(provider, response)
        _check_answer(provider, request.api, whole)
        return Answer(_headers(provider, response, "application/json"), mask_body(whole, provider.secrets))
    except BaseException:
        response.close()
        raise


def _headers(provider: Provider, response: aiohttp.ClientResponse, default_type: str) -> dict[str, str]:
    return {**headers.to_client(provider, response), "Content-Type": headers.media_type(response, default_type)}


async def _send(
    provider: Provider, request: ApiRequest, body: bytes, sent_headers: dict[str, str]
) -> aiohttp.ClientResponse:
    """Send; retry once if a pooled connection breaks, because the provider may close it at any time."""
    clients = await _clients_of_loop()

    async def send(session: aiohttp.ClientSession) -> aiohttp.ClientResponse:
        return await session.request(
            method=request.method,
            url=f"{provider.base_url}{request.path}",
            params=headers.query_to_provider(provider, request.query),
            data=io.BytesIO(body) if len(body) > MAX_WRITE_BYTES else body or None,
            headers=sent_headers,
            allow_redirects=False,  # a provider must not send the key and the prompt elsewhere
        )

    if not request.api.may_repeat(request.body):
        return await send(clients.unpooled)
    sent, opened = time.monotonic(), list[socket.socket]()
    _opened.set(opened)
    try:
        return await send(clients.pooled)
    except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
        if opened or time.monotonic() - sent > CLOSING_SECONDS:
            raise
        return await send(clients.unpooled)  # a provider that stops closes all pooled connections


_opened: ContextVar[list[socket.socket]] = ContextVar("opened")
"""The sockets that the current request has opened: none when it reuses a connection. aiohttp's traces cost 25 us."""


def _open_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    opened = socket.socket(*address[:3])
    _opened.get([]).append(opened)
    return opened


async def probe(provider: Provider) -> int:
    """Return the status of a provider's list of models. Raises `aiohttp.ClientError`, `TimeoutError` or `OSError`."""
    if provider.base_url is None:
        return 200
    client = (await _clients_of_loop()).pooled
    timeout = aiohttp.ClientTimeout(total=CONNECT_SECONDS)
    sent = {**provider.headers, **headers.authorization(provider)}
    url, query = f"{provider.base_url}/models", headers.query_to_provider(provider, "")
    async with client.get(url, params=query, headers=sent, timeout=timeout, allow_redirects=False) as response:
        return response.status


async def _read_body(provider: Provider, response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    while chunk := await response.content.readany():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise too_long(provider, MAX_ANSWER_BYTES)
    if not body:
        raise aiohttp.ServerDisconnectedError  # without a length a truncated answer looks complete
    return bytes(body)


def _check_answer(provider: Provider, api: Api, answer: bytes) -> None:
    """Raise `UpstreamFailure` for a body that is not an answer of the API, or an error with the status of an answer."""
    try:
        fields = _decode_fields(answer)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise not_an_answer(provider) from None
    if bytes(fields.get("error", b"null")) != b"null" and not api.may_have_error:
        raise stream_error(provider, api, answer)
    if api.answer_field and bytes(fields.get(api.answer_field, b"null")) == b"null":
        raise not_an_answer(provider)


class Clients(NamedTuple):
    """HTTP clients: one with a connection pool, and one with a new connection for each request."""

    pooled: aiohttp.ClientSession
    unpooled: aiohttp.ClientSession


_clients: dict[asyncio.AbstractEventLoop, tuple[Clients, AsyncGenerator[None]]] = {}


async def _clients_of_loop() -> Clients:
    """Return the HTTP clients of the running event loop, which are closed when the loop ends."""
    loop = asyncio.get_running_loop()
    if loop not in _clients:
        clients = Clients(_client(force_close=False), _client(force_close=True))
        _clients[loop] = clients, _close_with(loop, clients)
        await anext(_clients[loop][1])
    return _clients[loop][0]


def _client(*, force_close: bool) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, force_close=force_close, socket_factory=_open_socket),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),  # reads have limits of their own
        cookie_jar=aiohttp.DummyCookieJar(),
        max_line_size=MAX_HEADER_BYTES,
        max_field_size=MAX_HEADER_BYTES,
        headers={"Accept-Encoding": "identity", "User-Agent": "sessions_sticky"},
    )


async def _close_with(loop: asyncio.AbstractEventLoop, clients: Clients) -> AsyncGenerator[None]:
    try:
        yield
    finally:  # run by the loop's `shutdown_asyncgens`
        _clients.pop(loop, None)
        for client in clients:
            await client.close()
