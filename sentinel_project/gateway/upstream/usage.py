"""Read the token usage in answers of all APIs, under all names that providers use.

The names are merged in one struct: the classes in `gateway.apis` declare none of them.
"""

from __future__ import annotations

import msgspec

from sentinel_project.gateway.apis import events
from sentinel_project.gateway.apis.base import Api, ApiRequest
from sentinel_project.gateway.conf import settings
from sessions_sticky import Usage
from sessions_sticky.turns import MAX_TOKENS

MARKS = (b'_tokens"', b'TokenCount"')
"""One of them is in every event that reports usage; deltas have none, for quotes inside a text are escaped."""

MAX_REPORTED_TOKENS = MAX_TOKENS // 4
"""Maximum of one reported number: those of a turn are sums of up to three."""


class _Details(msgspec.Struct, omit_defaults=True):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    """OpenRouter's."""
    cache_creation_tokens: int | None = None
    """LiteLLM's."""


class _Usage(msgspec.Struct, omit_defaults=True):
    """All names of token counts, from the APIs' references, and for cached tokens DeepSeek's and Moonshot's."""

    prompt_tokens: int | None = None
    input_tokens: int | None = None
    promptTokenCount: int | None = None
    completion_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    candidatesTokenCount: int | None = None
    thoughtsTokenCount: int | None = None
    prompt_tokens_details: _Details | None = None
    input_tokens_details: _Details | None = None
    cache_read_input_tokens: int | None = None
    cachedContentTokenCount: int | None = None
    prompt_cache_hit_tokens: int | None = None
    cached_tokens: int | None = None
    cache_creation_input_tokens: int | None = None


class _Part(msgspec.Struct):
    usage: _Usage | None = None
    usageMetadata: _Usage | None = None


class _Answer(_Part):
    """A plain answer or an event: the usage is its own, that of the response that ended, or of the message begun.

    In other answers `response` and `message` are what the model wrote.
    """

    response: _Part | str | None = None
    message: _Part | str | None = None
    choices: list[msgspec.Raw] | None = None


_decode = msgspec.json.Decoder(_Answer).decode


class UsageReader:
    """Reads the usage of one answer. `drops_event`: remove the event that only the gateway asked for."""

    def __init__(self, api: Api, *, drops_event: bool = False) -> None:
        self._api = api
        self._drops_event = drops_event
        self._numbers: dict[str, int] = {}

    def take(self, chunk: bytes) -> bytes:
        """Read whole events of a stream; return them without the event that the client did not ask for."""
        if MARKS[0] not in chunk and MARKS[1] not in chunk:
            return chunk
        if not self._drops_event:
            for event in events.split(chunk):
                self.read(events.data(event))
            return chunk
        return b"".join(event for event in events.split(chunk) if not self.read(events.data(event)))

    def read(self, answer: bytes) -> bool:
        """Read a plain answer or the data of an event; return whether it reports usage and holds nothing else."""
        try:
            read = _decode(answer)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return False
        found = read.usage or read.usageMetadata
        for part in (read.response, read.message):
            if found is None and isinstance(part, _Part):
                found = part.usage or part.usageMetadata
        if found is None:
            return False
        numbers = msgspec.to_builtins(found)  # those that were reported
        for name in ("prompt_tokens_details", "input_tokens_details"):
            numbers |= numbers.pop(name, {})
        self._numbers |= numbers  # later events replace earlier ones, because streams report the output so far
        return read.choices == []

    def usage(self) -> Usage | None:
        """Return the reported usage; None if there was none, or its numbers cannot be those of a turn."""
        numbers = self._numbers
        if numbers and not 0 <= min(numbers.values()) <= max(numbers.values()) <= MAX_REPORTED_TOKENS:
            return None
        total = _first(numbers, "prompt_tokens", "input_tokens", "promptTokenCount")
        if total is None:
            return None
        read = _first(
            numbers,
            *("cached_tokens", "cache_read_input_tokens", "cachedContentTokenCount", "prompt_cache_hit_tokens"),
        )
        written = _first(numbers, "cache_creation_input_tokens", "cache_write_tokens", "cache_creation_tokens")
        output = _first(numbers, "completion_tokens", "output_tokens", "candidatesTokenCount") or 0
        output += numbers.get("thoughtsTokenCount", 0)
        cached = (read or 0) + (written or 0)
        if self._api.input_is_uncached:
            return Usage(total + cached, read or 0, written or 0, output, cached)
        only_in_total = max(0, numbers.get("total_tokens", 0) - total - output)
        if only_in_total == cached:  # of a gateway to Anthropic's API, whose input leaves out cached tokens
            total += only_in_total
        else:  # reasoning, of xAI and Gemini
            output += only_in_total
        return Usage(max(total, cached), read or 0, written or 0, output, 0 if read is None else None)


def counts_tokens(request: ApiRequest) -> bool:
    """Return whether the request's key has a limit of tokens."""
    return request.slot is not None and request.slot.counts_tokens


def stream_options(request: ApiRequest) -> bytes | None:
    """Return the `stream_options` that ask for usage; None for requests that need not or cannot ask for it."""
    if not request.is_stream or not request.api.asks_for_usage:
        return None
    if not settings.SENTINEL_STREAM_USAGE and not counts_tokens(request):
        return None
    given = request.body.get("stream_options")
    if given is None:
        return b'{"include_usage":true}'
    if not isinstance(given, dict) or given.get("include_usage"):
        return None
    return msgspec.json.encode({**given, "include_usage": True})


def _first(numbers: dict[str, int], *names: str) -> int | None:
    for name in names:
        if name in numbers:
            return numbers[name]
    return None
