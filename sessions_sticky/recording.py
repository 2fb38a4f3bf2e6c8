"""Recording turns and moves: the requests to the store, the metrics and the log."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from sessions_sticky import metrics
from sessions_sticky.conf import conf
from sessions_sticky.connections.commands import Batch, Send
from sessions_sticky.exceptions import SessionStoreUnavailable
from sessions_sticky.session import Session
from sessions_sticky.stores import usage
from sessions_sticky.stores.base import Store
from sessions_sticky.stores.trail import Recorded, record_command
from sessions_sticky.stores.usage import UsageSums, add_up, move_sums
from sessions_sticky.turns import Turn, check_turn

logger = logging.getLogger("sessions_sticky")


async def record_turns(store: Store, send: Send, turns: Sequence[Turn], ttl_seconds: int) -> list[Recorded]:
    """Add turns to the trails, then the replies of the trails to the sums and metrics."""
    turns = [check_turn(turn) for turn in turns]
    recorded: list[Recorded] = [None] * len(turns)
    length = conf.trail_length if store.has_index else 0
    kept = {at: turn for at, turn in enumerate(turns) if turn.conversation_id is not None} if length else {}
    if kept:
        commands = [record_command(turn, str(turn.conversation_id), ttl_seconds, length) for turn in kept.values()]
        for at, reply in zip(kept, await send(Batch(commands)), strict=True):
            recorded[at] = reply and (reply[0], reply[1])
    sums = add_up((turn, reply or (0, 0)) for turn, reply in zip(turns, recorded, strict=True))
    try:
        await _add(store, send, sums)
    except SessionStoreUnavailable as exc:
        if not kept:
            raise
        logger.warning("usage of %d turns not added: %s", len(turns), exc)  # their trails have them
    first_bytes = [(each.provider, each.model, each.first_byte_ms) for each in turns if each.first_byte_ms is not None]
    metrics.used(sums.routes, first_bytes)
    return recorded


async def record_move(store: Store, send: Send, before: Session, after: Session, *, reason: str, actor: str) -> None:
    """Count and log a move; log a failure to count it, because the session is moved."""
    metrics.rebound(reason, actor, before.provider, after.provider)
    try:
        if actor != metrics.GATEWAY:  # the gateway's moves are counted with their turns
            await _add(store, send, move_sums(reason, actor, {(before.provider, after.provider): 1}))
    except SessionStoreUnavailable as exc:
        logger.warning("move not counted: %s", exc)
    logger.info(
        "rebound %r from %r, model %r, to %r, model %r: %r",
        *(before.id, before.provider, before.model, after.provider, after.model, reason),
        extra={"conversation_id": before.id},
    )


async def _add(store: Store, send: Send, sums: UsageSums) -> None:
    if store.has_index:
        await send(usage.add_commands(sums))
