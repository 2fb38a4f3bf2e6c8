"""Which conversation a request belongs to."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from sentinel_project.gateway.apis.body import Body
from sentinel_project.gateway.errors import ApiError
from sessions_sticky import InvalidConversationId, keys

DEFAULT_SOURCES = (
    "body.conversation_id",
    "header.x-conversation-id",
    "header.x-session-id",
    "header.x-*-session-id",  # Claude Code, LiteLLM
    "header.session-id",
    "header.session_id",  # Codex
    "header.x-session-affinity",
    "body.session_id",
    "body.metadata.conversation_id",
    "body.metadata.session_id",
    "body.prompt_cache_key",
)
"""First found wins. Never `user` or `safety_identifier`: they name a person, not a conversation."""


def find(sources: Sequence[str], headers: Mapping[str, str], body: Body) -> str | None:
    """Return the conversation id that a client sent; None when it sent none.

    `headers` have lower-case names; an empty header counts as none. Raises `ApiError` 400, naming the source, for an
    id that is not a string or not allowed.
    """
    for source in sources:
        place, _, path = source.partition(".")
        value = _in_headers(path.lower(), headers) if place == "header" else _in_body(path, body)
        if value is None:
            continue
        try:
            keys.check(value)
        except InvalidConversationId as exc:
            raise ApiError(400, f"Invalid {path}: {exc}", param=path, code="invalid_conversation_id") from exc
        return str(value)
    return None


def _in_headers(pattern: str, headers: Mapping[str, str]) -> str | None:
    if "*" not in pattern:
        return headers.get(pattern) or None
    return next((value for name, value in headers.items() if value and fnmatchcase(name, pattern)), None)


def _in_body(path: str, body: Body) -> Any:
    first, *rest = path.split(".")
    value = body.get(first)
    for name in rest:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def scoped(scope: str, owner: str, conversation_id: str) -> str:
    """Return the session's id for a client's conversation id.

    `shared` is the id itself: another owner who uses it is refused. `owner` puts the owner's hash in front, so that
    owners cannot meet at all; an id too long for both is hashed too.
    """
    if scope == "shared":
        return conversation_id
    own = f"{_sha256(owner)[:32]}:{conversation_id}"
    return own if len(own) <= keys.MAX_CONVERSATION_ID_LENGTH else f"{own[:32]}:{_sha256(conversation_id)}"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
