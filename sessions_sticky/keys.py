"""Conversation ids and the Redis keys made from them; pure functions.

The keys are a contract with other programs: they change only together with docs/interchange.md.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache

from sessions_sticky.exceptions import InvalidConversationId

SESSION_PREFIX = "sentinel:session:"
DELETED_PREFIX = "sentinel:deleted:"
TRAIL_PREFIX = "sentinel:trail:"
USAGE_PREFIX = "sentinel:usage:"
INDEX_PREFIX = "sentinel:{index}:"
"""Redis Cluster keeps keys with the same text in braces together, so a script may work on several of them."""
INDEX_ALL = f"{INDEX_PREFIX}all"
INDEX_ROUTES = f"{INDEX_PREFIX}routes"
CREATED_PREFIX = "sentinel:created:{index}:"
HISTORY = "sentinel:history:{index}"
JOBS = "sentinel:jobs:{index}"
MAX_CONVERSATION_ID_LENGTH = 256
"""Unicode code points, not bytes."""

_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def session(conversation_id: str) -> str:
    """Return the key of a session, whatever the id; it is not checked."""
    return SESSION_PREFIX + conversation_id


def deleted(conversation_id: str) -> str:
    """Return the key that says a session was deleted, and not lost by the store; it lives as long as an idle time."""
    return DELETED_PREFIX + conversation_id


def trail(conversation_id: str) -> str:
    """Return the key of the last turns of a session."""
    return TRAIL_PREFIX + conversation_id


def usage(period: str, number: int) -> str:
    """Return the key of what the turns of the `number`th `"minute"` or `"hour"` since 1970 used."""
    return f"{USAGE_PREFIX}{period}:{number}"


def owner(external_id: str) -> str:
    """Return the key of the index of an owner's sessions."""
    return f"{INDEX_PREFIX}owner:{external_id}"


@lru_cache(maxsize=1_000)
def route_name(provider: str, model: str) -> str:
    """Return the name of a route in the index: a JSON list, as both may contain any character."""
    return json.dumps([provider, model], ensure_ascii=False, separators=(",", ":"))


def route(provider: str, model: str) -> str:
    """Return the key of the index of a route's sessions."""
    return f"{INDEX_PREFIX}route:{route_name(provider, model)}"


def created(period: str, number: int) -> str:
    """Return the key of how many sessions were created in the `number`th `"minute"` or `"hour"` since 1970."""
    return f"{CREATED_PREFIX}{period}:{number}"


def job(key: str) -> str:
    """Return the key of the record of a bulk operation that runs by itself."""
    return f"sentinel:job:{{index}}:{key}"


def check(conversation_id: str) -> None:
    """Raise `InvalidConversationId` unless the id may name a conversation.

    Allowed is any string of 1 to 256 characters without control characters (C0, DEL, C1: they break logs and
    terminals) and without lone surrogates (they have no UTF-8 form, hence no key).
    """
    if not isinstance(conversation_id, str):
        raise InvalidConversationId(f"A conversation id is a string, not {type(conversation_id).__name__}")
    if not 1 <= len(conversation_id) <= MAX_CONVERSATION_ID_LENGTH:
        raise InvalidConversationId(
            f"A conversation id has 1 to {MAX_CONVERSATION_ID_LENGTH} characters, not {len(conversation_id)}"
        )
    if found := _FORBIDDEN.search(conversation_id):
        raise InvalidConversationId(
            f"A conversation id must not contain U+{ord(found.group()):04X} (at position {found.start()}):"
            " control characters and lone surrogates are not allowed"
        )
