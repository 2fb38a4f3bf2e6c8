"""Delete and move many sessions, each by compare-and-set.

Sessions are changed in batches without state between them: an interrupted change has changed complete sessions only,
and repeating it continues with the rest.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from sessions_sticky import metrics
from sessions_sticky.conf import check_target, conf, is_target
from sessions_sticky.connections.commands import Batch
from sessions_sticky.exceptions import InvalidSession, SessionStoreUnavailable
from sessions_sticky.queries.filters import Filters
from sessions_sticky.queries.index_reader import IndexReader, Progress, Row
from sessions_sticky.queries.reads import Reads
from sessions_sticky.session import Session, check_names, plain_text
from sessions_sticky.signals import session_deleted, session_rebound
from sessions_sticky.stores.base import Store
from sessions_sticky.stores.history import Event, bulk_event
from sessions_sticky.stores.usage import add_commands, move_sums
from sessions_sticky.turns import DEFAULT_CACHE_SECONDS

logger = logging.getLogger("sessions_sticky")

MAX_PASSES = 10
"""Maximum number of passes: another process may be moving sessions back."""

COLD_SECONDS = DEFAULT_CACHE_SECONDS
"""Sessions idle for at least this long probably have no warm prompt cache, and are moved first."""


class Move(NamedTuple):
    """The target of a move and its reason; `model` None keeps the model of each session.

    `provider` None moves each session back: to the provider and model that its last move came from.
    """

    provider: str | None
    model: str | None
    reason: str

    @property
    def is_back(self) -> bool:
        """Whether it moves sessions back."""
        return self.provider is None

    def of(self, session: Session, last: Event | None = None) -> Session:
        """Return the session after the move; unchanged if there is nowhere to move it back to. `last` is its move."""
        provider, model = self.provider, self.model
        if provider is None:
            is_known = last is not None and last.from_provider is not None and is_target(last.from_provider)
            provider, model = (last.from_provider, last.from_model) if last and is_known else (None, None)
        provider = session.provider if provider is None else provider
        model = session.model if model is None else model
        return Session(session.id, provider, model, session.external_id, session.created_at)

    def plain(self) -> Move:
        """Return the move in plain text; see `plain_text`."""
        provider = None if self.provider is None else plain_text(self.provider)
        model = None if self.model is None else plain_text(self.model)
        return Move(provider, model, plain_text(self.reason))

    def check(self) -> None:
        """Raise `InvalidSession` for a blank name or reason, and for values that cannot be stored."""
        check_names(reason=self.reason)
        if self.provider is not None:
            check_names(to_provider=self.provider)
            check_target(self.provider)
        elif self.model is not None:
            raise InvalidSession("A move back takes no model: each session gets the one that it had")
        if self.model is not None:
            check_names(to_model=self.model)
        Session("", self.provider or "", self.model or "", self.reason, 0).to_json()


class Recorded(NamedTuple):
    """How bulk changes are recorded: a key that counts them, and the key of their operation."""

    counter: str = ""
    operation: str = ""


@dataclass
class Bulk:
    """Bulk changes in one store; `actor` is their author in the history."""

    store: Store
    ttl_seconds: int
    actor: str
    send_signal: Callable[..., object]
    recorded: Recorded = Recorded()  # noqa: RUF009  # immutable

    def __post_init__(self) -> None:
        self._reader = IndexReader(self.store, self.ttl_seconds)

    def delete_all(self, filters: Filters, progress: Progress | None, expected: int | None = None) -> int:
        """Delete what matches the filters; `expected` None: count first, for `progress`."""
        number = self._change_all(filters, None, progress, expected)
        logger.info("deleted %d sessions %s, by %s", number, _described(filters), self.actor)
        return number

    def rebind_all(self, filters: Filters, move: Move, progress: Progress | None, expected: int | None = None) -> int:
        """Move what matches the filters; `expected` None: count first, for `progress`."""
        move.check()
        move = move.plain()
        if move.is_back and not self.recorded.operation:  # without one, a second pass would move sessions again
            self.recorded = self.recorded._replace(operation=secrets.token_hex(16))
        number = self._change_all(filters, move, progress, expected)
        target = "back" if move.is_back else f"to {move.provider!r}"
        model = "" if move.model is None else f", model {move.model!r}"
        which = _described(filters)
        logger.info("moved %d sessions %s %s%s, by %s: %s", number, which, target, model, self.actor, move.reason)
        return number

    def _change_all(self, filters: Filters, move: Move | None, progress: Progress | None, expected: int | None) -> int:
        if expected is None:
            expected = Reads(self.store, self.ttl_seconds).count(filters)
        done, began_at, newest = 0, int(time.time()), None
        coldest = move is not None  # a first pass moves those whose prompt caches have expired
        try:
            for _ in range(MAX_PASSES + coldest):
                before = done
                for rows in self._reader.scan(filters, with_moves=move is not None and move.is_back):
                    wanted = [row for row in rows if self._is_wanted(row, move, newest)]
                    done += self._change([row for row in wanted if not coldest or self._is_cold(row)], move)
                    if progress:
                        progress(done, max(expected, done))
                if done == before and not coldest:
                    break
                # Repeat for sessions that moved during the pass, but not endlessly for new sessions.
                newest = None if coldest else began_at
                coldest = False
        finally:
            self._record(filters, move, done)
        return done

    def _is_wanted(self, row: Row, move: Move | None, newest: int | None) -> bool:
        if newest is not None and row.session.created_at > newest:
            return False
        if row.move is not None and row.move.operation == self.recorded.operation != "":
            return False  # moved by an earlier pass
        return move is None or move.of(row.session, row.move) != row.session

    def _is_cold(self, row: Row) -> bool:
        return self.ttl_seconds - row.left_ms / 1000 >= COLD_SECONDS

    def _record(self, filters: Filters, move: Move | None, number: int) -> None:
        """Add what was done, all of it or until it was stopped, to the recent events as one."""
        if not (number and conf.history_length):
            return
        provider, model = filters.provider, filters.model
        fields: dict[str, Any] = {"actor": self.actor, "sessions": number, "operation": self.recorded.operation}
        if move is None:
            event = bulk_event("deleted", reason="", provider=provider or "", model=model or "", **fields)
        else:
            fields |= {"from_provider": provider, "from_model": model, "reason": move.reason}
            event = bulk_event("rebound", provider=move.provider or "", model=move.model or model or "", **fields)
        try:
            self.store.send(event)
        except SessionStoreUnavailable as exc:
            logger.warning("bulk operation is not among the recent events: %s", exc)

    def _change(self, rows: list[Row], move: Move | None) -> int:
        if not rows:
            return 0
        replies = self.store.send(Batch([self._request(row, move) for row in rows]))
        changed = [row for row, (done, _) in zip(rows, replies, strict=True) if done]
        if move is None:
            for row in changed:
                session = row.session
                self.store.last_seen.forget(session.id)
                self.send_signal(session_deleted, conversation_id=session.id, session=session, actor=self.actor)
            return len(changed)
        moves = [(row.session, move.of(row.session, row.move)) for row in changed]
        self._count(move, Counter((before.provider, after.provider) for before, after in moves))
        for before, after in moves:
            self.store.last_seen.correct(after)
            self.send_signal(session_rebound, session=after, previous=before, reason=move.reason, actor=self.actor)
        return len(changed)

    def _count(self, move: Move, numbers: Counter[tuple[str, str]]) -> None:
        for providers, number in numbers.items():
            metrics.rebound(move.reason, self.actor, *providers, number)
        try:
            self.store.send(add_commands(move_sums(move.reason, self.actor, numbers)))
        except SessionStoreUnavailable as exc:
            logger.warning("moves not counted: %s", exc)

    def _request(self, row: Row, move: Move | None) -> Any:
        session, raw, ttl = row.session, row.raw, self.ttl_seconds
        recorded: dict[str, Any] = {"actor": self.actor, "is_bulk": True, **self.recorded._asdict()}
        if move is None:
            return self.store.remove(session.id, session, raw, ttl, **recorded)
        return self.store.replace(session, raw, move.of(session, row.move), ttl, reason=move.reason, **recorded)


def _described(filters: Filters) -> str:
    named = (("provider", filters.provider), ("model", filters.model))
    parts = [f"{name} {value!r}" for name, value in named if value is not None]
    parts += ["one owner"] if filters.owner is not None else []  # do not log owners
    return f"of {', '.join(parts)}" if parts else "of all providers"
