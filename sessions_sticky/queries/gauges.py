"""Export the numbers of sessions and the memory of the store as metrics."""

from __future__ import annotations

from sessions_sticky import metrics
from sessions_sticky.conf import conf
from sessions_sticky.connections.commands import AllPrimaries, Command
from sessions_sticky.exceptions import SessionStoreUnavailable
from sessions_sticky.queries import server_info
from sessions_sticky.queries.reads import Reads
from sessions_sticky.stores.base import Store, check_redis


def export_gauges(store: Store, ttl_seconds: int) -> None:
    """Count the sessions by provider and read the memory of the fullest server; set the gauges."""
    check_redis(store, "count sessions")
    numbers = dict.fromkeys(conf.providers or (), 0) | Reads(store, ttl_seconds).by_provider()
    metrics.store_measured(numbers, _memory_ratio(store))


def _memory_ratio(store: Store) -> float:
    try:
        replies = store.send(AllPrimaries(Command(("INFO", "memory"))))
    except SessionStoreUnavailable:
        return 0.0  # a hosted server may not permit it; if it is down, the next count fails
    return max((server_info.memory_ratio(server_info.read_info(reply)) or 0.0 for reply in replies), default=0.0)
