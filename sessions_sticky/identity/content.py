"""Recognize a conversation by its beginning, for clients that send no id: one fingerprint for all APIs."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from sessions_sticky.identity.apis import ContentApi, read_list
from sessions_sticky.identity.sources import decode, observed_text

SYSTEM_CHARACTERS = 1_024
"""Number of characters of the system prompt in the fingerprint."""

_BILLING_HEADER = "x-anthropic-billing-header:"
"""The prefix of the first line of Claude Code's system prompt, which differs in each request."""
_SYSTEM_ROLES = ("system", "developer")
_TEXT_TYPES = ("text", "input_text", "output_text")
_DECORATION = {"cache_control", "id", "status"}
"""Fields of a part or an item that differ between two requests of one conversation."""
_DIGEST_DIGITS = 32
_MAX_CONTAINERS = 10_000
"""Maximum number of objects and lists in a decoded part; a part with more is hashed as bytes."""


class Fingerprint(NamedTuple):
    """The beginning of a conversation."""

    digest: str
    """32 hexadecimal digits; the same for all requests of a conversation."""
    is_answered: bool
    """Whether a turn of the assistant follows the first user messages, so that this is not the first request."""


class _Head(msgspec.Struct):
    role: str | None = None
    type: str | None = None


class _Part(msgspec.Struct):
    type: str | None = None
    text: str | None = None


_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_PART = msgspec.json.Decoder(str | _Part | None)
_HEAD = msgspec.json.Decoder(_Head)
_CANONICAL = msgspec.json.Encoder(order="deterministic")


def fingerprint(api: ContentApi, body: Mapping[str, Any], *, owner: str, key: bytes) -> Fingerprint | None:
    """Return the fingerprint of a request's conversation; None without a user message, or if it does not decode.

    An HMAC over the owner, `prompt_cache_key`, the beginning of the system prompt, and all messages up to and including
    the first user message with the user messages that follow it directly. Of a message its role, its text and a hash
    of each other part count.
    """
    cache_key = observed_text(decode(body.get("prompt_cache_key"))) or ""
    try:
        prompt = api.prompt(body)
        beginning = None if prompt is None else _beginning(*prompt)
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError):
        return None
    if beginning is None:
        return None
    system, messages, is_answered = beginning
    fields = [_text(b"owner", owner), _text(b"cache_key", cache_key), _text(b"system", system), *messages]
    digest = hmac.digest(key, b"content\0" + b"".join(fields), "sha256").hex()[:_DIGEST_DIGITS]
    return Fingerprint(digest, is_answered)


def _beginning(system_prompt: Sequence[Any], turns: Sequence[Any]) -> tuple[str, list[bytes], bool] | None:
    system = [text for content in system_prompt for text in _system_texts(content)]
    messages: list[bytes] = []
    is_user = False
    rest: Sequence[Any] = ()
    for position, turn in enumerate(turns):
        role = _role(turn)
        if is_user and role != "user":
            rest = turns[position:]
            break
        item = _OBJECT.decode(turn) if isinstance(turn, msgspec.Raw) else turn
        is_user = role == "user"
        if role in _SYSTEM_ROLES:
            system += _system_texts(item.get("content"))
        else:
            messages.append(_text(b"role", role))
            messages += _parts(item.get("content") if "role" in item else [turn])
    if not is_user:
        return None
    return "".join(system)[:SYSTEM_CHARACTERS], messages, _is_answered(rest)


def _is_answered(turns: Sequence[Any]) -> bool:
    """Return whether the assistant had a turn; assistant text at the very end is a prefill."""
    last = len(turns) - 1
    return any(
        role not in ("user", *_SYSTEM_ROLES) and (role != "assistant" or position < last)
        for position, role in enumerate(map(_role, turns))
    )


def _role(turn: Any) -> str:
    """Return the role; for an item without a role, such as a function call, its type."""
    if isinstance(turn, msgspec.Raw):
        head = _HEAD.decode(turn)
        role = head.role or head.type
    elif isinstance(turn, Mapping):
        role = turn.get("role") or turn.get("type")
    else:
        role = None
    if not isinstance(role, str):
        raise TypeError("a turn is an object with a role or a type")
    return role


def _system_texts(content: Any) -> Iterator[str]:
    for part in _list_of_parts(content):
        text = _text_of(part)
        if text is not None and text.startswith(_BILLING_HEADER):
            text = text.partition("\n")[2]
        if text:
            yield text


def _parts(content: Any) -> Iterator[bytes]:
    for part in _list_of_parts(content):
        text = _text_of(part)
        if text is not None:
            yield _text(b"text", text)
        elif (canonical := _canonical(part)) is not None:
            yield _field(b"part", hashlib.sha256(canonical).digest())


def _list_of_parts(content: Any) -> Sequence[Any]:
    """Return the parts of a content, which may be a single string; undecoded parts stay undecoded."""
    if isinstance(content, msgspec.Raw) and bytes(memoryview(content)[:1]) == b"[":
        return read_list(content)
    return content if isinstance(content, list) else [content]


def _canonical(part: Any) -> bytes | None:
    """Return the JSON of a part without fields that differ between requests; None for null."""
    if isinstance(part, msgspec.Raw):
        raw = bytes(part)
        if raw.count(b"{") + raw.count(b"[") > _MAX_CONTAINERS:
            return raw
        part = msgspec.json.decode(raw)
    if isinstance(part, dict):
        part = {name: value for name, value in part.items() if name not in _DECORATION}
    return None if part is None else _CANONICAL.encode(part)


def _text_of(part: Any) -> str | None:
    if isinstance(part, msgspec.Raw):
        try:
            part = _PART.decode(part)
        except msgspec.ValidationError:  # a part of another shape
            return None
        if isinstance(part, _Part):
            part = {"type": part.type, "text": part.text}
    if isinstance(part, dict) and part.get("type") in _TEXT_TYPES:
        part = part.get("text")
    return part if isinstance(part, str) else None


def _text(name: bytes, text: str) -> bytes:
    return _field(name, text.encode("utf-8", "surrogatepass"))


def _field(name: bytes, value: bytes) -> bytes:
    return b"%b %d:%b" % (name, len(value), value)
