"""What this process remembers of sessions and of the store; performs no I/O."""

from __future__ import annotations

import logging
import os
import time
from collections import OrderedDict
from threading import Thread
from typing import NamedTuple
from uuid import uuid4

from sessions_sticky import keys
from sessions_sticky.exceptions import SessionStoreUnavailable
from sessions_sticky.locks import fork_safe_lock
from sessions_sticky.session import Session

logger = logging.getLogger("sessions_sticky")

WARN_SECONDS = 1.0
CHECK_SECONDS = 1.0
"""How often a process that resolves checks whether the store has lost something."""


_lock = fork_safe_lock()
"""Protects the entries of all `LastSeen`s."""


class Seen(NamedTuple):
    """A session, when it was last seen, and until when the store has it at least; see `LastSeen`."""

    session: Session
    at: float
    expires_at: float
    is_stored: bool


class LastSeen:
    """The most recently used sessions, at most `size` of them. Thread-safe.

    Times are `time.monotonic()` seconds, taken before the request to the store, so that a session never seems to expire
    later here than in the store.
    """

    def __init__(self) -> None:
        self._entries: OrderedDict[str, Seen] = OrderedDict()

    def remember(self, session: Session, asked_at: float, ttl: int, size: int, *, is_stored: bool = True) -> None:
        """Store a session that expires after `ttl` seconds; drop the least recently seen beyond `size`.

        A session that is not `is_stored` was only proposed while the store was down.
        """
        with _lock:
            self._entries[session.id] = Seen(session, asked_at, asked_at + ttl, is_stored)
            self._entries.move_to_end(session.id)
            while len(self._entries) > size:
                self._entries.popitem(last=False)

    def correct(self, session: Session) -> None:
        """Replace the remembered session of the conversation, if there is one."""
        with _lock:
            if entry := self._entries.get(session.id):
                self._entries[session.id] = entry._replace(session=session)

    def recall(self, conversation_id: str, now: float) -> Session | None:
        """Return the session if the store had it and it cannot have expired."""
        entry = self._entries.get(conversation_id)
        return entry.session if entry and entry.is_stored and now <= entry.expires_at else None

    def recall_proposal(self, conversation_id: str, owner: str, now: float) -> Session | None:
        """Return an unstored proposal for this owner that is not older than an idle time."""
        entry = self._entries.get(conversation_id)
        if entry is None or entry.is_stored or entry.session.external_id != owner or now > entry.expires_at:
            return None
        return entry.session

    def stored_since(self, then: float) -> list[Seen]:
        """Return the sessions that the store had and that were seen since `then`, latest first."""
        with _lock:
            return [entry for entry in reversed(self._entries.values()) if entry.is_stored and entry.at >= then]

    def forget(self, conversation_id: str) -> None:
        """Forget the session of a conversation, if there is one."""
        with _lock:
            self._entries.pop(conversation_id, None)


class LossDetector:
    """Notices that the store lost writes: by a restart, a failover or FLUSHALL.

    A process writes numbers in ascending order under a key of its own. A store that returns an earlier number, or none,
    has lost what was written later.
    """

    def __init__(self) -> None:
        self.restorer: Thread | None = None
        self._name, self._pid = uuid4().hex, os.getpid()
        self._number = 0
        self._stored = -1
        self._due_at = 0.0

    @property
    def key(self) -> str:
        """The key of the number; a forked process has another one."""
        return keys.process(f"{self._name}-{os.getpid()}")

    @property
    def is_restoring(self) -> bool:
        """Whether a thread restores sessions: the next loss is noticed after it. A fork has no such thread."""
        return self.restorer is not None and self.restorer.is_alive()

    def is_due(self, now: float) -> bool:
        """Return whether to write and compare the next number now, at most once every `CHECK_SECONDS`."""
        if now < self._due_at:
            return False
        self._due_at = now + CHECK_SECONDS
        return True

    def hurry(self) -> None:
        """Let the next check be due: a session is missing."""
        self._due_at = 0.0

    def next_number(self) -> tuple[int, int]:
        """Return the number to write, and the last one that the store has confirmed; -1 for none."""
        if self._pid != os.getpid():  # forked: its key is new, nothing is lost
            self._pid, self._stored = os.getpid(), -1
        self._number += 1
        return self._number, self._stored

    def has_lost(self, written: int, expected: int, found: bytes | None) -> bool:
        """Return whether a store that has replaced `found` by `written` lost the number `expected`."""
        self._stored = max(self._stored, written)
        return (int(found) if found and found.isdigit() else -1) < expected


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
