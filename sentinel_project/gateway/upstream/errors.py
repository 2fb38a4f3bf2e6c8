"""Convert provider failures to errors for the client and failures for the provider's health."""

from __future__ import annotations

import math
import re
import time
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from sentinel_project.gateway.apis import json_text
from sentinel_project.gateway.apis.base import Api
from sentinel_project.gateway.errors import ApiError
from sentinel_project.gateway.providers import failures
from sentinel_project.gateway.providers.config import Provider
from sentinel_project.gateway.providers.failures import FailureClass, Fault
from sentinel_project.gateway.upstream.headers import SECONDS, content_type, to_client
from sentinel_project.gateway.upstream.masking import mask
from sentinel_project.gateway.upstream.pool import NotConnected
from sentinel_project.gateway.upstream.response import Disconnected, HttpError, Response

MAX_ERROR_BYTES = 64 * 1024
MAX_PLAIN_TEXT = 1000
_STATUS = re.compile(r"[45][0-9]{2}")
_CODE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_TRY_AGAIN = re.compile(r"try again in (?:(\d{1,2})m)?(\d{1,6}(?:\.\d{1,6})?) ?(ms|s)", re.IGNORECASE)
"""The wait in OpenAI's words, which an error within a stream has instead of a header: "Please try again in 1m2.5s."."""


class UpstreamFailure(ApiError):
    """The provider did not answer, and another one may: any failure that is not the fault of the request.

    `reason` is its status or the error's code, never the provider's own text, which may repeat the message.
    `failure_class` says what cools down; `retry_after` is the wait in seconds that the provider states, None without
    one; `is_alive` is True when it did answer. `is_of_request`: it reported what is the request's own fault, but with
    status 200; within a stream, where no other provider can be asked, that counts against none.
    """

    reason: str = ""
    failure_class: FailureClass = failures.BROKEN
    retry_after: float | None = None
    is_alive: bool = False
    is_of_request: bool = False
    provider_code: str | None = None
    """The provider's own code for an error about the gateway's account; `code` is the gateway's. None without one."""

    @property
    def is_timeout(self) -> bool:
        """Whether the gateway gave up waiting: the provider may still be working."""
        return self.code == "upstream_timeout"

    @property
    def is_unsent(self) -> bool:
        """Whether the provider was not reached, so that it cannot have begun to work."""
        return self.failure_class is failures.UNREACHABLE

    @property
    def summary(self) -> str:
        """What operators see: the status and the error's code, or the reason; never the provider's own text."""
        if not self.reason.isdecimal():
            return self.logged
        code = self.provider_code or self.code
        is_name = code is not None and _CODE.fullmatch(code) is not None
        return f"HTTP {self.reason} {code}" if is_name else f"HTTP {self.reason}"

    @property
    def logged(self) -> str:
        """The reason, with the type of the connection's error: a bad certificate needs another fix than a bad name."""
        return f"{self.reason} ({type(self.__cause__).__name__})" if self.__cause__ else self.reason


async def rejection(provider: Provider, api: Api, response: Response) -> ApiError:
    """Return a provider's error answer as an error for the client: an `UpstreamFailure` if another one may answer.

    Keeps the provider's text and fields, with the gateway's key masked. An error about the gateway's account becomes
    502, because it is not about the client's.
    """
    status, text = response.status, await _error_text(response)
    answer = _json_object(text, provider.secrets)
    fields = api.provider_error(answer)
    words = _message(fields or {}) or _message(answer) or _plain_text(response, text, provider.secrets)
    message = words or f"Provider {provider.name!r} answered {status}"
    if 300 <= status < 400:
        message = f"Provider {provider.name!r} answered {status}: redirects are not followed"
    own: dict[str, Any] = {"type": "upstream_error", "code": _text((fields or {}).get("code"))}
    own["provider_body"] = answer if api.is_error_shape(answer) else None
    headers = to_client(provider, response)
    failure_class = failures.classify(status, _codes(fields or answer), words or "")
    if not failure_class.is_failover:
        return ApiError(status, message, headers=headers, **own)
    failed = _answered(provider, status, message, failure_class, fields or answer, headers=headers, **own)
    failed.is_alive = 400 <= status < 500
    failed.retry_after = _retry_after(headers)
    return failed


def failure(provider: Provider, exc: Exception) -> UpstreamFailure:
    """Return the error for an unreachable provider, or a broken answer."""
    status, code, message = 502, "upstream_unreachable", f"Provider {provider.name!r} cannot be reached"
    if isinstance(exc, TimeoutError):
        status, code, message = 504, "upstream_timeout", f"Provider {provider.name!r} did not answer in time"
    elif isinstance(exc, Disconnected):
        message = f"Provider {provider.name!r} closed the connection before the end of its answer"
    failed = _failure(status, message, code)
    if isinstance(exc, NotConnected):
        failed.failure_class = failures.UNREACHABLE
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


