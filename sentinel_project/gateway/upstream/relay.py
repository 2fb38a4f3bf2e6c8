"""Forward a provider's stream: hold it until an answer begins, then send events as they arrive."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, Callable

import msgspec

from sentinel_project.gateway import metrics
from sentinel_project.gateway.apis import events, json_text
from sentinel_project.gateway.apis.base import Api, Stage
from sentinel_project.gateway.conf import settings
from sentinel_project.gateway.providers.config import Provider
from sentinel_project.gateway.shutdown import stopping
from sentinel_project.gateway.upstream import errors
from sentinel_project.gateway.upstream.alarm import Alarm
from sentinel_project.gateway.upstream.errors import UpstreamFailure
from sentinel_project.gateway.upstream.masking import mask_body
from sentinel_project.gateway.upstream.response import HttpError, Response

logger = logging.getLogger(__name__)

MAX_EVENT_BYTES = 16 * 2**20
"""Maximum size of an event, which is buffered until it is complete."""
PRELUDE_BYTES = 64 * 1024
PRELUDE_SECONDS = 2.0
"""How much, and for how long, events before the answer are held, so that a failure can fail over."""
END_SECONDS = 1.0
"""How long a provider may take to end its response after the API's last event, for its connection to be kept."""


class Progress:
    """How far a stream has come. Its content, of which `on_content` is notified, has to begin by the loop's `deadline`.

    `is_complete`: it has had the API's last event, or may close without. `failure`: why it ended otherwise; None
    while it has not, and if its client left.
    """

    def __init__(self, api: Api, deadline: float) -> None:
        self.has_content = self.is_complete = False
        self.failure: UpstreamFailure | None = None
        self.on_content: Callable[[], None] = lambda: None
        self._api, self._deadline = api, deadline

    @property
    def until(self) -> float:
        """The loop's time at which the stream is given up."""
        return math.inf if self.has_content else self._deadline

    def read(self, whole: bytes) -> None:
        """Look for content in whole events."""
        if not self.has_content:
            self.has_content = any(self.is_content(self._api.stage(event)) for event in events.split(whole))
            if self.has_content:
                self.on_content()

    def is_content(self, stage: Stage) -> bool:
        """Return whether an event at this stage is content."""
        return stage is Stage.CONTENT or (stage is Stage.END and self._api.end_is_answer)


async def open_stream(provider: Provider, api: Api, response: Response, progress: Progress) -> AsyncGenerator[bytes]:
    """Return the stream once its answer begins, or its prelude is long or old enough; `progress` says which.

    Raises `UpstreamFailure` when it ends or reports an error before: nothing was sent to the client, and another
    provider may be asked. Raises `HttpError` and `TimeoutError` when the connection breaks.
    """
    buffer, held, held_until = events.EventBuffer(), bytearray(), None
    while len(held) < PRELUDE_BYTES:
        try:
            async with asyncio.timeout_at(held_until):
                chunk = await response.read()
        except TimeoutError:
            if held_until is None or asyncio.get_running_loop().time() < held_until:
                raise  # the caller's own limit
            break
        whole = buffer.take(chunk) if chunk else bytes(buffer.rest)
        held += whole
        for event in events.split(whole):
            stage = api.stage(event)
            if stage is Stage.ERROR:
                raise errors.stream_error(provider, api, events.data(event))
            if progress.is_content(stage):
                progress.has_content = True
                return _relay(_Reader(provider, api, response, buffer, progress), bytes(held))
            if stage is Stage.END:
                raise errors.incomplete(provider)
        if not chunk:
            raise _no_stream(provider, api, bytes(held))
        if len(buffer.rest) > MAX_EVENT_BYTES:
            raise errors.too_long(provider, MAX_EVENT_BYTES)
        if held_until is None:
            held_until = asyncio.get_running_loop().time() + PRELUDE_SECONDS
    return _relay(_Reader(provider, api, response, buffer, progress), bytes(held))


def _no_stream(provider: Provider, api: Api, body: bytes) -> UpstreamFailure:
    """Return the error for a stream that ends without an answer; a plain body in its place may say why."""
    answer: object = json_text.read(msgspec.json.decode, body, ...)
    if answer is ...:
        return errors.incomplete(provider)
    if isinstance(answer, dict) and api.provider_error(answer):
        return errors.stream_error(provider, api, body)
    return errors.not_an_answer(provider)


