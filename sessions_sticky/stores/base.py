"""The interface of a store.

A store builds *requests* (data) and sends them with blocking calls (`send`) or on the event loop (`asend`); policy.py
chooses the requests and interprets the replies. Values are the stored bytes. Every store error is raised as
`SessionStoreUnavailable`: a store never reports an unknown session as missing.
"""

from __future__ import annotations

import math
import time
from typing import Any, Protocol

from sessions_sticky.connections.commands import ReplyT, Request
from sessions_sticky.exceptions import SessionNotSupported
from sessions_sticky.session import Session
from sessions_sticky.stores.index import RefreshTracker
from sessions_sticky.stores.local_cache import LastSeen, LossDetector, OutageLog

NO_KEY = -2
"""The reply to `expiry` for a key that does not exist; Redis's PTTL."""

Replaced = tuple[int, bytes | None]
"""Whether a compare-and-set succeeded (1 or 0), and, if it did not, the value found."""


def deletion_time(session: Session | None) -> int:
    """Return the value of the marker of a deleted session: its `created_at`, or the current time if unknown."""
    return int(time.time()) if session is None else session.created_at


def restorable_from(marker: Any) -> float:
    """Return the `created_at` above which a binding may be restored; -inf without a marker: nothing was deleted."""
    if marker is None:
        return -math.inf
    try:
        latest = int(marker)
    except (ValueError, TypeError):
        return math.inf
    return latest if latest > 1 else math.inf  # other programs, and 0.1, write 1: no binding may


def require_index(store: Store, task: str) -> None:
    """Raise `SessionNotSupported` for a store without an index; `task` is what it cannot do."""
    if not store.has_index:
        raise SessionNotSupported(f"This cache cannot {task}; django-redis can")


class Store(Protocol):
    """A store of sessions. One object serves all threads and event loops of a process.

    Keys are complete keys, `ttl` is in whole seconds, `actor` and `reason` are recorded in the history. Expired values
    count as absent. A trail belongs to one binding: `bind`, `put` and `remove` delete it, `replace` keeps it. `send`
    and `asend` should fail fast after a failure (breaker.py), or every chat waits for the timeout.

    On one Redis a session, its trail, its marker, its history and its index change atomically; on a Cluster in steps,
    see cluster_steps.py. Other caches have no history, no index and no trails; portable.py lists what else they lack.
    """

    last_seen: LastSeen
    loss_detector: LossDetector
    outages: OutageLog
    refresh_tracker: RefreshTracker

    @property
    def has_index(self) -> bool:
        """Whether the store runs Redis commands, so that others may send those of index, history, trails and usage."""

    @property
    def operators(self) -> Store:
        """The same store for operators, with longer timeouts that do not affect chats."""

    def read(self, key: str) -> Request[bytes | None]:
        """Read the value; None if there is none."""

    def read_and_touch(self, key: str, ttl: int) -> Request[bytes | None]:
        """Read the value and set its expiry to `ttl`; None if there is none."""

    def bind(
        self, session: Session, unreadable: bytes | None, ttl: int, *, reason: str, actor: str
    ) -> Request[bytes | None]:
        """Store `session` if there is no value, or the value `unreadable`; reply None, or the value found.

        The expiry becomes `ttl`. Of concurrent callers one succeeds.
        """

    def put(self, session: Session, ttl: int, *, actor: str) -> Request[bytes | None]:
        """Store `session`; reply the previous value, None if there was none or it is unknown."""

    def replace(
        self, before: Session, raw: bytes, after: Session, ttl: int, *, reason: str, actor: str
    ) -> Request[Replaced]:
        """Replace the value `raw` (decoded: `before`) by `after`; keep the expiry, but at most `ttl`.

        Atomic: a store without compare-and-set raises `SessionNotSupported` instead of returning a request.
        """

    def remove(
        self, conversation_id: str, before: Session | None, raw: bytes, ttl: int, *, actor: str
    ) -> Request[Replaced]:
        """Remove the value `raw` (decoded: `before`, if readable), and mark the session as deleted for `ttl`.

        The marker comes first or in the same step, or another process could restore the session in between. Without
        compare-and-set any value is removed.
        """

    def mark_deleted(self, conversation_id: str, ttl: int) -> Request[Any]:
        """Mark a session as deleted, not lost; there was none, or none that is known. Never lowers a marker."""

    def expiry(self, key: str) -> Request[int | None]:
        """Milliseconds until the key expires, or `NO_KEY`; another negative number or None: unknown."""

    def send(self, request: Request[ReplyT]) -> ReplyT:
        """Send with blocking calls."""

    async def asend(self, request: Request[ReplyT]) -> ReplyT:
        """Send without blocking the event loop."""