def stream_error(provider: Provider, api: Api, text: bytes) -> UpstreamFailure:
    """Return the error that a provider reports with status 200: in the data of an event, or in a plain body.

    Another provider may answer, even where the error blames the request (`is_of_request`).
    """
    answer = _json_object(text, provider.secrets)
    fields = api.provider_error(answer) or {}
    message = _message(fields) or f"Provider {provider.name!r} sent an error with its status 200"
    codes = _codes(fields)
    status = failures.status_of_error(codes, _numbers(fields), message)
    failure_class = failures.classify(status, codes, message)
    is_of_request = not failure_class.is_failover
    own: dict[str, Any] = {"type": "upstream_error", "code": _text(fields.get("code")) or "upstream_error"}
    own["provider_body"] = answer if api.is_error_shape(answer) else None
    failed = _answered(provider, status, message, failures.BROKEN if is_of_request else failure_class, fields, **own)
    failed.is_alive, failed.is_of_request = True, is_of_request
    if status == 429 and (found := _TRY_AGAIN.search(message)):
        seconds = 60 * int(found[1] or 0) + float(found[2]) / (1000 if found[3].lower() == "ms" else 1)
        failed.retry_after, failed.headers["retry-after"] = seconds or None, str(math.ceil(seconds))
    return failed


def _answered(
    provider: Provider, status: int, message: str, failure_class: FailureClass, fields: dict[str, Any], **own: Any
) -> UpstreamFailure:
    """Return the failure for an error with a status and the provider's `fields`; 502 for the gateway's account."""
    if failure_class.fault is Fault.ACCOUNT:
        message = f"Provider {provider.name!r} refused the gateway's credentials ({status})"
        # A retry of the SDK would send the same refused key.
        headers = {**own.get("headers", {}), "x-should-retry": "false"}
        failed = UpstreamFailure(502, message, type="upstream_error", code="upstream_refused", headers=headers)
        failed.provider_code = _text(fields.get("code")) or _text(fields.get("type"))  # Anthropic has types only
    else:
        failed = UpstreamFailure(status if 400 <= status < 600 else 502, message, **own)
    failed.reason = str(status)
    failed.failure_class = failure_class
    return failed


def _failure(status: int, message: str, code: str) -> UpstreamFailure:
    failed = UpstreamFailure(status, message, type="upstream_error", code=code)
    failed.reason = code
    return failed


async def _error_text(response: Response) -> bytes:
    """Return the start of an error's body; if that breaks, what has arrived: its status counts."""
    text = b""
    with suppress(HttpError):
        while len(text) < MAX_ERROR_BYTES and (chunk := await response.read()):
            text += chunk
    return text


def _plain_text(response: Response, text: bytes, secrets: tuple[str, ...]) -> str | None:
    """Return the text of a plain error, without secrets."""
    if content_type(response)[0] != "text/plain":
        return None
    words = " ".join(text.decode(errors="replace").split())
    return str(mask(words, secrets))[:MAX_PLAIN_TEXT] or None


def _retry_after(headers: dict[str, str]) -> float | None:
    """Return the wait in seconds that a provider states, from headers as `to_client` returns them; None without one.

    `retry-after-ms` is OpenAI's and more exact; `Retry-After` is a number of seconds or a date (RFC 9110).
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        text = headers.get(name)
        if text is not None and SECONDS.fullmatch(text):
            return float(text) * unit or None
    date = headers.get("retry-after")
    return max(0.0, parsedate_to_datetime(date).timestamp() - time.time()) or None if date is not None else None


def _codes(fields: dict[str, Any]) -> frozenset[str]:
    return frozenset(code for name in ("code", "type", "status") if (code := _text(fields.get(name))))


def _numbers(fields: dict[str, Any]) -> frozenset[int]:
    """Return the statuses in an error's fields, as numbers or, like LiteLLM's, as text."""
    texts = (str(fields.get(name)) for name in ("code", "status"))
    return frozenset(int(text) for text in texts if _STATUS.fullmatch(text))


def _json_object(text: bytes, secrets: tuple[str, ...]) -> dict[str, Any]:
    """Return the JSON object in an error's text, without the secrets that some providers repeat.

    Returns {} for any other text, also for JSON with numbers out of range or too many levels. Gemini's OpenAI endpoint
    puts the object into a list: https://github.com/FuzzAnything/PromptFuzz/issues/42.
    """
    answer: Any = json_text.read(lambda raw: mask(msgspec.json.decode(raw), secrets), text, {})
    if isinstance(answer, list) and len(answer) == 1:
        answer = answer[0]
    return answer if isinstance(answer, dict) else {}


def _message(fields: dict[str, Any]) -> str | None:
    """Return an error's text, under the names that providers use; None without one."""
    for name in ("message", "detail"):
        if value := fields.get(name):
            return value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return _text(fields.get("error")) or None


def _text(code: Any) -> str | None:
    return code if isinstance(code, str) else None
