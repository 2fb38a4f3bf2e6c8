"""What this process remembers of sessions and of the store; performs no I/O."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from threading import Lock

from sessions_sticky.exceptions import SessionStoreUnavailable
from sessions_sticky.session import Session

logger = logging.getLogger("sessions_sticky")

WARN_SECONDS = 1.0
_NOTHING = (None, 0.0, False)


class LastSeen:
    """The most recently used sessions, at most `size` of them. Thread-safe.

    Times are `time.monotonic()` seconds, taken before the request to the store, so that a session never seems to expire
    later here than in the store.
    """

    def __init__(self) -> None:
        self._entries: OrderedDict[str, tuple[Session, float, bool]] = OrderedDict()
        self._lock = Lock()

    def remember(self, session: Session, asked_at: float, size: int, *, is_stored: bool = True) -> None:
        """Store a session; drop the least recently seen beyond `size`.

        A session that is not `is_stored` was only proposed while the store was down.
        """
        with self._lock:
            self._entries[session.id] = (session, asked_at, is_stored)
            self._entries.move_to_end(session.id)
            while len(self._entries) > size:
                self._entries.popitem(last=False)

    def correct(self, session: Session) -> None:
        """Replace the remembered session of the conversation, if there is one."""
        with self._lock:
            if entry := self._entries.get(session.id):
                self._entries[session.id] = (session, *entry[1:])

    def recall(self, conversation_id: str, not_before: float) -> Session | None:
        """Return the session if the store had it at `not_before` or later, so that it cannot have expired."""
        session, asked_at, is_stored = self._entries.get(conversation_id, _NOTHING)
        return session if is_stored and asked_at >= not_before else None

    def recall_proposal(self, conversation_id: str, owner: str, not_before: float) -> Session | None:
        """Return an unstored proposal for this owner from `not_before` or later."""
        session, asked_at, is_stored = self._entries.get(conversation_id, _NOTHING)
        is_owners = session is not None and session.external_id == owner
        return session if is_owners and not is_stored and asked_at >= not_before else None

    def forget(self, conversation_id: str) -> None:
        """Forget the session of a conversation, if there is one."""
        with self._lock:
            self._entries.pop(conversation_id, None)


class OutageLog:
    """Logs failures of the store: each kind of error as a warning once a second, otherwise for debugging."""

    def __init__(self) -> None:
        self._next_warning_at: dict[type, float] = {}

    def log(self, exc: SessionStoreUnavailable, message: str, *args: object, **extra: object) -> None:
        """Log a failure.

        No cause means that the circuit breaker rejected the call: the failure that opened it was already logged.
        """
        kind, now = type(exc.__cause__), time.monotonic()
        if exc.__cause__ is None or now < self._next_warning_at.get(kind, now):
            logger.debug(message, *args, extra=extra)
        else:
            self._next_warning_at[kind] = now + WARN_SECONDS
            logger.warning(message, *args, extra=extra)
