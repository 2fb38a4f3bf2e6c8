"""The errors of the app; catch `SessionError` to catch them all. `SessionConflict` is in session.py.

Messages never contain an owner (`external_id`): they end up in logs and in answers to other tenants.
Arguments are the attributes, so that every error survives pickling (Celery, multiprocessing).
"""

from __future__ import annotations


class SessionError(Exception):
    """Root of all errors of sessions_sticky."""


class InvalidConversationId(SessionError, ValueError):
    """A conversation id is empty, too long, not a string, or holds control characters or lone surrogates."""


class InvalidSession(SessionError, ValueError):
    """Bytes are not a session, or a session's fields do not fit the wire format."""


class InvalidCursor(SessionError, ValueError):
    """A cursor is none that `page` gave for the same filters."""


class SessionNotSupported(SessionError):
    """The configured cache cannot keep this promise; django-redis can."""


class SessionStoreUnavailable(SessionError):
    """The store did not answer, or refused; says nothing about whether a session exists.

    The cause (`__cause__`) is the cache's own error.
    """

    @classmethod
    def because(cls, exc: Exception) -> SessionStoreUnavailable:
        """Return the error for a cache's own one, whose words it repeats but for what may be secret."""
        # Redis repeats the arguments, which hold the owner, of a command that it does not know (renamed, or a proxy's).
        reason = str(exc).partition(", with args beginning with")[0]
        return cls(f"The session store did not answer: {type(exc).__name__}: {reason}")


class SessionOwnerMismatch(SessionError):
    """The conversation belongs to another owner."""

    def __init__(self, conversation_id: str) -> None:
        super().__init__(conversation_id)
        self.conversation_id = conversation_id

    def __str__(self) -> str:
        return f"Conversation {self.conversation_id!r} belongs to another owner"
