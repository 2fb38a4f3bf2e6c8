"""Experiments with a store that fails while workers are under load."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import redis

from sessions_sticky.connections.cache_config import SOCKET_TIMEOUT_SECONDS
from tests.gateway.load import Clients, Reply, bindings, failed, moved, tell
from tests.gateway.upstream_process import UpstreamProcess
from tests.gateway.workers import Workers, providers_file, wait_until
from tests.servers import Server

TTL_MS = 86_400_000
CONVERSATIONS = 300
RATE = 200
SLOW_SECONDS = 0.8 * SOCKET_TIMEOUT_SECONDS
"""Who took longer has waited for the store."""
WORST_SECONDS = 2 * SOCKET_TIMEOUT_SECONDS + 0.3
"""Connecting, asking, and the pauses of a busy machine; redis-py's own retries would make seconds of it."""
NAMES = ("north", "south", "east")

Bindings = dict[str, tuple[str, str]]


class Ground(NamedTuple):
    """Two workers that both have seen all conversations of `before`."""

    workers: Workers
    store: Server
    before: Bindings

    def clients(self) -> Clients:
        """Return clients of these workers."""
        return Clients(self.workers.urls, self.workers.key)

    def stored(self, store: Server | None = None) -> dict[str, bytes | None]:
        """Return what the store holds of the conversations."""
        with (store or self.store).client() as client:
            values = client.mget([f"sentinel:session:{each}" for each in self.before])
        return dict(zip(self.before, values, strict=True))

    def expiries(self, store: Server | None = None) -> list[int]:
        """Return the milliseconds that each conversation has left."""
        with (store or self.store).client() as client:
            pipeline = client.pipeline(transaction=False)
            for each in self.before:
                pipeline.pttl(f"sentinel:session:{each}")
            return list(pipeline.execute())

    def store_errors(self) -> dict[str, float]:
        """Return the count of each store error, of both workers together."""
        samples = self.workers.each[0].metrics()
        name = "sessions_sticky_store_errors_total"
        return {sample.removeprefix(name): value for sample, value in samples.items() if sample.startswith(name)}


def start_workers(folder: Path, store_url: str, upstreams: UpstreamProcess, **variables: str) -> Workers:
    """Return two workers over one store."""
    file = providers_file(folder, upstreams.urls)
    return Workers(folder, 2, REDIS_URL=store_url, SENTINEL_PROVIDERS=file, **variables)


def bind(workers: Workers, ids: list[str]) -> Bindings:
    """Begin conversations, half of them with the other model, rebind a fifth of them, and let all workers see them."""

    async def main() -> Bindings:
        async with Clients(workers.urls, workers.key) as clients:
            begun = bindings(await clients.visit(ids[::2], 0) + await clients.visit(ids[1::2], 1, model="model-b"))
            for name in NAMES:
                mine = [each for each in ids[::5] if begun[each][0] == name]
                replies = await clients.visit(mine, 0, test={"refuse": [name]})
                assert {reply.outcome for reply in replies} == {"rebound"}
            seen = bindings(await clients.visit(ids))
            rebound = [each for each in ids if seen[each] != begun[each]]
            assert rebound == ids[::5]
            return seen

    return asyncio.run(main())


async def suffer(
    ground: Ground,
    title: str,
    begin: Callable[[], object],
    end: Callable[[], object],
    *,
    seconds: float,
    error: str | None = None,
) -> list[Reply]:
    """Let a fault begin and end under load; return the replies while it lasted. Nothing moves, nothing fails.

    `error` is what the workers call the fault, or a part of it.
    """
    stored = ground.stored()
    count_before = ground.store_errors()
    fresh = [f"{title}-{number}" for number in range(20)]
    async with ground.clients() as clients:
        begun = time.monotonic()
        await asyncio.to_thread(begin)
        try:
            running = clients.load(list(ground.before), seconds=seconds, rate=RATE, model="model-a")
            replies, new = await asyncio.gather(running, clients.visit(fresh))
        finally:
            lasted = time.monotonic() - begun
            await asyncio.to_thread(end)
        after = last = await clients.visit(ground.before)
        async with asyncio.timeout(10):
            while any(reply.outcome == "degraded" for reply in last):  # not yet back, or a busy machine timed out again
                last = await clients.visit(ground.before)
                after = [*after, *last]
        after_new = await clients.visit(fresh)
    tell(f"{title} for {lasted:.1f} s", replies)
    assert not failed([*replies, *new, *after, *after_new])
    assert not moved([*replies, *after], ground.before)
    assert not moved(after_new, bindings(new))
    odd = [reply for reply in last if reply.outcome not in ("hit", "created")]
    assert not odd, (len(odd), odd[:3])
    assert ground.stored() == stored  # each byte, `created_at` too
    assert all(0 < left <= TTL_MS for left in ground.expiries())
    _check_latency(replies, lasted)
    counts = ground.store_errors()
    new_errors = {each for each, value in counts.items() if value > count_before.get(each, 0)}
    assert error is None or any(error in each for each in new_errors), new_errors
    return replies


def _check_latency(replies: list[Reply], lasted: float) -> None:
    """Waiting is bounded; after a first wait of all, only one request of each worker does it in a second."""
    assert max(reply.seconds for reply in replies) < WORST_SECONDS
    slow = sum(reply.seconds > SLOW_SECONDS for reply in replies)
    at_first = 2 * RATE * SOCKET_TIMEOUT_SECONDS
    assert slow <= at_first + 2 * 2 * (lasted + 1), slow


def degraded(replies: list[Reply]) -> int:
    """Count the replies that were given without the store."""
    return sum(reply.outcome == "degraded" for reply in replies)


def replicate(replica: redis.Redis, port: int) -> None:
    """Make a server the replica of another, and wait until it is."""
    replica.replicaof("127.0.0.1", port)
    wait_until(lambda: replica.info("replication").get("master_link_status") == "up", 15)
