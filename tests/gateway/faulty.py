"""Experiments with a store that fails while workers are under load."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import redis

from sessions_sticky import rendezvous
from sessions_sticky.connections.cache_config import SOCKET_TIMEOUT_SECONDS
from tests.gateway.load import Clients, Reply, bindings, failed, moved, tell
from tests.gateway.upstream_process import UpstreamProcess
from tests.gateway.workers import Workers, providers_file
from tests.servers import Server, with_timeout
from tests.waiting import SECONDS, wait_until, waits

TTL_MS = 86_400_000
CONVERSATIONS = 100
RATE = 200
SLOW_SECONDS = 0.8 * SOCKET_TIMEOUT_SECONDS
"""Who took longer has waited for the store."""
WORST_SECONDS = 2 * SOCKET_TIMEOUT_SECONDS + 0.7
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
    """Return two workers over one store, with their usual timeout; no provider cools down after it lacked a model."""
    variables = {
        "SENTINEL_PROVIDERS": providers_file(folder, upstreams.urls),
        "SENTINEL_COOLDOWN_SECONDS": "0",
    } | variables
    return Workers(folder, 2, REDIS_URL=with_timeout(store_url, SOCKET_TIMEOUT_SECONDS), **variables)


def bind(workers: Workers, ids: list[str]) -> Bindings:
    """Begin conversations, half of them with the other model, rebind a fifth of them, and let all workers see them."""

    async def main() -> Bindings:
        async with Clients(workers.urls, workers.key) as clients:
            begun = bindings(await begin_rebound(clients, ids[::10]))
            begun |= bindings(await begin_rebound(clients, ids[5::10], model="model-b"))
            others = [each for number, each in enumerate(ids) if number % 5]
            firsts = await clients.visit(others[::2], 0) + await clients.visit(others[1::2], 1, model="model-b")
            begun |= bindings(reply for reply in firsts if reply.outcome != "degraded")
            seen = bindings((await visit_stored(clients, dict.fromkeys([*begun, *others])))[-1])
            assert begun.items() <= seen.items()
            return seen

    return asyncio.run(main())


async def begin_rebound(clients: Clients, ids: Iterable[str], **fields: Any) -> list[Reply]:
    """Begin conversations whose first provider fails, so that they are rebound to the second."""
    replies = []
    for each in ids:  # one after the other: the load must not change the ranking
        replies.append(await _begin_rebound(clients, each, fields))
    assert {reply.outcome for reply in replies} == {"rebound"}
    return replies


async def _begin_rebound(clients: Clients, conversation_id: str, fields: dict[str, Any]) -> Reply:
    first = rendezvous(conversation_id, dict.fromkeys(NAMES, 1))[0]
    reply = await clients.ask(conversation_id, test={"refuse": [first]}, **fields)
    if reply.outcome == "degraded":  # on a busy machine; it may be bound or not, so take another one
        return await _begin_rebound(clients, f"{conversation_id}-again", fields)
    return reply


async def visit_stored(clients: Clients, ids: Iterable[str]) -> list[list[Reply]]:
    """Visit conversations until the store has answered in time for all, as it may not on a busy machine.

    Return the replies of each visit.
    """
    rounds = [await clients.visit(ids)]
    async with asyncio.timeout(SECONDS):
        while any(reply.outcome == "degraded" for reply in rounds[-1]):
            rounds.append(await clients.visit(ids))
    return rounds


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

    `error` is a part of the workers' error message. Of the conversations that begin during the fault, those of the
    crowd are placed by the load of each worker and must agree afterwards; those that come alone stay from the
    first.
    """
    stored = ground.stored()
    count_before = ground.store_errors()
    crowd = [f"{title}-crowd-{number}" for number in range(20)]
    fresh = [f"{title}-{number}" for number in range(5)]
    async with ground.clients() as clients:
        usual = max(reply.seconds for reply in await clients.load(list(ground.before), seconds=1, rate=RATE))
        begun, waited = time.monotonic(), waits(*(each.process.pid for each in ground.workers.each))
        await asyncio.to_thread(begin)
        try:
            running = clients.load(list(ground.before), seconds=seconds, rate=RATE, model="model-a")
            replies, crowded = await asyncio.gather(running, clients.visit(crowd))
            new = [await clients.ask(each, worker) for each in fresh for worker in (0, 1)]
        finally:
            lasted, pauses = time.monotonic() - begun, waited()
            await asyncio.to_thread(end)
        rounds = await visit_stored(clients, ground.before)
        after, last = [*chain(*rounds)], rounds[-1]
        after_new = [*chain(*await visit_stored(clients, fresh))]
        bindings((await visit_stored(clients, crowd))[-1])
    tell(f"{title} for {lasted:.1f} s", replies)
    assert not failed([*replies, *crowded, *new, *after, *after_new])
    assert not moved([*replies, *after], ground.before)
    assert not moved(after_new, bindings(new))
    odd = [reply for reply in last if reply.outcome not in ("hit", "created")]
    assert not odd, (len(odd), odd[:3])
    assert ground.stored() == stored  # each byte, `created_at` too
    assert all(0 < left <= TTL_MS for left in ground.expiries())
    _check_latency(replies, lasted, usual + pauses)
    counts = ground.store_errors()
    new_errors = {each for each, value in counts.items() if value > count_before.get(each, 0)}
    assert error is None or any(error in each for each in new_errors), new_errors
    return replies


def _check_latency(replies: list[Reply], lasted: float, usual: float) -> None:
    """Waiting is bounded; after a first wait of all, only one request of each worker does it in a second.

    `usual` is the longest answer of the same load on the same machine with a working store, and all pauses of the
    machine since.
    """
    worst = max(reply.seconds for reply in replies)
    assert worst < WORST_SECONDS + 3 * usual, (worst, usual)
    slow = sum(reply.seconds > SLOW_SECONDS + usual for reply in replies)
    at_first = 2 * RATE * SOCKET_TIMEOUT_SECONDS
    assert slow <= at_first + 2 * 2 * (lasted + 1), slow


def degraded(replies: list[Reply]) -> int:
    """Count the replies that were given without the store."""
    return sum(reply.outcome == "degraded" for reply in replies)


def replicate(replica: redis.Redis, port: int) -> None:
    """Make a server the replica of another, and wait until it is."""
    replica.replicaof("127.0.0.1", port)
    wait_until(lambda: replica.info("replication").get("master_link_status") == "up")
