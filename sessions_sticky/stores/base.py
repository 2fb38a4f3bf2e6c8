"""What a store must do.

A store makes *requests* (data) and sends them, blocking (`send`) or on the event loop (`asend`); policy.py decides what
to ask and what a reply means. Values are the wire format's bytes. Every store error is raised as
`SessionStoreUnavailable`: a store never reports "missing" when it does not know.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any, Protocol

from sessions_sticky.connections.commands import ReplyT, Request
from sessions_sticky.session import Session
from sessions_sticky.stores.index import RefreshTracker
from sessions_sticky.stores.local_cache import LastSeen
from sessions_sticky.stores.trail import Recorded
from sessions_sticky.stores.usage import UsageSums
from sessions_sticky.turns import Trail, Turn

NO_KEY = -2
"""The reply to `expiry` for a key that does not exist; Redis's PTTL."""

Replaced = tuple[int, bytes | None]
"""Whether a compare-and-set was done (1 or 0), and the value it found."""


def deletion_time(session: Session | None) -> int:
    """Return what the marker of a deleted session holds: `created_at`, or the time where it is not known."""
    return int(time.time()) if session is None else session.created_at


def restorable_from(marker: Any) -> float:
    """Return the `created_at` above which a binding may be restored in spite of a marker; None is no marker."""
    if marker is None:
        return -math.inf
    try:
        latest = int(marker)
    except (ValueError, TypeError):
        return math.inf
    return latest if latest > 1 else math.inf  # other programs, and 0.1, write 1: no binding may


class Store(Protocol):
    """Where sessions are kept.

    Keys are whole keys, `ttl` is in whole seconds, `actor` and `reason` are for the history. On Redis a change of a
    session, its history and its index are one atomic step; other caches keep neither history nor index.
    """

    last_seen: LastSeen
    next_warning_at: dict[type, float]
    """When this process may next warn of a kind of error, in `time.monotonic()` seconds."""

    @property
    def refresh_tracker(self) -> RefreshTracker | None:
        """When this process refreshed index entries; None where there is no index."""

    @property
    def operators(self) -> Store:
        """The same store for operators: they wait longer for replies, and chats go on when theirs do not come."""

    def read(self, key: str) -> Request[bytes | None]:
        """Read the value, None when there is none."""

    def read_and_touch(self, key: str, ttl: int) -> Request[bytes | None]:
        """Read the value and set its expiry to `ttl`; None when there is none."""

    def bind(
        self, session: Session, unreadable: bytes | None, ttl: int, *, reason: str, actor: str
    ) -> Request[bytes | None]:
        """Store `session` where there is nothing, or the value `unreadable`: None; else reply the value found.

        Of several callers one succeeds.
        """

    def put(self, session: Session, ttl: int, *, actor: str) -> Request[bytes | None]:
        """Store `session`; reply the value that was there, None when there was none or it is not known."""

    def replace(
        self, before: Session, raw: bytes, after: Session, ttl: int, *, reason: str, actor: str
    ) -> Request[Replaced]:
        """Replace the value `raw`, which is `before`, by `after`; keep the expiry."""

    def remove(
        self, conversation_id: str, before: Session | None, raw: bytes, ttl: int, *, actor: str
    ) -> Request[Replaced]:
        """Remove the value `raw`, which is `before` or unreadable, and mark the session as deleted."""

    def mark_deleted(self, conversation_id: str, ttl: int) -> Request[Any]:
        """Mark a session as deleted, not lost; there was none, or none that is known."""

    def expiry(self, key: str) -> Request[int | None]:
        """Milliseconds until the key expires, `NO_KEY`; another negative number or None: not known."""

    def record_turns(self, turns: Sequence[Turn], ttl: int, length: int) -> Request[list[Recorded]]:
        """Add turns with a conversation id to the trails of their sessions, in order; `length` is kept of each."""

    def add_usage(self, sums: UsageSums) -> Request[Any] | None:
        """Add sums to those of this minute and hour; None where the store keeps none."""

    def read_trail(self, conversation_id: str) -> Request[Any]:
        """Read a session's trail, for `decode_trail`."""

    def decode_trail(self, reply: Any) -> Trail:
        """Return the trail in a reply to `read_trail`."""

    def send(self, request: Request[ReplyT]) -> ReplyT:
        """Send and wait."""

    async def asend(self, request: Request[ReplyT]) -> ReplyT:
        """Send without blocking the event loop."""
