"""One call of each public method of `SessionManager`, for experiments with all of them."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

from sessions_sticky import SessionError, SessionManager

if TYPE_CHECKING:
    from sessions_sticky import Session

BOUND = {"provider": "openai", "model": "gpt-4", "external_id": "user-456"}
OTHER = {"provider": "anthropic", "model": "claude", "external_id": "user-456"}
MOVE = {"provider": "mistral", "model": "large", "reason": "an experiment"}

ASYNC_PREFIX = "a"
NO_REQUEST = {"acting_as"}
"""Methods that send nothing."""
NO_ASYNC = {"scan"}
"""Methods without an async form."""
BY_SESSION: dict[str, dict[str, Any]] = {
    "get": {},
    "inspect": {},
    "create": OTHER,
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
METHODS = (*BY_SESSION, *BY_STORE)
CHANGING = {"create", "touch", "resolve", "rebind", "delete", "delete_unchanged", "delete_all", "rebind_all", "reindex"}
MODES = ("sync", "async")


def unlisted() -> set[str]:
    """Return the public methods that this module lacks, and those that only it has."""
    public = {name for name, _ in inspect.getmembers(SessionManager, inspect.isfunction) if not name.startswith("_")}
    return public ^ ({*METHODS} | {ASYNC_PREFIX + name for name in {*METHODS} - NO_ASYNC} | NO_REQUEST)


def invoke(manager: SessionManager, mode: str, method: str, session: Session) -> Any:
    """Call a method, or its twin, on a session; return what it returns, or the error of the app that it raises."""
    keywords = BY_SESSION[method] if method in BY_SESSION else BY_STORE[method]
    args = [] if method in BY_STORE else [session if method in ("rebind", "delete_unchanged") else session.id]
    try:
        if method == "scan":
            return list(manager.scan(**keywords))
        if mode == "sync":
            return getattr(manager, method)(*args, **keywords)
        return asyncio.run(_await(getattr(manager, ASYNC_PREFIX + method)(*args, **keywords)))
    except SessionError as exc:
        return exc


async def _await(call: Any) -> Any:
    return await call
