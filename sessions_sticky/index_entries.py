"""Keeping the index entries of sessions up to date: the requests to the store."""

from __future__ import annotations

import time

from sessions_sticky.conf import conf
from sessions_sticky.connections.commands import Send
from sessions_sticky.exceptions import SessionStoreUnavailable
from sessions_sticky.session import Session
from sessions_sticky.stores import index
from sessions_sticky.stores.base import Store


class IndexEntries:
    """The index entries of one store, of sessions with one idle time; does nothing for a store without an index."""

    def __init__(self, store: Store, send: Send, ttl_seconds: int) -> None:
        self._store = store
        self._send = send
        self._ttl_seconds = ttl_seconds

    def mark(self, session: Session) -> None:
        """Note that the entries of a session are up to date."""
        if self._store.has_index:
            self._store.refresh_tracker.mark(session.id, time.monotonic())

    async def replace(self, former: Session, session: Session) -> None:
        """Remove the entries of a session that was overwritten by another one, unless both have the same."""
        if conf.index and self._store.has_index and index.zsets(former) != index.zsets(session):
            await self._refresh(session, session.to_json(), former)

    async def refresh_when_due(self, session: Session, raw: bytes | None, before: Session | None = None) -> None:
        """Update the entries of a session that was used, unless this process has done so in the last minute.

        `raw` differs from `session` if another process has just bound and indexed it. The entries of `before`, an
        earlier session of the conversation, are removed.
        """
        is_kept = self._store.has_index and (conf.index or conf.history_length)  # its history must live as long
        if is_kept and self._store.refresh_tracker.needs_refresh(session.id, time.monotonic()):
            self.mark(session)
            await self._refresh(session, raw or b"", before)

    async def _refresh(self, session: Session, raw: bytes, before: Session | None) -> None:
        """Update the entries; log a failure, because the session is bound."""
        try:
            ttl = self._ttl_seconds
            await self._send(index.refresh(session, ttl * 1000, ttl, raw=raw, before=before))
        except SessionStoreUnavailable as exc:
            self._store.outages.log(exc, "index not refreshed: %s", exc)
