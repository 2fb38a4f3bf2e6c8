"""Conversation ids and the Redis keys made from them.

Every key is made by `prefixed` and begins with `SESSIONS_STICKY["PREFIX"]`, so two prefixes share no key.

The keys are a contract with other programs: they change only together with docs/interchange.md.
"""

from __future__ import annotations

import json
import re
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from sessions_sticky.exceptions import InvalidConversationId

if TYPE_CHECKING:
    from sessions_sticky.conf import Conf

MAX_CONVERSATION_ID_LENGTH = 256
"""Unicode code points, not bytes."""

_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def prefixed(name: str) -> str:
    """Return a name with the prefix of this project."""
    return _conf().prefix + name


@cache
def _conf() -> Conf:
    """Load the settings when the first key is made: importing this module does not need Django."""
    from sessions_sticky.conf import conf

    return conf


def session_prefix() -> str:
    """Return the prefix of the keys of all sessions."""
    return prefixed("session:")


def session(conversation_id: str) -> str:
    """Return the key of a session; the id is not checked."""
    return prefixed("session:") + conversation_id


def deleted(conversation_id: str) -> str:
    """Return the key that marks a session as deleted, not lost by the store; it expires after an idle time."""
    return prefixed("deleted:") + conversation_id


def index_prefix() -> str:
    """Return the prefix of the keys of the index.

    Redis Cluster keeps keys with the same text in braces together, so a script may work on several of them.
    """
    return prefixed("{index}:")


def index_all() -> str:
    """Return the key of the index of all sessions."""
    return prefixed("{index}:all")


def index_routes() -> str:
    """Return the key of the routes that have sessions."""
    return prefixed("{index}:routes")


def history() -> str:
    """Return the key of the stream of recent events."""
    return prefixed("history:{index}")


def history_of(conversation_id: str) -> str:
    """Return the key of the history of one conversation."""
    return prefixed("history:{index}:") + conversation_id


def trail(conversation_id: str) -> str:
    """Return the key of the last turns of a session."""
    return prefixed("trail:") + conversation_id


def usage_prefix() -> str:
    """Return the prefix of the keys of usage."""
    return prefixed("usage:")


def usage(period: str, number: int) -> str:
    """Return the key of the usage of the turns of the `number`th `"minute"` or `"hour"` since 1970."""
    return f"{usage_prefix()}{period}:{number}"


def process(name: str) -> str:
    """Return the key of the number by which a process notices that the store lost something."""
    return prefixed(f"process:{name}")


def owner(external_id: str) -> str:
    """Return the key of the index of an owner's sessions."""
    return prefixed("{index}:owner:") + external_id


@lru_cache(maxsize=1_000)
def route_name(provider: str, model: str) -> str:
    """Return the name of a route in the index: a JSON list, because both may contain any character."""
    return json.dumps([provider, model], ensure_ascii=False, separators=(",", ":"))


def route(provider: str, model: str) -> str:
    """Return the key of the index of a route's sessions."""
    return prefixed(f"{{index}}:route:{route_name(provider, model)}")


def created_prefix() -> str:
    """Return the prefix of the keys that count created sessions."""
    return prefixed("created:{index}:")


def created(period: str, number: int) -> str:
    """Return the key of the number of sessions created in the `number`th `"minute"` or `"hour"` since 1970."""
    return f"{created_prefix()}{period}:{number}"


def job(key: str) -> str:
    """Return the key of the record of a bulk job."""
    return prefixed(f"job:{{index}}:{key}")


def jobs() -> str:
    """Return the key of the bulk operations of the last day."""
    return prefixed("jobs:{index}")


def check(conversation_id: str) -> None:
    """Raise `InvalidConversationId` for an invalid conversation id.

    Valid ids are strings of 1 to 256 characters without control characters (C0, DEL, C1: they break logs and
    terminals) and lone surrogates (they have no UTF-8 form).
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