async def _relay(reader: _Reader, whole: bytes) -> AsyncGenerator[bytes]:
    """Yield whole events until the API's last one; a stream that breaks or stalls ends with an error event.

    A provider's own error event is counted, and passed on as the only one. While the provider is quiet the client gets
    heartbeats. Closing the generator ends the request.
    """
    provider, api, response, progress = reader.provider, reader.api, reader.response, reader.progress
    end, last = None, b""
    following: bytes | None = whole
    try:
        while following is not None:
            if following:
                end, last = _record_events(reader, following), last if following is api.heartbeat else following
                yield mask_body(following[:end], provider.secrets)
            if end is not None:
                return
            following = await reader.next()
        if not (progress.is_complete or progress.failure):
            raise errors.incomplete(provider)
    except asyncio.CancelledError as exc:
        if not stopping.caused(exc):
            raise
        if progress.failure is None:
            yield api.error_event(stopping.error(), last)
    except (UpstreamFailure, HttpError, TimeoutError) as exc:
        if progress.failure is None:
            failed = exc if isinstance(exc, UpstreamFailure) else errors.failure(provider, exc)
            _record_failure(reader, failed)
            yield api.error_event(failed, last)
    finally:
        reader.alarm.cancel()
        if end is not None:
            response.discard(END_SECONDS)
        else:
            response.close()


class _Reader:
    """Reads a stream that has begun, with heartbeats while its provider is quiet."""

    def __init__(
        self,
        provider: Provider,
        api: Api,
        response: Response,
        buffer: events.EventBuffer,
        progress: Progress,
    ) -> None:
        self.provider, self.api, self.response = provider, api, response
        self.progress = progress
        self._buffer = buffer
        self._loop = asyncio.get_running_loop()
        self._quiet_since = self._loop.time()
        self.alarm = Alarm(self._loop)

    async def next(self) -> bytes | None:
        """Return the whole events in what comes next, perhaps none; a heartbeat if due before; None at the end.

        Half an event is dropped at the end, unless it is the API's last one or an error, and lacks its empty line only.
        Raises `TimeoutError` when the provider has been quiet for too long, or has sent no content by its deadline.
        """
        if len(self._buffer.rest) > MAX_EVENT_BYTES:
            raise errors.too_long(self.provider, MAX_EVENT_BYTES)
        until = min(self._quiet_since + settings.SENTINEL_IDLE_TIMEOUT_SECONDS, self.progress.until)
        heartbeat_at = self._loop.time() + (settings.SENTINEL_HEARTBEAT_SECONDS or math.inf)
        try:
            with self.alarm.at(min(until, heartbeat_at)):
                chunk = await self.response.read()
        except TimeoutError:
            if until <= heartbeat_at:
                raise
            return self.api.heartbeat
        self._quiet_since = self._loop.time()
        if chunk:
            whole = self._buffer.take(chunk)
            self.progress.read(whole)
            return whole
        rest = bytes(self._buffer.rest)
        self._buffer.rest.clear()
        error = _error(self.api, rest)
        # A whole object, also if its values cannot be decoded.
        is_error = error is not None and json_text.read(json_text.decode_fields, error, None) is not None
        is_whole = is_error or _end(self.api, rest) is not None
        return rest + b"\n\n" if is_whole else None


def _end(api: Api, whole: bytes) -> int | None:
    """Return where the API's last event ends in whole events; None when it is not among them."""
    if api.end_marker is None or api.end_marker not in whole:
        return None
    at = 0
    for event in events.split(whole):
        at += len(event)
        if api.end_marker in event and api.stage(event) is Stage.END:
            return at
    return None


def _error(api: Api, whole: bytes) -> bytes | None:
    """Return the data of the first event that reports an error; None without an error."""
    if not any(marker in whole for marker in api.error_markers):
        return None
    return next((events.data(event) for event in events.split(whole) if api.stage(event) is Stage.ERROR), None)


def _record_events(reader: _Reader, whole: bytes) -> int | None:
    """Record an error in whole events, and whether they complete the stream; return where the API's last one ends."""
    api, progress = reader.api, reader.progress
    if progress.failure is None and (error := _error(api, whole)) is not None:
        _record_failure(reader, errors.stream_error(reader.provider, api, error))
    end = _end(api, whole)
    progress.is_complete = progress.is_complete or end is not None or api.may_end_after(whole)
    return end


def _record_failure(reader: _Reader, failed: UpstreamFailure) -> None:
    """Count and log a failure within a stream, whose status was already sent."""
    provider = reader.provider
    reader.progress.failure = failed
    metrics.upstream_failures.labels(provider.name, failed.reason).inc()
    logger.warning("provider %r broke off a stream: %s", provider.name, failed.logged)
