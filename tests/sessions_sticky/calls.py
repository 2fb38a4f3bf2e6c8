"""One call of each method of the manager, for tests of what holds for all of them."""

from __future__ import annotations

from typing import Any

import pytest

from sessions_sticky import Session
from tests.conftest import COMPARING_STORES, PORTABLE_STORES, REDIS_STORES

on_comparing = pytest.mark.parametrize("store_name", COMPARING_STORES, indirect=True)
on_redis = pytest.mark.parametrize("store_name", REDIS_STORES, indirect=True)
on_portable = pytest.mark.parametrize("store_name", PORTABLE_STORES, indirect=True)

PROPOSAL = {"provider": "openai", "model": "gpt-4", "owner": "user-456"}
OTHER = {"provider": "anthropic", "model": "claude", "owner": "user-456"}
MOVE = {"provider": "mistral", "model": "large", "reason": "a test"}

METHODS = ("get", "inspect", "create", "touch", "resolve", "rebind", "delete")


def arguments(method: str, session: Session) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments by which `method` acts on a session: reads, moves or creates it."""
    proposal = {"provider": session.provider, "model": session.model, "owner": session.external_id}
    keywords: dict[str, dict[str, Any]] = {"create": {**proposal, "replace": True}, "resolve": proposal, "rebind": MOVE}
    return (session if method == "rebind" else session.id,), keywords.get(method, {})


def sample(conversation_id: Any = "conv-123", **fields: Any) -> Session:
    """Return the design's example of a session, with other fields where given."""
    given = {"id": conversation_id, **PROPOSAL, "created_at": 1_700_000_000, **fields}
    return Session(external_id=given.pop("owner"), **given)
