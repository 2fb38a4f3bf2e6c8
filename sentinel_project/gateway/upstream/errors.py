"""What is said when a provider does not answer as it should."""

from __future__ import annotations

import re
import time
from datetime import UTC
from email.utils import format_datetime, parsedate_to_datetime
from typing import Any

import aiohttp
import msgspec

from sentinel_project.gateway.errors import ApiError
from sentinel_project.gateway.providers.config import Provider
from sentinel_project.gateway.upstream.masking import mask

MAX_ERROR_BYTES = 64 * 1024
SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,3})?")


class Failed(ApiError):
    """The provider failed: no connection, no answer in time, 5xx or 429. Another one may well answer.

    `reason` is its status or the error's code, never its own words: they may be anything, the message's text too.
    `retry_after` is its own wish in seconds, if it has one; `alive` tells that it did answer.
    """

    reason: str = ""
    retry_after: float | None = None
    alive: bool = False

    @property
    def logged(self) -> str:
        """The reason, with the kind of error if the connection had one: a certificate is not mended like a name."""
        return f"{self.reason} ({type(self.__cause__).__name__})" if self.__cause__ else self.reason


class Refused(ApiError):
    """The provider does not serve this gateway or this model; `provider_status` is its 401, 402, 403 or 404."""

    provider_status = 0


async def refusal(provider: Provider, response: aiohttp.ClientResponse) -> ApiError:
    """Return the provider's error, for the client.

    One about the gateway's key is not about the client's: it becomes 502.
    """
    status = response.status
    said = _openai_error(await _error_text(response), provider.api_key)
    message = said.get("message") or f"Provider {provider.name!r} answered {status}"
    if 300 <= status < 400:
        message = f"Provider {provider.name!r} answered {status}: it redirects, which is not followed"
    own_words: dict[str, Any] = {name: said.get(name) for name in ("param", "code")}
    own_words["type"] = said.get("type") or "upstream_error"
    retry_after = _retry_after(response.headers.get("Retry-After", ""))
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    if status in (401, 402, 403, 404):
        refused = Refused(status, message, **own_words)
        if status != 404:
            message = f"Provider {provider.name!r} refused the gateway's credentials ({status})"
            never = {"x-should-retry": "false"}  # or the SDKs show the same key again
            refused = Refused(502, message, type="upstream_error", code="upstream_refused", headers=never)
        refused.provider_status = status
        return refused
    if status < 500 and status != 429:
        return ApiError(status if status >= 400 else 502, message, headers=headers, **own_words)
    failed = Failed(status if status < 600 else 502, message, headers=headers, **own_words)  # HTTP ends at 599
    failed.reason = str(failed.status)
    failed.alive = status == 429
    failed.retry_after = _seconds(retry_after)
    return failed


def failure(provider: Provider, exc: Exception) -> Failed:
    """Return the error for a provider that could not be asked, or did not answer to the end."""
    status, code, message = 502, "upstream_unreachable", f"Provider {provider.name!r} cannot be reached"
    if isinstance(exc, TimeoutError) and not isinstance(exc, aiohttp.ConnectionTimeoutError):
        status, code, message = 504, "upstream_timeout", f"Provider {provider.name!r} did not answer in time"
    elif isinstance(exc, (aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError)):
        message = f"Provider {provider.name!r} broke off its answer"
    failed = Failed(status, message, type="upstream_error", code=code)
    failed.reason = code
    failed.__cause__ = exc
    return failed


def too_long(provider: Provider, limit: int) -> Failed:
    """Return the error for an answer, or an event of a stream, of more than `limit` bytes."""
    code = "upstream_too_long"
    failed = Failed(502, f"Provider {provider.name!r} sent more than {limit} bytes", type="upstream_error", code=code)
    failed.reason = code
    return failed


async def _error_text(response: aiohttp.ClientResponse) -> bytes:
    """Return the start of an error's body."""
    text = b""
    while len(text) < MAX_ERROR_BYTES and (chunk := await response.content.readany()):
        text += chunk
    return text


def _retry_after(value: str) -> str | None:
    """Return a `Retry-After` header that is a number of seconds or a date, written anew; None for any other text."""
    if SECONDS.fullmatch(value):
        return value
    try:
        return format_datetime(parsedate_to_datetime(value).astimezone(UTC), usegmt=True)
    except (ValueError, OverflowError):
        return None


def _seconds(retry_after: str | None) -> float | None:
    """Return the seconds until the time in a header that `_retry_after` returned; None without one."""
    if retry_after is None:
        return None
    if SECONDS.fullmatch(retry_after):
        return float(retry_after)
    return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())


def _openai_error(text: bytes, secret: str | None) -> dict[str, Any]:
    """Return the fields of an error in OpenAI's shape, without the gateway's key; none for any other text."""
    try:
        body = mask(msgspec.json.decode(text), secret)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return {}
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return {}
    return {name: value if name == "code" else str(value) for name, value in error.items() if value is not None}
