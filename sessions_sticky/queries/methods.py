"""The methods of `SessionManager` that operators call: look, count, delete and move many, mend."""

from __future__ import annotations

from sessions_sticky.drivers import Driver
from sessions_sticky.queries import reads
from sessions_sticky.queries.bulk import Bulk, Move, Progress
from sessions_sticky.queries.filters import Filters, HourStats, Page, Stats
from sessions_sticky.queries.reads import Overview
from sessions_sticky.queries.reindex import Reindex
from sessions_sticky.stores.history import Event

MAX_PAGE = 1_000


class OperatorMethods(Driver):
    """What the index and the history are for; see `SessionManager`.

    `provider`, `model` and `external_id` are filters: a session is meant when it equals all that are given. Every
    method raises `SessionNotSupported` on a cache other than django-redis, and without the setting it needs (`INDEX`,
    `HISTORY_LENGTH`); those with filters raise `ValueError` for one that is no string. None of them makes other clients
    of Redis wait for more than some milliseconds at a time.
    """

    def page(
        self,
        *,
        provider: str | None = None,
        model: str | None = None,
        external_id: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page:
        """Return sessions with their idle time left, most recently active first, to the minute.

        `limit` is 1 to 1,000. `cursor` is the last page's `next_cursor`, with the same filters; None begins. A walk
        whose pages follow each other within a minute meets every session that lives through it exactly once, however
        many come, go and move meanwhile (up to 100,000 that move ahead of it). A page asked for again, after a lost
        answer, may lack one of its sessions that has moved up in between. A page may be short, even empty, and yet have
        a next one, where few of many sessions fit an owner together with a provider or model.
        Raises `InvalidCursor`, and `ValueError` for another limit.
        """
        return self._run(self._overview.page(_filters(provider, model, external_id), cursor, _checked(limit)))

    async def apage(
        self,
        *,
        provider: str | None = None,
        model: str | None = None,
        external_id: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page:
        """Async twin of `page`."""
        return await self._arun(self._overview.page(_filters(provider, model, external_id), cursor, _checked(limit)))

    def page_and_count(
        self,
        *,
        provider: str | None = None,
        model: str | None = None,
        external_id: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> tuple[Page, int]:
        """Return what `page` and `count` do, in fewer round trips; what the page finds gone may still be counted."""
        filters = _filters(provider, model, external_id)
        return self._run(self._overview.page_and_count(filters, cursor, _checked(limit)))

    async def apage_and_count(
        self,
        *,
        provider: str | None = None,
        model: str | None = None,
        external_id: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> tuple[Page, int]:
        """Async twin of `page_and_count`."""
        filters = _filters(provider, model, external_id)
        return await self._arun(self._overview.page_and_count(filters, cursor, _checked(limit)))

    def count(self, *, provider: str | None = None, model: str | None = None, external_id: str | None = None) -> int:
        """Return how many sessions there are, by the index.

        It may count sessions that other programs have deleted or moved, until they are met by a page or `reindex`.
        """
        return self._run(self._overview.count(_filters(provider, model, external_id)))

    async def acount(
        self, *, provider: str | None = None, model: str | None = None, external_id: str | None = None
    ) -> int:
        """Async twin of `count`."""
        return await self._arun(self._overview.count(_filters(provider, model, external_id)))

    def stats(self) -> Stats:
        """Return how many sessions each provider and model has, and how many were created lately."""
        return self._run(self._overview.stats())

    async def astats(self) -> Stats:
        """Async twin of `stats`."""
        return await self._arun(self._overview.stats())

    def created_per_hour(self) -> list[HourStats]:
        """Return how many sessions were created in each hour of the last day, the 24th being this one."""
        return self._run(self._overview.created_per_hour())

    async def acreated_per_hour(self) -> list[HourStats]:
        """Async twin of `created_per_hour`."""
        return await self._arun(self._overview.created_per_hour())

    def history(self, conversation_id: str) -> list[Event]:
        """Return what the history still has of a conversation, oldest first."""
        return self._run(reads.history(self._store, conversation_id))

    async def ahistory(self, conversation_id: str) -> list[Event]:
        """Async twin of `history`."""
        return await self._arun(reads.history(self._store, conversation_id))

    def recent(self, *, after: str | None = None, limit: int = 100) -> list[Event]:
        """Return the last events of all conversations, or the first after the `position` of one, oldest first."""
        return self._run(reads.recent(self._store, after, _checked(limit)))

    async def arecent(self, *, after: str | None = None, limit: int = 100) -> list[Event]:
        """Async twin of `recent`."""
        return await self._arun(reads.recent(self._store, after, _checked(limit)))

    def delete_all(
        self,
        *,
        provider: str | None = None,
        model: str | None = None,
        external_id: str | None = None,
        everything: bool = False,
        progress: Progress | None = None,
    ) -> int:
        """Delete sessions; return how many. Needs a filter, or `everything=True`, else raises `ValueError`.

        Each is deleted by compare-and-set: one that is no longer meant is left alone. May be stopped at any time
        (`progress` raises, Ctrl-C, kill) and called again: it goes on with the rest. Sessions that are made
        meanwhile may be left. `progress(done, expected)` is called after each batch of 500, in the event loop too.
        """
        filters = _some(_filters(provider, model, external_id), everything=everything)
        return self._run(self._bulk.delete_all(filters, progress))

    async def adelete_all(
        self,
        *,
        provider: str | None = None,
        model: str | None = None,
        external_id: str | None = None,
        everything: bool = False,
        progress: Progress | None = None,
    ) -> int:
        """Async twin of `delete_all`."""
        filters = _some(_filters(provider, model, external_id), everything=everything)
        return await self._arun(self._bulk.delete_all(filters, progress))

    def rebind_all(
        self,
        *,
        to_provider: str,
        reason: str,
        to_model: str | None = None,
        provider: str | None = None,
        model: str | None = None,
        external_id: str | None = None,
        everything: bool = False,
        progress: Progress | None = None,
    ) -> int:
        """Move sessions to another provider, and to `to_model` unless that is None; return how many moved.

        By compare-and-set, and to be stopped and called again, as `delete_all`. Raises `InvalidSession` for a name
        that does not fit the wire format.
        """
        filters = _some(_filters(provider, model, external_id), everything=everything)
        return self._run(self._bulk.rebind_all(filters, Move(to_provider, to_model, reason), progress))

    async def arebind_all(
        self,
        *,
        to_provider: str,
        reason: str,
        to_model: str | None = None,
        provider: str | None = None,
        model: str | None = None,
        external_id: str | None = None,
        everything: bool = False,
        progress: Progress | None = None,
    ) -> int:
        """Async twin of `rebind_all`."""
        filters = _some(_filters(provider, model, external_id), everything=everything)
        return await self._arun(self._bulk.rebind_all(filters, Move(to_provider, to_model, reason), progress))

    def reindex(self, progress: Progress | None = None) -> int:
        """Make the index true, by looking at every key of the database; return the number of sessions.

        Finds sessions that other programs wrote, drops entries without a session; online, repeatable, to be stopped at
        any time. `progress(done, expected)` counts keys.
        """
        return self._run(self._reindex.reindex(progress))

    async def areindex(self, progress: Progress | None = None) -> int:
        """Async twin of `reindex`."""
        return await self._arun(self._reindex.reindex(progress))

    @property
    def _overview(self) -> Overview:
        return Overview(self._store, self.ttl_seconds)

    @property
    def _bulk(self) -> Bulk:
        return Bulk(self._store, self.ttl_seconds, self._actor)

    @property
    def _reindex(self) -> Reindex:
        return Reindex(self._store, self.ttl_seconds)


def _checked(limit: int) -> int:
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_PAGE:
        raise ValueError(f"Invalid limit: {limit!r}; allowed is a whole number from 1 to {MAX_PAGE}")
    return limit


def _filters(*values: str | None) -> Filters:
    for name, value in zip(Filters._fields, values, strict=True):
        if value is not None and not isinstance(value, str):
            raise ValueError(f"Invalid {name}: {value!r}; allowed is a string or None")
    return Filters(*values)


def _some(filters: Filters, *, everything: bool) -> Filters:
    if everything != (filters == Filters()):
        raise ValueError("Either a filter (provider, model, external_id) or everything=True is needed, not both")
    return filters
