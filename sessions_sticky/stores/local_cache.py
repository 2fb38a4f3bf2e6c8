"""What this process remembers of the sessions it has resolved; pure."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

from sessions_sticky.session import Session

_NOTHING = (None, 0.0, False)


class LastSeen:
    """The most recently used sessions, at most `size` of them. Safe between threads.

    Times are `time.monotonic()` seconds, taken before the store was asked: by then an expired session is never
    younger here than in the store.
    """

    def __init__(self) -> None:
        self._entries: OrderedDict[str, tuple[Session, float, bool]] = OrderedDict()
        self._lock = Lock()

    def remember(self, session: Session, asked_at: float, size: int, *, is_stored: bool = True) -> None:
        """Keep a session as last seen, forgetting the least recently seen beyond `size`.

        One that is not stored was only proposed while the store was down.
        """
        with self._lock:
            self._entries[session.id] = (session, asked_at, is_stored)
            self._entries.move_to_end(session.id)
            while len(self._entries) > size:
                self._entries.popitem(last=False)

    def correct(self, session: Session) -> None:
        """Put a session in the place of what is remembered of its conversation, if anything is."""
        with self._lock:
            if entry := self._entries.get(session.id):
                self._entries[session.id] = (session, *entry[1:])

    def recall(self, conversation_id: str, not_before: float) -> Session | None:
        """Return the session if the store had it at `not_before` or later, so that it cannot have expired since."""
        session, asked_at, is_stored = self._entries.get(conversation_id, _NOTHING)
        return session if is_stored and asked_at >= not_before else None

    def recall_proposal(self, conversation_id: str, external_id: str, not_before: float) -> Session | None:
        """Return what was only proposed for this owner at `not_before` or later."""
        session, asked_at, is_stored = self._entries.get(conversation_id, _NOTHING)
        is_owners = session is not None and session.external_id == external_id
        return session if is_owners and not is_stored and asked_at >= not_before else None

    def forget(self, conversation_id: str) -> None:
        """Drop a session, if it is there."""
        with self._lock:
            self._entries.pop(conversation_id, None)
