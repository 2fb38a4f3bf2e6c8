"""What a provider's failures mean: for the client, for the conversation and for the provider's health."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import msgspec

from sentinel_project.gateway.apis.base import Api
from sentinel_project.gateway.errors import ApiError
from sentinel_project.gateway.providers.config import Provider
from sentinel_project.gateway.upstream.headers import SECONDS, to_client
from sentinel_project.gateway.upstream.masking import mask

MAX_ERROR_BYTES = 64 * 1024


class UpstreamFailure(ApiError):
    """The provider failed: no connection, no answer in time, 5xx or 429. Another provider may well answer.

    `reason` is its status or the error's code, never the provider's own text, which may repeat the message.
    `retry_after` is the wait in seconds that it asks for, None without one; `alive` is True when it did answer.
    `unsent` is True when the provider was not reached, so that it cannot have begun to work.
    """

    reason: str = ""
    retry_after: float | None = None
    alive: bool = False
    unsent: bool = False

    @property
    def logged(self) -> str:
        """The reason, with the type of the connection's error: a bad certificate needs another fix than a bad name."""
        return f"{self.reason} ({type(self.__cause__).__name__})" if self.__cause__ else self.reason


class UpstreamRejection(ApiError):
    """The provider does not serve this gateway or this model; `provider_status` is its 401, 402, 403 or 404."""

    provider_status = 0


async def rejection(provider: Provider, api: Api, response: aiohttp.ClientResponse) -> ApiError:
    """Return a provider's error answer as an error for the client.

    The provider's words and fields are kept, but for the gateway's key. An error about the gateway's key is not about
    the client's: it becomes 502.
    """
    status, answer = response.status, _json_object(await _error_text(response), provider.secrets)
    fields = api.provider_error(answer)
    message = _message(fields or {}) or _message(answer) or f"Provider {provider.name!r} answered {status}"
    if 300 <= status < 400:
        message = f"Provider {provider.name!r} answered {status}: it redirects, which is not followed"
    own: dict[str, Any] = {"type": "upstream_error", "code": _text((fields or {}).get("code"))}
    own["provider_body"] = answer if api.is_error_shape(answer) else None
    headers = to_client(provider, response)
    if status in (401, 402, 403, 404):
        rejected = UpstreamRejection(status, message, headers=headers, **own)
        if status != 404:
            message = f"Provider {provider.name!r} refused the gateway's credentials ({status})"
            headers["x-should-retry"] = "false"  # or the SDKs show the same key again
            rejected = UpstreamRejection(502, message, type="upstream_error", code="upstream_refused", headers=headers)
        rejected.provider_status = status
        return rejected
    if status < 500 and status != 429:
        return ApiError(status if status >= 400 else 502, message, headers=headers, **own)
    failed = UpstreamFailure(status if status < 600 else 502, message, headers=headers, **own)  # HTTP ends at 599
    failed.reason = str(failed.status)
    failed.alive = status == 429
    failed.retry_after = _seconds(headers.get("retry-after"))
    return failed


def failure(provider: Provider, exc: Exception) -> UpstreamFailure:
    """Return the error for a provider that could not be asked, or did not answer to the end."""
    status, code, message = 502, "upstream_unreachable", f"Provider {provider.name!r} cannot be reached"
    if isinstance(exc, TimeoutError) and not isinstance(exc, aiohttp.ConnectionTimeoutError):
        status, code, message = 504, "upstream_timeout", f"Provider {provider.name!r} did not answer in time"
    elif isinstance(exc, (aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError)):
        message = f"Provider {provider.name!r} broke off its answer"
    failed = _failure(status, message, code)
    failed.unsent = isinstance(exc, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError))
    failed.__cause__ = exc
    return failed


def too_long(provider: Provider, limit: int) -> UpstreamFailure:
    """Return the error for an answer, or an event of a stream, of more than `limit` bytes."""
    return _failure(502, f"Provider {provider.name!r} sent more than {limit} bytes", "upstream_too_long")


def incomplete(provider: Provider) -> UpstreamFailure:
    """Return the error for a stream that ends without an answer, or in the middle of one."""
    return _failure(502, f"Provider {provider.name!r} ended its answer too early", "upstream_incomplete")


def not_an_answer(provider: Provider) -> UpstreamFailure:
    """Return the error for a successful status with a body that is not an answer of the API."""
    return _failure(502, f"Provider {provider.name!r} sent no answer with its status 200", "upstream_invalid_answer")


def stream_error(provider: Provider, api: Api, answer: dict[str, Any]) -> UpstreamFailure:
    """Return the error that a provider reports with status 200: as the first event of a stream, or as a plain body."""
    answer = mask(answer, provider.secrets)
    fields = api.provider_error(answer) or {}
    message = _message(fields) or f"Provider {provider.name!r} sent an error with its status 200"
    failed = _failure(502, message, "upstream_error")
    failed.code = _text(fields.get("code")) or failed.code
    failed.provider_body = answer if api.is_error_shape(answer) else None
    failed.alive = True
    return failed


def _failure(status: int, message: str, code: str) -> UpstreamFailure:
    failed = UpstreamFailure(status, message, type="upstream_error", code=code)
    failed.reason = code
    return failed


async def _error_text(response: aiohttp.ClientResponse) -> bytes:
    """Return the start of an error's body."""
    text = b""
    while len(text) < MAX_ERROR_BYTES and (chunk := await response.content.readany()):
        text += chunk
    return text


def _seconds(retry_after: str | None) -> float | None:
    """Return the seconds until the time in a `Retry-After` header, as `to_client` returned it; None without one."""
    if retry_after is None:
        return None
    if SECONDS.fullmatch(retry_after):
        return float(retry_after)
    return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())


def _json_object(text: bytes, secrets: tuple[str, ...]) -> dict[str, Any]:
    """Return the JSON object in an error's body, without the secrets that some providers repeat; else {}."""
    try:
        answer = mask(msgspec.json.decode(text), secrets)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _message(fields: dict[str, Any]) -> str | None:
    """Return an error's text, under the names that providers use; None without one."""
    for name in ("message", "detail"):
        if value := fields.get(name):
            return value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return _text(fields.get("error")) or None


def _text(code: Any) -> str | None:
    return code if isinstance(code, str) else None
