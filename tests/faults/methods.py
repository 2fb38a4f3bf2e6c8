"""One call of each public method of `SessionManager`, for experiments with all of them."""

from __future__ import annotations

import asyncio
import inspect
import time
from typing import TYPE_CHECKING, Any

from sessions_sticky import SessionError, SessionManager, Turn
from tests.sessions_sticky.calls import OF_QUERIES, method_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from sessions_sticky import Session

BOUND = {"provider": "openai", "model": "gpt-4", "owner": "user-456"}
OTHER = {"provider": "anthropic", "model": "claude", "owner": "user-456"}
MOVE = {"provider": "mistral", "model": "large", "reason": "an experiment"}

ASYNC_PREFIX = "a"
NO_REQUEST = {"acting_as", "all", "filter"}
"""Methods that send nothing."""
NO_ASYNC = {"scan"}
"""Methods without an async form."""
BY_SESSION: dict[str, dict[str, Any]] = {
    "get": {},
    "inspect": {},
    "create": {**OTHER, "replace": True},
    "touch": {},
    "resolve": OTHER,
    "rebind": MOVE,
    "delete": {},
    "delete_unchanged": {},
    "get_raw": {},
    "history": {},
}
"""Methods of one session, with their keywords."""
BY_STORE: dict[str, dict[str, Any]] = {
    "page": {},
    "count": {},
    "scan": {},
    "search": {"text": "user-456"},
    "stats": {},
    "created_per_hour": {},
    "recent": {},
    "delete_all": {"provider": BOUND["provider"]},
    "rebind_all": {"provider": BOUND["provider"], "to_provider": "mistral", "reason": "an experiment"},
    "reindex": {},
}
TRAIL = ("trail", "record_turn", "usage", "activity")
"""Methods of the trail. The state machine, whose model has no turns, is without them."""
NO_TWIN = {"arecord_turns", "export_gauges", "aexport_gauges"}
"""What only tasks in the background call: for many turns at once, and for the metrics."""
METHODS = (*BY_SESSION, *BY_STORE)
EVERY_METHOD = (*METHODS, *TRAIL)
CHANGING = {"create", "touch", "resolve", "rebind", "delete", "delete_unchanged", "delete_all", "rebind_all", "reindex"}
CHANGING |= {"record_turn"}
MODES = ("sync", "async")


def unlisted() -> set[str]:
    """Return the public methods that this module lacks, and those that only it has."""
    public = {name for name, _ in inspect.getmembers(SessionManager, inspect.isfunction) if not name.startswith("_")}
    public |= OF_QUERIES.keys() | {ASYNC_PREFIX + name for name in OF_QUERIES.keys() - NO_ASYNC}
    twins = {ASYNC_PREFIX + name for name in {*EVERY_METHOD} - NO_ASYNC}
    return public ^ ({*EVERY_METHOD} | twins | NO_REQUEST | NO_TWIN)


def invoke(
    manager: SessionManager, mode: str, method: str, session: Session, run: Callable[..., Any] = asyncio.run
) -> Any:
    """Call a method, or its twin, on a session; return what it returns, or the error of the app that it raises."""
    keywords = {**BY_SESSION, **BY_STORE}.get(method, {})
    args: list[Any] = [session if method in ("rebind", "delete_unchanged") else session.id]
    if method in BY_STORE or method in ("usage", "activity"):
        args = []
    elif method == "record_turn":
        names = {"provider": session.provider, "model": session.model, "owner": session.external_id}
        args = [Turn(conversation_id=session.id, at=time.time(), outcome="hit", **names)]
    try:
        if method == "scan":
            return list(manager.all())
        if mode == "sync":
            return method_of(manager, method)(*args, **keywords)
        return run(_await(method_of(manager, ASYNC_PREFIX + method)(*args, **keywords)))
    except SessionError as exc:
        return exc


async def _await(call: Any) -> Any:
    return await call
