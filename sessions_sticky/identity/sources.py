"""The sources of conversation ids in a request: their order, and how they are read.

A source is `header.NAME`, where `*` stands for any part of a header's name, `body.FIELD` with dots into objects, or
`content`.
"""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from sessions_sticky.session import plain_text

CONTENT = "content"

DEFAULT_NAMED = ("body.conversation_id",)
"""Ids that are meant for this gateway. No header by default: LibreChat sends `X-Conversation-Id` also with title
requests to another model."""

DEFAULT_SOURCES = (
    "header.x-claude-code-session-id",
    "header.thread-id",
    "header.session-id",
    "header.session_id",
    "header.x-opencode-session",
    "header.x-conversation-id",
    "header.x-session-affinity",
    "header.x-session-id",
    "header.agent-session-id",
    "header.x-openwebui-chat-id",
    "header.x-grok-conv-id",
    "header.x-affinity",
    "header.x-thread-id",
    "header.x-chat-id",
    "header.x-litellm-session-id",
    "header.x-*-session-id",
    "body.session_id",
    "body.litellm_session_id",
    "body.metadata.conversation_id",
    "body.metadata.session_id",
    "body.metadata.user_id",
    CONTENT,
)
"""Observed ids; the first one found is used. Of `metadata.user_id` only the session id inside is read. Never `user`,
`safety_identifier` (a person) or `x-client-request-id` (a request). `prompt_cache_key` is a cache bucket, often one for
a whole application, so it is only a part of the content's fingerprint."""

_KEYS = r"(proxy-)?authorization|cookie|(x-(goog-)?)?api-key"
"""Headers of keys and logins, which must not become ids: these are in the store and in logs."""
PLACE = rf"(?!(?i:header\.({_KEYS}))\Z)(body|header)\.[!-~]+"
SOURCE = f"{PLACE}|{CONTENT}"
_NOT_BY_WILDCARD = re.compile(rf"x-(.*-)?parent-session-id|x-posthog-session-id|{_KEYS}")
"""Another conversation's id, a visit of a website, and keys."""

_MAX_ID_BYTES = 64 * 1024
"""Maximum length of a decoded value; megabytes would take seconds."""

_SESSION_IN_USER_ID = re.compile(r"user_.*_session_([A-Za-z0-9-]+)")
"""Anthropic's `metadata.user_id`, as Claude Code sent it up to 2.1.77; later versions send JSON text."""


def check_sources(sources: Sequence[str]) -> None:
    """Raise `ValueError` for an invalid source."""
    for source in sources:
        if not re.fullmatch(SOURCE, source):
            raise ValueError(
                f"source must be header.NAME (with * for any part; no header of a key), body.FIELD or {CONTENT},"
                f" not {source!r}"
            )


def read_sources(
    sources: Sequence[str], headers: Mapping[str, str], body: Mapping[str, Any]
) -> Iterator[tuple[str, Any]]:
    """Yield the values of the request at the sources, in their order, with the exact names of the sources.

    Headers that match a wildcard come alphabetically; empty ones and JSON's null are absent. `content` has the value
    None. Raises `ValueError` like `check_sources`.
    """
    for source, place, path in _plan(tuple(sources)):
        if place == "header":
            if value := headers.get(path):
                yield source, value
        elif place == "wildcard":
            yield from _matching(path, headers)
        elif place == "body":
            if (value := _value_in(body, path)) is not None:
                yield source, value
        else:
            yield CONTENT, None


def observed_text(value: Any) -> str | None:
    """Return the text of an id; None for blank text and for what is neither text nor a number."""
    if isinstance(value, str):
        return plain_text(value) if value.strip() else None
    if isinstance(value, float):
        return str(value) if math.isfinite(value) else None
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    try:
        return str(value)
    except ValueError:  # more digits than Python converts
        return None


def decode(value: Any) -> Any:
    """Return a decoded JSON value; None if `msgspec.Raw` does not decode or is too long for an id."""
    if not isinstance(value, msgspec.Raw):
        return value
    if len(value) > _MAX_ID_BYTES:
        return None
    try:
        return msgspec.json.decode(value)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


@lru_cache(maxsize=32)
def _plan(sources: tuple[str, ...]) -> list[tuple[str, str, str]]:
    """Return for each source its name, its place (`header`, `wildcard`, `body` or `content`), and its path there."""
    check_sources(sources)
    plan = []
    for source in sources:
        place, _, path = source.partition(".")
        if place == "header":
            path = path.lower()
            plan.append((f"header.{path}", "wildcard" if "*" in path else place, path))
        else:
            plan.append((source, place, path))
    return plan


def _matching(wildcard: str, headers: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name in sorted(fnmatch.filter(headers, wildcard)):
        if headers[name] and not _NOT_BY_WILDCARD.fullmatch(name):
            yield f"header.{name}", headers[name]


def _value_in(body: Mapping[str, Any], path: str) -> Any:
    value: Any = body
    for name in path.split("."):
        value = _member(value, name)
    return _session_in_user_id(value) if path == "metadata.user_id" else decode(value)


def _member(value: Any, name: str) -> Any:
    if isinstance(value, msgspec.Raw):
        try:
            value = _OBJECT.decode(value)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return None
    return value.get(name) if isinstance(value, Mapping) else None


def _session_in_user_id(value: Any) -> Any:
    text = decode(value)
    if not isinstance(text, str):
        return None
    if found := _SESSION_IN_USER_ID.fullmatch(text):
        return found[1]
    return decode(_member(msgspec.Raw(text.encode("utf-8", "replace")), "session_id"))


_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
