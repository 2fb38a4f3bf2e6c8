"""The methods of `SessionManager` for many sessions; their async forms run in a thread."""

from __future__ import annotations

from abc import abstractmethod
from functools import partial
from typing import Unpack

from sessions_sticky.queries.bulk import Bulk
from sessions_sticky.queries.filters import FilterFields
from sessions_sticky.queries.index_reader import Progress
from sessions_sticky.queries.pages import HourStats, Page, Stats, check_limit
from sessions_sticky.queries.query import SessionQuery, in_thread
from sessions_sticky.queries.reads import Reads, history, recent
from sessions_sticky.queries.reindex import Reindex
from sessions_sticky.queries.search import Search
from sessions_sticky.queries.usage import Activity, UsageReport, read_activity, read_usage
from sessions_sticky.signals import send_signal
from sessions_sticky.stores.base import Store
from sessions_sticky.stores.history import Event


class ManagerMethods:
    """Methods for operators on a manager's store."""

    _actor: str

    def usage(self, minutes: int = 24 * 60) -> UsageReport:
        """Return what the turns of the last minutes used, by provider, model and outcome, and by owner.

        `minutes` is 1 to 1,440, else `ValueError`; above 60 it is rounded up to hours. The current minute or hour is
        one of them. Owners are always summed by hour.
        """
        return read_usage(self._store, minutes)

    ausage = in_thread(usage)

    def activity(self, minutes: int = 60) -> Activity:
        """Return the turns and moves of each of the last minutes, by outcome or reason and by provider.

        `minutes` is 1 to 1,440, else `ValueError`; the current minute is one of them.
        """
        return read_activity(self._store, minutes)

    aactivity = in_thread(activity)

    def export_gauges(self) -> None:
        """Set the Prometheus gauges of the sessions by provider and of the store's memory; call it every 15 s or so."""
        self._reads.export_gauges()

    aexport_gauges = in_thread(export_gauges)

    def all(self) -> SessionQuery:
        """Return all sessions, to count, page through, iterate over, delete or rebind; see `SessionQuery`."""
        return SessionQuery(lambda: self._reads, lambda: self._bulk)

    def filter(self, **fields: Unpack[FilterFields]) -> SessionQuery:
        """Return the sessions that match: `sessions.filter(provider="azure").count()`; see `SessionQuery.filter`.

        Raises `ValueError` without a filter.
        """
        if not fields:
            raise ValueError(f"filter() needs one of {', '.join(FilterFields.__annotations__)}; all() is all sessions")
        return self.all().filter(**fields)

    def search(self, text: str, *, cursor: str | None = None, limit: int = 50) -> Page:
        """Return the session with this id, else the sessions of this owner, else those whose id contains the text.

        The last kind finds a client's own id in that of an observed session, even if only its hash is stored. The
        search is case-sensitive. `limit` and `cursor` are as in `page`. A page of ids that contain the text has no
        order; it takes at most 0.15 seconds, so it may be short or empty and still have a next one. Raises
        `InvalidCursor`, and `ValueError` for an empty text.
        """
        return Search(self._store.operators, self.ttl_seconds).page(text, cursor, check_limit(limit))

    asearch = in_thread(search)

    def stats(self) -> Stats:
        """Return the numbers of sessions, and of recently created ones, by provider and model."""
        return self._reads.stats()

    astats = in_thread(stats)

    def created_per_hour(self) -> list[HourStats]:
        """Return the number of sessions created in each of the last 24 hours, the current one last."""
        return self._reads.created_per_hour()

    acreated_per_hour = in_thread(created_per_hour)

    def history(self, conversation_id: str) -> list[Event]:
        """Return the events of a conversation in the history, oldest first."""
        return history(self._store.operators, conversation_id)

    ahistory = in_thread(history)

    def recent(self, *, after: str | None = None, limit: int = 100) -> list[Event]:
        """Return the last events of all conversations, or the first after the `position` of one, oldest first."""
        return recent(self._store.operators, after, check_limit(limit))

    arecent = in_thread(recent)

    def reindex(self, progress: Progress | None = None) -> int:
        """Rebuild the index, by reading every key of the database; return the number of sessions.

        Finds sessions that other programs wrote, drops entries without a session; online, repeatable, may be stopped at
        any time. `progress(done, expected)` counts keys.
        """
        return Reindex(self._store.operators, self.ttl_seconds).reindex(progress)

    areindex = in_thread(reindex)

    @property
    @abstractmethod
    def ttl_seconds(self) -> int:
        """The idle time of a session in seconds."""

    @property
    @abstractmethod
    def _store(self) -> Store:
        """The manager's store."""

    @property
    def _reads(self) -> Reads:
        return Reads(self._store.operators, self.ttl_seconds)

    @property
    def _bulk(self) -> Bulk:
        return Bulk(self._store.operators, self.ttl_seconds, self._actor, partial(send_signal, manager=self))
