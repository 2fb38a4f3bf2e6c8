"""One session exactly as it is stored, and released only as it was seen."""

from __future__ import annotations

from typing import Any

from sessions_sticky import keys
from sessions_sticky.exceptions import SessionConflict
from sessions_sticky.manager import SessionManager, sessions
from sessions_sticky.policy import Operation, announce, readable
from sessions_sticky.session import Session
from sessions_sticky.signals import session_deleted
from sessions_sticky.stores.base import Store


def stored(conversation_id: str, manager: SessionManager = sessions) -> bytes | None:
    """Return the stored value as it is, readable or not; None when there is none. Raises as `SessionManager.get`."""
    return manager._run(_stored(manager._store, conversation_id))


def release(session: Session, manager: SessionManager = sessions) -> None:
    """Unbind a conversation if it still is bound as in `session`.

    Compare-and-set, as `SessionManager.rebind`; on a portable cache as far as it can. Raises `SessionConflict` with the
    current binding when it has moved or is gone.
    """
    manager._run(_release(manager._store, session, manager.ttl_seconds, manager._actor))


def _stored(store: Store[Any], conversation_id: str) -> Operation[bytes | None]:
    keys.check(conversation_id)
    raw: bytes | None = yield store.read(keys.session(conversation_id))
    return raw


def _release(store: Store[Any], session: Session, ttl_seconds: int, actor: str) -> Operation[None]:
    raw = yield from _stored(store, session.id)
    while True:
        current = readable(session.id, raw)
        if raw is None or current != session:
            raise SessionConflict(session.id, current)
        done, found = yield store.remove(session.id, session, raw, ttl_seconds, actor=actor)
        if done:
            break
        raw = found
    store.last_seen.forget(session.id)
    yield from announce(session_deleted, conversation_id=session.id, session=session, actor=actor)
