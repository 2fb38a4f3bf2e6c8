"""Call providers with native async I/O, and forward answers as they arrive."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable
from typing import NamedTuple

from sentinel_project.gateway.apis import json_text
from sentinel_project.gateway.apis.base import Api, ApiRequest
from sentinel_project.gateway.apis.body import Body
from sentinel_project.gateway.providers.address import parse_address, quote_path
from sentinel_project.gateway.providers.config import Provider
from sentinel_project.gateway.tracing import trace_attempt
from sentinel_project.gateway.upstream import echo, headers
from sentinel_project.gateway.upstream.alarm import Alarm
from sentinel_project.gateway.upstream.connection import request_head
from sentinel_project.gateway.upstream.errors import failure, not_an_answer, rejection, stream_error, too_long
from sentinel_project.gateway.upstream.masking import mask_body
from sentinel_project.gateway.upstream.pool import CONNECT_SECONDS, InvalidUrl, Pool
from sentinel_project.gateway.upstream.relay import Progress, open_stream
from sentinel_project.gateway.upstream.response import Disconnected, HttpError, Response

logger = logging.getLogger(__name__)

MAX_ANSWER_BYTES = 64 * 2**20
"""Maximum size of a plain answer; enough for some images in base64."""


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
    pool = await _pool_of_loop()
    alarm = pool.alarms.pop() if pool.alarms else Alarm(asyncio.get_running_loop())
    try:
        with alarm.at(until.answer):
            return await _ask(pool, provider, request, body.encode(), hint, content_until=until.content)
    except (HttpError, TimeoutError) as exc:
        raise failure(provider, exc) from _without_frames(exc)
    finally:
        pool.alarms.append(alarm)


def _without_frames(error: BaseException) -> BaseException:
    """Drop the tracebacks of an error and its causes: their frames hold the errors and the request's body."""
    each: BaseException | None = error
    while each is not None:
        each.__traceback__, each = None, each.__context__
    return error


async def _ask(
    pool: Pool, provider: Provider, request: ApiRequest, body: bytes, hint: str | None, *, content_until: float
) -> Answer:
    response = await _send(
        pool,
        provider,
        request.method,
        request.path,
        request.query,
        sent_headers=headers.to_provider(provider, request, hint),
        body=body,
        may_repeat=request.api.may_repeat(request.body),
    )
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


def _headers(provider: Provider, response: Response, default_type: str) -> dict[str, str]:
    sent = headers.to_client(provider, response)
    sent["Content-Type"] = headers.media_type(response, default_type)
    return sent


def _send(
    pool: Pool,
    provider: Provider,
    method: str,
    path: str,
    query: str,
    *,
    sent_headers: dict[str, str],
    body: bytes = b"",
    may_repeat: bool = True,
) -> Awaitable[Response]:
    """Send a request for a path and query. A redirect is not followed: it would send the key and prompt elsewhere."""
    try:
        address = parse_address(provider.base_url or "")
    except ValueError as exc:
        raise InvalidUrl from exc
    sent = {"Host": address.host, **sent_headers}
    if body or method != "GET":
        sent["Content-Length"] = str(len(body))
    if not may_repeat:
        sent["Connection"] = "close"
    line = f"{address.path}{quote_path(path)}{headers.query_to_provider(provider, query)}"
    return pool.request(address.origin, request_head(method, line, sent), body, may_repeat=may_repeat)


async def probe(provider: Provider) -> int:
    """Return the status of a provider's list of models. Raises `HttpError` or `TimeoutError`."""
    if provider.base_url is None:
        return 200
    async with asyncio.timeout(CONNECT_SECONDS):
        pool, sent = await _pool_of_loop(), headers.of_provider(provider)
        response = await _send(pool, provider, "GET", "/models", "", sent_headers=sent)
        response.close()
        return response.status


async def _read_body(provider: Provider, response: Response) -> bytes:
    chunks = [await response.read()]
    size = len(chunks[0])
    while size <= MAX_ANSWER_BYTES and not response.is_complete:
        chunks.append(await response.read())
        size += len(chunks[-1])
    if size > MAX_ANSWER_BYTES:
        raise too_long(provider, MAX_ANSWER_BYTES)
    if not size:
        raise Disconnected("no body")  # without a length a truncated answer looks complete
    return b"".join(chunks)


def _check_answer(provider: Provider, api: Api, answer: bytes) -> None:
    """Raise `UpstreamFailure` for a body that is not an answer of the API, or an error with the status of an answer."""
    fields = json_text.read(json_text.decode_fields, answer, None)
    if fields is None:
        raise not_an_answer(provider)
    if bytes(fields.get("error", b"null")) != b"null" and not api.may_have_error:
        raise stream_error(provider, api, answer)
    if api.answer_field and bytes(fields.get(api.answer_field, b"null")) == b"null":
        raise not_an_answer(provider)


_pools: dict[asyncio.AbstractEventLoop, tuple[Pool, AsyncGenerator[None]]] = {}


async def _pool_of_loop() -> Pool:
    """Return the connections of the running event loop, which are closed when the loop ends."""
    loop = asyncio.get_running_loop()
    if loop not in _pools:
        pool = Pool(loop)
        _pools[loop] = pool, _close_with(loop, pool)
        await anext(_pools[loop][1])
    return _pools[loop][0]


async def _close_with(loop: asyncio.AbstractEventLoop, pool: Pool) -> AsyncGenerator[None]:
    try:
        yield
    finally:  # run by the loop's `shutdown_asyncgens`
        _pools.pop(loop, None)
        await pool.close()
