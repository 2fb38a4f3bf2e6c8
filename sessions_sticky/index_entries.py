"""Keeping the index entries of sessions up to date; does nothing for a store without an index."""

from __future__ import annotations

import time

from sessions_sticky.conf import conf
from sessions_sticky.connections.commands import Send
from sessions_sticky.exceptions import SessionStoreUnavailable
from sessions_sticky.session import Session
from sessions_sticky.stores import index
from sessions_sticky.stores.base import Store


def mark(store: Store, session: Session) -> None:
    """Note that the entries of a session are up to date."""
    if store.has_index:
        store.refresh_tracker.mark(session.id, time.monotonic())


async def replace(store: Store, send: Send, ttl_seconds: int, former: Session, session: Session) -> None:
    """Remove the entries of a session that was overwritten by another one, unless both have the same."""
    if conf.index and store.has_index and index.zsets(former) != index.zsets(session):
        await _refresh(store, send, ttl_seconds, session, raw=session.to_json(), before=former)


def is_due(store: Store, session: Session) -> bool:
    """Return whether to `refresh` a session that was used: this process has not done so in the last minute."""
    is_kept = store.has_index and (conf.index or conf.history_length)  # its history must live as long
    return bool(is_kept) and store.refresh_tracker.needs_refresh(session.id, time.monotonic())


async def refresh(
    store: Store, send: Send, ttl_seconds: int, session: Session, *, raw: bytes | None, before: Session | None = None
) -> None:
    """Update the entries of a session that was used.

    `raw` differs from `session` if another process has just bound and indexed it. The entries of `before`, an
    earlier session of the conversation, are removed.
    """
    mark(store, session)
    await _refresh(store, send, ttl_seconds, session, raw=raw or b"", before=before)


async def _refresh(
    store: Store, send: Send, ttl_seconds: int, session: Session, *, raw: bytes, before: Session | None
) -> None:
    """Update the entries; log a failure, because the session is bound."""
    try:
        await send(index.refresh(session, ttl_seconds * 1000, ttl_seconds, raw=raw, before=before))
    except SessionStoreUnavailable as exc:
        store.outages.log(exc, "index not refreshed: %s", exc)
