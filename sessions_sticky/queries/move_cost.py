"""What a move costs: the prompt tokens that caches hold of the sessions, and that the target would compute again."""

from __future__ import annotations

import time
from collections import Counter
from typing import NamedTuple

from sessions_sticky.connections.commands import Batch
from sessions_sticky.queries.bulk import Move
from sessions_sticky.queries.filters import Filters
from sessions_sticky.queries.pages import MAX_PAGE
from sessions_sticky.queries.reads import Reads
from sessions_sticky.stores.base import Store
from sessions_sticky.stores.trail import read_header_command, read_trail
from sessions_sticky.turns import MILLION, Trail


class MoveCost(NamedTuple):
    """An estimate from the trails of the most recently active sessions, of all of them if `is_complete`.

    `tokens` are those of `sessions` that are cached now at their provider and not at the target. `money` is what
    reading them from the cache would save, in units of the prices' currency; 0 without known prices.
    """

    sessions: int
    tokens: int
    money: float
    is_complete: bool


def move_cost(store: Store, ttl_seconds: int, filters: Filters, move: Move) -> MoveCost:
    """Estimate the cost of moving the matches of the filters."""
    page = Reads(store, ttl_seconds).page(filters, None, MAX_PAGE)
    bound = [entry.session for entry in page.entries]
    found = store.send(Batch([read_header_command(session.id) for session in bound])) if bound else []
    lost, saved, read = Counter[str](), Counter[str](), Counter[str]()
    number, now = 0, time.time()
    for session, elements in zip(bound, found, strict=True):
        trail, target = read_trail(elements or []), move.of(session)
        tokens = _warm(trail, session.provider, now)
        if target.provider != session.provider:
            tokens = max(0, tokens - _warm(trail, target.provider, now))
        elif target == session:
            tokens = 0
        number += tokens > 0
        lost[session.model] += tokens
        saved[session.model] += max(0, trail.totals.saved)
        read[session.model] += trail.totals.read
    money = sum(tokens * saved[model] / read[model] for model, tokens in lost.items() if read[model])
    return MoveCost(number, lost.total(), money / MILLION, page.next_cursor is None)


def _warm(trail: Trail, provider: str, now: float) -> int:
    cache = trail.caches.get(provider)
    return cache.tokens if cache and cache.expires_at > now else 0
