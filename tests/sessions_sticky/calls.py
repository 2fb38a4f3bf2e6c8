"""One call of each method of the manager, for tests of what holds for all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asgiref.sync import markcoroutinefunction

from sessions_sticky import Session, SessionManager
from sessions_sticky.queries.filters import Filters

PROPOSAL = {"provider": "openai", "model": "gpt-4", "owner": "user-456"}
OTHER = {"provider": "anthropic", "model": "claude", "owner": "user-456"}
MOVE = {"provider": "mistral", "model": "large", "reason": "a test"}

METHODS = ("get", "inspect", "create", "touch", "resolve", "rebind", "delete")


def arguments(method: str, session: Session) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments by which `method` acts on a session: reads, moves or creates it."""
    proposal = {"provider": session.provider, "model": session.model, "owner": session.external_id}
    keywords: dict[str, dict[str, Any]] = {"create": {**proposal, "replace": True}, "resolve": proposal, "rebind": MOVE}
    return (session if method == "rebind" else session.id,), keywords.get(method, {})


OF_QUERIES = {"page": "page", "count": "count", "scan": "__iter__", "delete_all": "delete", "rebind_all": "rebind"}
"""Methods of queries, by the names by which tests call them like methods of the manager."""


def method_of(manager: SessionManager, name: str) -> Callable[..., Any]:
    """Return a method of the manager, or one of queries, which then takes filters (`external_id` for `owner`), too."""
    prefix, plain = ("a", name[1:]) if name[1:] in OF_QUERIES else ("", name)
    if plain not in OF_QUERIES:
        return getattr(manager, name)  # type: ignore[no-any-return]

    def call(**kwargs: Any) -> Any:
        if "external_id" in kwargs:
            kwargs["owner"] = kwargs.pop("external_id")
        filters: Any = {field: kwargs.pop(field) for field in Filters._fields if field in kwargs}
        return getattr(manager.all().filter(**filters), prefix + OF_QUERIES[plain])(**kwargs)

    return markcoroutinefunction(call) if prefix else call


def sample(conversation_id: Any = "conv-123", **fields: Any) -> Session:
    """Return the design's example of a session, with other fields where given."""
    given = {"id": conversation_id, **PROPOSAL, "created_at": 1_700_000_000, **fields}
    return Session(external_id=given.pop("owner"), **given)
