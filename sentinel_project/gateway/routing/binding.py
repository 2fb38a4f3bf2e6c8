"""The session of a request's conversation: its manager and its binding."""

from __future__ import annotations

import logging
import time
from functools import lru_cache
from typing import NamedTuple

from sentinel_project.gateway.conf import settings
from sentinel_project.gateway.errors import ApiError
from sessions_sticky import (
    Outcome,
    Session,
    SessionManager,
    SessionOwnerMismatch,
    SessionStoreUnavailable,
    sessions,
)
from sessions_sticky.identity import Identity

logger = logging.getLogger(__name__)

HOLD_SECONDS = 300
"""How long a first request is bound to a provider other than the ranking's first: as long as a prompt cache lives."""

_manager = lru_cache(maxsize=8)(lambda ttl_seconds: SessionManager(ttl_seconds=ttl_seconds))


def manager_for(identity: Identity) -> SessionManager:
    """Return the manager with the idle time of the conversation's kind.

    A conversation that is recognized by its content has a shorter one: its client cannot say when it is over.
    """
    if identity.source == "content":
        return _manager(settings.SENTINEL_CONTENT_TTL_SECONDS)
    return sessions


class Bound(NamedTuple):
    """A conversation's binding. `is_new`: this request created it (a restored one is not new)."""

    session: Session
    outcome: str
    is_new: bool


async def resolve(identity: Identity, *, provider: str, model: str, owner: str) -> Bound | None:
    """Return the conversation's binding; the proposed one when it has none.

    None: an observed id that another owner's session holds, which only another program can have written; the request
    is served unbound. Raises `ApiError` 403 for a named id that another owner's session holds.
    """
    manager, session_id = manager_for(identity), str(identity.session_id)
    began = int(time.time())
    try:
        session, outcome = await manager.aresolve(session_id, provider=provider, model=model, owner=owner)
    except SessionOwnerMismatch as exc:
        if not identity.pins_model:
            logger.warning("conversation %r belongs to another owner: served unbound", session_id)
            return None
        headers = {"x-should-retry": "false"}
        message, code = "The conversation belongs to another owner", "conversation_owner_mismatch"
        raise ApiError(403, message, code=code, headers=headers) from exc
    return Bound(session, str(outcome), outcome is Outcome.CREATED and session.created_at >= began)


async def find(identity: Identity, *, owner: str) -> Session | None:
    """Return the binding; None if there is none, another owner has it, or the store is unavailable."""
    if identity.session_id is None:
        return None
    try:
        session = await manager_for(identity).aget(identity.session_id)
    except SessionStoreUnavailable:
        return None
    return session if session is not None and session.external_id == owner else None


async def hold(identity: Identity, *, provider: str, model: str, owner: str) -> None:
    """Bind a conversation's first request to a provider temporarily, if the store is available."""
    manager = _manager(min(HOLD_SECONDS, settings.SENTINEL_CONTENT_TTL_SECONDS))
    try:
        await manager.aresolve(str(identity.session_id), provider=provider, model=model, owner=owner)
    except (SessionOwnerMismatch, SessionStoreUnavailable) as exc:
        logger.info("conversation %r was not bound to %r: %s", identity.session_id, provider, exc)
