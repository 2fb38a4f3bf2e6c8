"""Filter the headers and query parameters sent to a provider, and the headers of its answer."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC
from email.message import Message
from email.utils import format_datetime, parsedate_to_datetime
from functools import lru_cache
from urllib.parse import parse_qsl, urlencode

from sentinel_project.gateway.apis.base import ApiRequest
from sentinel_project.gateway.providers.config import Provider
from sentinel_project.gateway.tracing import send_context
from sentinel_project.gateway.upstream.masking import mask
from sentinel_project.gateway.upstream.response import Response

TO_PROVIDER = frozenset(
    {"openai-beta", "anthropic-version", "anthropic-beta", "traceparent", "tracestate", "idempotency-key"}
)
FOR_ONE_ATTEMPT = frozenset({"idempotency-key"})
"""Headers for the first attempt only."""
TO_PROVIDER_PREFIXES = ("x-stainless-",)
QUERY_TO_PROVIDER = frozenset(
    {"beta", "include[]", "include_obfuscation", "stream", "starting_after", "limit", "order", "after"}
)
TO_CLIENT = frozenset(
    {"x-should-retry", "openai-processing-ms", "openai-version", "openai-model", "x-reasoning-included"}
)
"""The last is for Codex: the usage counts past reasoning. Otherwise Codex adds an estimate, and compacts earlier."""
TO_CLIENT_PREFIXES = ("x-ratelimit-", "anthropic-ratelimit-", "retry-after")
DEFAULTS = {"accept": "*/*", "accept-encoding": "identity", "user-agent": "sessions_sticky"}
"""Headers that a client or an operator may set otherwise."""
REQUEST_IDS = ("x-request-id", "request-id")
"""Where providers put their own id of a request: OpenAI and most others, Anthropic."""
MEDIA_TYPES = frozenset({"application/json", "text/event-stream", "application/x-ndjson"})
"""The types of answers that are passed on; in any other text a provider may repeat its key."""
SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,3})?")
TURN_STATE = "x-codex-turn-state"
"""State of one turn that Codex sends back with the turn's next request; only its issuer can read it."""


@send_context
def to_provider(provider: Provider, request: ApiRequest, hint: str | None) -> dict[str, str]:
    """Return the headers of a request to a provider: the client's that are allowed, then the provider's own.

    `hint` goes into the header that the provider takes for cache affinity, unless the client has set it.
    """
    given = request.headers
    hop_by_hop = [name.strip().lower() for name in given["connection"].split(",")] if "connection" in given else ()
    allowed = _forwarded(tuple(given), provider.forward_headers, provider.affinity_header)
    sent = {name: given[name] for name in allowed if name not in hop_by_hop and _is_printable(given[name])}
    if provider.affinity_header is not None and hint is not None:
        sent[provider.affinity_header] = sent.get(provider.affinity_header) or hint
    issuer, _, state = given.get(TURN_STATE, "").partition(":")
    if state and issuer == _issuer(provider) and _is_printable(state) and TURN_STATE not in hop_by_hop:
        sent[TURN_STATE] = state
    return {**DEFAULTS, **sent, **of_provider(provider), "Content-Type": "application/json"}


def of_provider(provider: Provider) -> dict[str, str]:
    """Return the headers of every request to a provider: those of its entry, and its key."""
    return {**provider.headers, **authorization(provider)}


@lru_cache(maxsize=128)
def _forwarded(given: tuple[str, ...], configured: frozenset[str], affinity_header: str | None) -> list[str]:
    """Return which of a client's headers go to a provider; all requests of one kind of client have the same."""
    names = (TO_PROVIDER | configured | {affinity_header}) - {TURN_STATE}
    return [name for name in given if name in names or name.startswith(TO_PROVIDER_PREFIXES)]


def query_to_provider(provider: Provider, query: str) -> str:
    """Return the query of a request to a provider with its mark, perhaps "".

    It has the client's allowed parameters, then the provider's own.
    """
    if not query and not provider.query:
        return ""
    given = parse_qsl(query, keep_blank_values=True)
    allowed = [(name, value) for name, value in given if name in QUERY_TO_PROVIDER and name not in provider.query]
    sent = urlencode([*allowed, *provider.query.items()])
    return f"?{sent}" if sent else ""


def next_attempt(request: ApiRequest) -> ApiRequest:
    """Return a request as it is sent once more: to another provider, or with another body."""
    kept = {name: value for name, value in request.headers.items() if name not in FOR_ONE_ATTEMPT}
    return request._replace(headers=kept)


def authorization(provider: Provider) -> dict[str, str]:
    """Return the header with the provider's key; empty if it has none."""
    if provider.api_key is None or provider.auth == "none":
        return {}
    if provider.auth == "bearer":
        return {"Authorization": f"Bearer {provider.api_key}"}
    return {provider.auth: provider.api_key}


def to_client(provider: Provider, response: Response) -> dict[str, str]:
    """Return the headers of a provider's answer that go to the client, its id of the request among them.

    Without the gateway's key, which the provider may repeat in them.
    """
    passed = _passed(tuple(response.headers))
    kept = {name: value for name in passed if (value := _usable(provider, response, name)) is not None}
    for name in REQUEST_IDS:
        if name in response.headers and (request_id := _usable(provider, response, name)):
            kept["x-upstream-request-id"] = kept["request-id"] = request_id
    if TURN_STATE in response.headers and (state := _usable(provider, response, TURN_STATE)):
        kept[TURN_STATE] = f"{_issuer(provider)}:{state}"
    return kept


@lru_cache(maxsize=128)
def _passed(given: tuple[str, ...]) -> list[str]:
    """Return which of a provider's headers go to the client; most answers of a provider have the same."""
    names = {name.lower() for name in given}
    return sorted(name for name in names if name in TO_CLIENT or name.startswith(TO_CLIENT_PREFIXES))


def _issuer(provider: Provider) -> str:
    """Return what the gateway puts before a turn's state, to recognize the provider when it comes back."""
    return hashlib.sha256(provider.name.encode()).hexdigest()[:16]


def media_type(response: Response, default: str) -> str:
    """Return the type of an answer if it is one of `MEDIA_TYPES`, with its charset if that is UTF-8, else `default`."""
    given, charset = content_type(response)
    if given not in MEDIA_TYPES:
        return default
    return f"{given}; charset=utf-8" if charset == "utf-8" else given


def content_type(response: Response) -> tuple[str, str | None]:
    """Return the type of a body and its charset, in lower case; without a valid type `text/plain`, as RFC 2045 says."""
    return _content_type(response.headers.get("content-type", ""))


@lru_cache(maxsize=64)
def _content_type(text: str) -> tuple[str, str | None]:
    parsed = Message()
    parsed["Content-Type"] = text
    return parsed.get_content_type(), parsed.get_content_charset()


def _usable(provider: Provider, response: Response, name: str) -> str | None:
    """Return a header of a provider's answer; None if it is missing or invalid."""
    value = response.headers.get(name)
    if value is None or not _is_printable(value):
        return None
    if name.startswith("retry-after"):
        return _retry_after(value)
    masked: str = mask(value, provider.secrets)
    return masked


def _retry_after(value: str) -> str | None:
    """Return a normalized number of seconds or date; None for other text."""
    if SECONDS.fullmatch(value):
        return value
    try:
        return format_datetime(parsedate_to_datetime(value).astimezone(UTC), usegmt=True)
    except (ValueError, OverflowError):
        return None


def _is_printable(value: str) -> bool:
    return value.isascii() and value.isprintable()
