"""Restoring the sessions that the store lost, before the next turns of their conversations."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from threading import Thread
from typing import Any

from django.db import connections

from sessions_sticky import keys, metrics
from sessions_sticky.connections.commands import Batch, Command, Send
from sessions_sticky.exceptions import SessionStoreUnavailable
from sessions_sticky.signals import session_created
from sessions_sticky.stores.base import Store, restorable_from
from sessions_sticky.stores.history import RESTORED
from sessions_sticky.stores.local_cache import Seen

logger = logging.getLogger("sessions_sticky")

RESTORER = "restore sessions"
"""Name of the thread."""
RECENT_SECONDS = 3600
"""Sessions last seen earlier wait for their next turn: others may have moved or deleted them since.

The store has lost the markers of deletions as well.
"""
BATCH_SIZE = 50
PAUSE_SECONDS = 0.02
"""Pause between batches: all processes restore at the same time, and chats must not wait."""

SendSignal = Callable[..., None]


def is_check_due(store: Store, now: float, *, is_missing: bool) -> bool:
    """Return whether to check for lost writes now: once a second, or when a session `is_missing`.

    False for caches other than Redis, and while a thread restores.
    """
    detector = store.loss_detector
    if is_missing:
        detector.hurry()
    return store.has_index and not detector.is_restoring and detector.is_due(now)


async def restore_when_lost(store: Store, send: Send, send_signal: SendSignal) -> None:
    """Check whether Redis lost writes; if so, start a thread, which sends signals with `send_signal`."""
    detector = store.loss_detector
    written, expected = detector.next_number()
    mark = Command[bytes | None](("SET", detector.key, written, "EX", RECENT_SECONDS, "GET"))
    try:
        found = await send(mark)
    except SessionStoreUnavailable as exc:
        store.outages.log(exc, "not checked whether sessions are lost: %s", exc)
        return
    if detector.has_lost(written, expected, found):
        detector.restorer = Thread(target=restore, args=(store, send_signal), name=RESTORER, daemon=True)
        try:
            detector.restorer.start()
        except RuntimeError as exc:  # the process has too many threads, or ends
            logger.warning("lost sessions wait for their next turns: %s", exc)


def restore(store: Store, send_signal: SendSignal) -> None:
    """Bind the sessions again that this process saw in the last hour and the store lost, latest first."""
    seen = store.last_seen.stored_since(time.monotonic() - RECENT_SECONDS)
    number = 0
    try:
        for at in range(0, len(seen), BATCH_SIZE):
            number += _restore(store, send_signal, seen[at : at + BATCH_SIZE])
            time.sleep(PAUSE_SECONDS)
    except SessionStoreUnavailable as exc:
        store.outages.log(exc, "not all lost sessions restored: %s", exc)
    finally:
        connections.close_all()  # receivers of signals may have used the database
        if number:
            logger.warning("the store lost sessions: restored %d of %d seen in the last hour", number, len(seen))


def _restore(store: Store, send_signal: SendSignal, seen: Sequence[Seen]) -> int:
    """Bind the missing ones of some sessions for the idle time that they had left; return their number."""
    send = store.operators.send
    found = send(Batch([Command(("GET", keys.session(each.session.id))) for each in seen]))
    missing = [each for each, raw in zip(seen, found, strict=True) if raw is None]
    if not missing:
        return 0
    # Afterwards: on a Cluster they are elsewhere, and a deletion writes its marker before it removes the session.
    markers = send(Batch([Command(("GET", keys.deleted(each.session.id))) for each in missing]))
    now = time.monotonic()
    lost = [
        (session, int(expires_at - now))
        for (session, _, expires_at, _), marker in zip(missing, markers, strict=True)
        if session.created_at > restorable_from(marker) and expires_at - now >= 1
    ]
    actor = metrics.GATEWAY
    binds: list[Any] = [store.bind(session, None, left, reason=RESTORED, actor=actor) for session, left in lost]
    replies = send(Batch(binds)) if binds else []
    restored = [session for (session, _), current in zip(lost, replies, strict=True) if current is None]
    metrics.restored(len(restored))
    for session in restored:
        send_signal(session_created, session=session, actor=actor)
    return len(restored)
