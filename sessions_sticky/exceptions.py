"""All errors of the app, except `SessionConflict` (session.py); `SessionError` is their base class.

Messages never contain an owner (`external_id`), because they reach logs and other tenants.
The arguments are the attributes, so that errors can be pickled (Celery, multiprocessing).
"""

from __future__ import annotations


class SessionError(Exception):
    """Base class of all errors of sessions_sticky."""


class InvalidConversationId(SessionError, ValueError):
    """A conversation id is not a string, is empty or too long, or has control characters or lone surrogates."""


class InvalidSession(SessionError, ValueError):
    """Bytes cannot be decoded as a session, or a field does not fit the stored format."""


class UnknownProvider(InvalidSession):
    """A session was to be created on, or moved to, a provider that is not in `SESSIONS_STICKY["PROVIDERS"]`."""


class InvalidCursor(SessionError, ValueError):
    """A cursor was not issued by `page` or `search` for the same filters."""


class SessionNotSupported(SessionError):
    """The configured cache does not support this method; django-redis does."""


def _is_out_of_memory(exc: BaseException | None) -> bool:
    return type(exc).__name__ == "OutOfMemoryError"  # redis-py's; it is not imported for that


class SessionStoreUnavailable(SessionError):
    """The store is unavailable. It is unknown whether the session exists.

    The cause (`__cause__`) is the cache's own error.
    """

    @property
    def is_full(self) -> bool:
        """Whether the store answers but refuses writes, because its memory is full."""
        return _is_out_of_memory(self.__cause__)

    @classmethod
    def because(cls, exc: Exception) -> SessionStoreUnavailable:
        """Return the error for a cache's error, with its message but without secrets."""
        if _is_out_of_memory(exc):
            return cls("Redis is full (used memory > maxmemory) and refuses writes; nothing was changed")
        # For an unknown command (renamed, or behind a proxy) Redis repeats the arguments, which contain the owner.
        reason = str(exc).partition(", with args beginning with")[0]
        return cls(f"Session store unavailable: {type(exc).__name__}: {reason}".rstrip("."))


class SessionOwnerMismatch(SessionError):
    """The conversation belongs to another owner."""

    def __init__(self, conversation_id: str) -> None:
        super().__init__(conversation_id)
        self.conversation_id = conversation_id

    def __str__(self) -> str:
        return f"Conversation {self.conversation_id!r} belongs to another owner"
