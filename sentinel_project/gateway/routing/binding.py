"""The session of a request's conversation: its manager and its binding."""

from __future__ import annotations

import logging
import time
from functools import lru_cache
from typing import Literal, NamedTuple, cast

from sentinel_project.gateway.conf import settings
from sentinel_project.gateway.errors import ApiError
from sentinel_project.gateway.routing.reasons import TAKEN_OVER
from sessions_sticky import (
    InvalidConversationId,
    Outcome,
    Session,
    SessionConflict,
    SessionManager,
    SessionNotSupported,
    SessionOwnerMismatch,
    SessionStoreUnavailable,
    UnknownProvider,
    sessions,
)
from sessions_sticky.identity import Identity, scoped

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
    if outcome is Outcome.CREATED and not identity.pins_model and identity.client_id is not None:
        session = await _take_over(session, identity.client_id)
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


async def _take_over(session: Session, client_id: str) -> Session:
    """Move a new binding to the provider that version 0.1 bound the client's id to, for the same owner and model.

    0.1 used the client's id, or the owner's scoped one, as the session's id. To be removed in 0.3.
    """
    scope = cast("Literal['shared', 'owner']", settings.SENTINEL_CONVERSATION_SCOPE)
    legacy_id = scoped(scope, session.external_id, client_id)
    try:
        legacy = await sessions.aget(legacy_id)
        if legacy is None or (legacy.external_id, legacy.model) != (session.external_id, session.model):
            return session
        if legacy.provider == session.provider:
            return session
        return await sessions.arebind(session, provider=legacy.provider, model=session.model, reason=TAKEN_OVER)
    except (
        InvalidConversationId,
        SessionConflict,
        SessionNotSupported,
        SessionStoreUnavailable,
        UnknownProvider,
    ) as exc:
        logger.info("conversation %r keeps provider %r: %s", session.id, session.provider, exc)
        return session
