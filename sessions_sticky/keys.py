"""Conversation ids and the Redis keys made from them; pure functions.

The keys are a contract with other programs: they change only together with docs/interchange.md.
"""

from __future__ import annotations

import re

from sessions_sticky.exceptions import InvalidConversationId

SESSION_PREFIX = "sentinel:session:"
DELETED_PREFIX = "sentinel:deleted:"
MAX_CONVERSATION_ID_LENGTH = 256
"""Unicode code points, not bytes."""

_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def session(conversation_id: str) -> str:
    """Return the key of a session, whatever the id; it is not checked."""
    return SESSION_PREFIX + conversation_id


def deleted(conversation_id: str) -> str:
    """Return the key that says a session was deleted, and not lost by the store; it lives as long as an idle time."""
    return DELETED_PREFIX + conversation_id


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
