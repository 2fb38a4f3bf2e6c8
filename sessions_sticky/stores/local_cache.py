"""The sessions that this process resolved last; performs no I/O."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

from sessions_sticky.session import Session


class LastSeen:
    """The most recently used sessions, at most `size` of them. Thread-safe.

    Times are `time.monotonic()` seconds, taken before the request to the store, so that a session never seems to expire
    later here than in the store.
    """

    def __init__(self) -> None:
        self._entries: OrderedDict[str, tuple[Session, float]] = OrderedDict()
        self._lock = Lock()

    def remember(self, session: Session, asked_at: float, size: int) -> None:
        """Store a session; drop the least recently seen beyond `size`."""
        with self._lock:
            self._entries[session.id] = (session, asked_at)
            self._entries.move_to_end(session.id)
            while len(self._entries) > size:
                self._entries.popitem(last=False)

    def correct(self, session: Session) -> None:
        """Replace the stored session of the conversation, if there is one."""
        with self._lock:
            if entry := self._entries.get(session.id):
                self._entries[session.id] = (session, entry[1])

    def recall(self, conversation_id: str, not_before: float) -> Session | None:
        """Return the session if it was seen at `not_before` or later, so that it cannot have expired."""
        session, asked_at = self._entries.get(conversation_id, (None, 0.0))
        return session if asked_at >= not_before else None

    def forget(self, conversation_id: str) -> None:
        """Drop a session if it is stored."""
        with self._lock:
            self._entries.pop(conversation_id, None)
