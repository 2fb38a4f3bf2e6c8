"""Queries of sessions, and actions on the matches: `sessions.filter(provider="azure").count()`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass
from functools import wraps
from inspect import getdoc
from itertools import islice
from typing import Any, ParamSpec, TypeVar, Unpack

from asgiref.sync import sync_to_async
from django.db import connections

from sessions_sticky.queries.bulk import Bulk, Move
from sessions_sticky.queries.filters import FilterFields, Filters
from sessions_sticky.queries.index_reader import Progress
from sessions_sticky.queries.pages import Page, check_limit
from sessions_sticky.queries.reads import Reads
from sessions_sticky.session import Entry, check_names

P = ParamSpec("P")
T = TypeVar("T")
ASYNC_BATCH = 100
"""How many sessions `async for` reads in one thread."""


def in_thread(method: Callable[P, T]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Return the async form of a blocking method, with its documentation.

    Each call has its own thread: in asgiref's shared thread calls would wait for each other's timeouts.
    """

    def call_and_close(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(*args, **kwargs)
        finally:
            connections.close_all()  # of this thread: signal receivers may have used the database

    @wraps(method)
    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return await sync_to_async(call_and_close, thread_sensitive=False)(*args, **kwargs)

    call.__name__ = f"a{method.__name__}"
    call.__doc__ = f"{getdoc(method)}\n\nAsync form of `{method.__name__}`; runs in a thread."
    return call


@dataclass(frozen=True, eq=False, repr=False)
class SessionQuery:
    """The sessions that match all filters given; `sessions.all()` and `sessions.filter(...)` return one.

    Lazy: each method accesses the store when it is called. Iterating (also with `async for`) yields every session that
    exists throughout and does not move to another route exactly once, in no order.

    The methods raise `SessionStoreUnavailable`, and `SessionNotSupported` on caches other than django-redis and if
    `INDEX` is False.
    """

    _reads: Callable[[], Reads]
    _bulk: Callable[[], Bulk]
    _filters: Filters = Filters()  # noqa: RUF009  # immutable

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._filters}>"

    def __iter__(self) -> Iterator[Entry]:
        return self._reads().scan(self._filters)

    async def __aiter__(self) -> AsyncIterator[Entry]:
        entries = iter(self)
        read = in_thread(lambda: list(islice(entries, ASYNC_BATCH)))
        while batch := await read():
            for entry in batch:
                yield entry

    def filter(self, **fields: Unpack[FilterFields]) -> SessionQuery:
        """Return the query with additional filters.

        `provider`, `model` and `owner` match equal values. `idle_for`, a `timedelta` or seconds, matches sessions that
        were not used for at least that long, according to the idle time of this manager; sessions found by content
        have a different one and never match. `created_before` is a `datetime` with a time zone, or Unix seconds.

        Three filters concern the move that led to the current binding, by the history: `moved_from` is the provider it
        came from, `moved_since` its earliest time, `operation` the key of the bulk operation that made it. Raises
        `ValueError` for an invalid value (None, too: it must not select all sessions by mistake), and for a filter that
        is already set.
        """
        return SessionQuery(self._reads, self._bulk, self._filters.narrowed(fields))

    @property
    def is_everything(self) -> bool:
        """Whether no filter is set."""
        return self._filters == Filters()

    def count(self) -> int:
        """Return the number of sessions, according to the index.

        It may include sessions that other programs deleted or moved, until a page or `reindex` finds them. With
        any other filter than `provider`, `model` or `owner`, and with an owner and a provider or model, each session is
        read.
        """
        return self._reads().count(self._filters)

    acount = in_thread(count)

    def page(self, *, cursor: str | None = None, limit: int = 50) -> Page:
        """Return sessions with their idle time left, most recently active first, to the minute.

        `limit` is 1 to 1,000. `cursor` is the `next_cursor` of the last page with the same filters, None for the first
        page. A session that is used or moved during paging may be on two pages or on none; iterating misses none. If
        few sessions of an owner match a provider or model, a page may be short or empty and still have a next one.
        Raises `InvalidCursor`, and `ValueError` for another limit and with other filters than `provider`, `model` and
        `owner`, which only iterating supports.
        """
        if conditions := self._filters.conditions:
            raise ValueError(f"Pages cannot be filtered by {', '.join(conditions)}: iterate over the sessions instead")
        return self._reads().page(self._filters, cursor, check_limit(limit))

    apage = in_thread(page)

    def delete(self, *, progress: Progress | None = None) -> int:
        """Delete the sessions; return their number.

        Each is deleted by compare-and-delete; sessions that no longer match are skipped. It may be interrupted at any
        time (`progress` raises, Ctrl-C, kill) and called again to continue with the rest. Sessions that are created
        during the call may be left. `progress(done, expected)` is called after each batch of 500.
        """
        return self._bulk().delete_all(self._filters, progress)

    adelete = in_thread(delete)

    def rebind(
        self, *, to_provider: str, reason: str, to_model: str | None = None, progress: Progress | None = None
    ) -> int:
        """Move the sessions to another provider, and to `to_model` unless that is None; return the number moved.

        Uses compare-and-set, and may be interrupted and repeated like `delete`. Raises `InvalidSession` for a name or
        reason that is blank or cannot be stored.
        """
        check_names(to_provider=to_provider)
        return self._bulk().rebind_all(self._filters, Move(to_provider, to_model, reason), progress)

    arebind = in_thread(rebind)

    def move_back(self, *, reason: str, progress: Progress | None = None) -> int:
        """Move each session back to the provider and model that its last move came from; return the number moved.

        Sessions that were never moved stay, and those that would go to a provider that is no longer configured. Uses
        compare-and-set, and may be interrupted and repeated like `delete`; repeat it only with `moved_from`,
        `moved_since` or `operation`: a move back is a move, too. Raises `InvalidSession` for a blank reason.
        """
        return self._bulk().rebind_all(self._filters, Move(None, None, reason), progress)

    amove_back = in_thread(move_back)
