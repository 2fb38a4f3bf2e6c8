"""Providers fail under load: every chat is served within the same request, and conversations come back."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from sentinel_project.gateway.providers import health_sync
from sentinel_project.gateway.providers.slots import model_slot
from sessions_sticky import Session
from tests.gateway.load import Clients, Reply, bindings, failed, moved, tell
from tests.gateway.upstream_process import UpstreamProcess
from tests.gateway.workers import Workers, providers_file, total
from tests.servers import Server, start_server
from tests.waiting import SECONDS, stopwatch, wait_until

pytestmark = pytest.mark.slow

COOLDOWN_SECONDS = 1
NAMES = ("north", "south", "east")


class Ground(NamedTuple):
    """Two workers over three providers, each in a process of its own."""

    workers: Workers
    store: Server
    upstreams: dict[str, UpstreamProcess]

    def clients(self) -> Clients:
        return Clients(self.workers.urls, self.workers.key)

    def bind(self, name: str, count: int, provider: str) -> list[str]:
        """Return conversations of a provider, as if begun before."""
        ids = [f"{name}-{provider}-{number}" for number in range(count)]
        with self.store.client() as client:
            for each in ids:
                client.set(f"sentinel:session:{each}", Session(each, provider, "model-a", "ann", 1).to_json(), ex=600)
        return ids

    def bound_to(self, ids: list[str]) -> set[str]:
        """Return the providers that the store holds for conversations."""
        with self.store.client() as client:
            return {Session.from_json(client.get(f"sentinel:session:{each}")).provider for each in ids}

    def stopwatch(self) -> Callable[[], float]:
        """Return a function that returns the seconds since now, without the waits of all for a CPU."""
        return stopwatch(*(each.process.pid for each in self.workers.each))

    def count(self, name: str) -> int:
        return self.upstreams[name].stats(name)["requests"]


@pytest.fixture(scope="module")
def _ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with UpstreamProcess("north") as north, UpstreamProcess("south") as south, UpstreamProcess("east") as east:
        upstreams = {"north": north, "south": south, "east": east}
        urls = {name: upstream.urls[name] for name, upstream in upstreams.items()}
        folder = tmp_path_factory.mktemp("workers")
        variables = {
            "SENTINEL_PROVIDERS": providers_file(folder, urls),
            "SENTINEL_COOLDOWN_SECONDS": str(COOLDOWN_SECONDS),
        }
        with start_server() as store, Workers(folder, 2, REDIS_URL=store.url, **variables) as workers:
            yield Ground(workers, store, upstreams)


@pytest.fixture
async def ground(_ground: Ground) -> Ground:
    """All providers are well, and both workers know."""
    for name, upstream in _ground.upstreams.items():
        upstream.behave(name)
        ids = _ground.bind("well", 1, name)
        async with _ground.clients() as clients:
            for worker in range(2):
                await until_home(_ground, clients, ids[0], name, worker)
    return _ground


async def until_home(
    ground: Ground, clients: Clients, conversation_id: str, provider: str, worker: int, seconds: float = SECONDS
) -> float:
    """Ask until the conversation's own provider answers; return how long that took without the waits for a CPU."""
    took = ground.stopwatch()
    while (await clients.ask(conversation_id, worker)).provider != provider:
        assert took() < seconds
        await asyncio.sleep(0.05)
    return took()


async def test_chats_are_served_and_return_when_a_provider_is_killed_under_load(ground: Ground) -> None:
    ids = [f"killed-{number}" for number in range(150)]
    north = ground.upstreams["north"]
    async with ground.clients() as clients:
        before = bindings(await clients.visit(ids))
        norths = [each for each in ids if before[each][0] == "north"]
        assert len(norths) > 25
        running = asyncio.create_task(clients.load(ids, seconds=3, rate=200))
        await asyncio.sleep(0.5)
        north.kill()
        replies = await running
        assert not failed(replies)
        assert len(replies) == 600
        spilled = moved(replies, before)
        assert {reply.outcome for reply in spilled} == {"spilled"}
        assert {reply.conversation_id for reply in spilled} <= set(norths)
        assert len(spilled) > 100
        assert ground.bound_to(norths) == {"north"}
        north.start()
        back = max([await until_home(ground, clients, norths[0], "north", worker) for worker in range(2)])
        assert not moved(await clients.visit(ids), before)
    tell(f"killed; back {back:.1f} s after its restart; {len(spilled)} spilled", replies)


async def test_conversations_stay_when_a_provider_flaps(ground: Ground) -> None:
    ids = [f"flapping-{number}" for number in range(60)]
    async with ground.clients() as clients:
        before = bindings(await clients.visit(ids))
        running = asyncio.create_task(clients.load(ids, seconds=5, rate=120))
        for _ in range(4):
            await asyncio.to_thread(ground.upstreams["north"].behave, "north", status=503)
            await asyncio.sleep(0.6)
            await asyncio.to_thread(ground.upstreams["north"].behave, "north")
            await asyncio.sleep(0.6)
        replies = await running
        assert not failed(replies)
        assert {reply.outcome for reply in replies} == {"hit", "spilled"}
        await until_home(ground, clients, ground.bind("flapped", 1, "north")[0], "north", 0)
        await until_home(ground, clients, ground.bind("flapped", 1, "north")[0], "north", 1)
        assert not moved(await clients.visit(ids), before)
        assert ground.bound_to(ids) == {provider for provider, _ in before.values()}
    tell("flapping", replies)


async def test_other_worker_follows_within_a_second_and_honours_retry_after(ground: Ground) -> None:
    ids = ground.bind("limited", 40, "north")
    ground.upstreams["north"].behave("north", status=429, headers={"Retry-After": "4"})
    async with ground.clients() as clients:
        begun, took = time.monotonic(), ground.stopwatch()
        assert (await clients.ask(ids[0], 0)).outcome == "spilled"
        ground.upstreams["north"].behave("north")  # it would answer
        await asyncio.sleep(0.99 - (time.monotonic() - begun))
        count = ground.count("north")
        replies: list[Reply] = []
        # The cooldown alone would be over after one second; from the third on conversations wait for their provider.
        while time.monotonic() - begun < 2.5:
            replies += await clients.visit(ids[:5])
            await asyncio.sleep(0.2)
        assert ground.count("north") == count
        assert {(reply.status, reply.outcome) for reply in replies} == {(200, "spilled")}
        await until_home(ground, clients, ids[0], "north", 0)
        back = time.monotonic() - begun
        assert took() < 5
        await until_home(ground, clients, ids[0], "north", 1, seconds=1)
        assert back >= 4
    tell(f"Retry-After: 4, back after {back:.2f} s", replies)


async def test_recovery_is_known_within_a_second_when_one_worker_sees_it(ground: Ground) -> None:
    ids = ground.bind("recovered", 2, "north")
    ground.upstreams["north"].behave("north", status=503, headers={"Retry-After": "30"})
    async with ground.clients() as clients:
        await clients.ask(ids[0], 0)
        took = ground.stopwatch()
        wait_until(lambda: total(ground.workers.each[0].metrics(), "sentinel_provider_cooling", "north") == 1)
        assert took() < 2
        ground.upstreams["north"].behave("north", status=503)
        await asyncio.sleep(1)  # both know
        assert [(await clients.ask(ids[0], worker)).outcome for worker in range(2)] == ["spilled", "spilled"]
        record = json.dumps({model_slot("model-a"): {"id": "recovered"}})
        with ground.store.client() as client:
            (key,) = client.keys("sentinel:provider:north:*")
            client.set(key, record, ex=health_sync.KEEP_SECONDS)
        ground.upstreams["north"].behave("north")
        for worker in range(2):
            await until_home(ground, clients, ids[0], "north", worker, seconds=1)


async def test_one_request_of_a_worker_tries_when_the_cooldown_is_over(ground: Ground) -> None:
    ids = ground.bind("trial", 50, "north")
    ground.upstreams["north"].behave("north", status=429)
    async with ground.clients() as clients:
        assert not failed(await clients.visit(ids[:1]))
        await asyncio.sleep(COOLDOWN_SECONDS + 0.6)  # over, and the other worker has heard of it
        ground.upstreams["north"].behave("north", delay=0.5)
        count = ground.count("north")
        bursts = asyncio.create_task(clients.visit(ids))
        await asyncio.sleep(0.45)
        trials = ground.upstreams["north"].stats("north")["requests"] - count
        replies = await bursts
    tell(f"{trials} trials", replies)
    assert not failed(replies)
    assert 1 <= trials <= 2


async def test_conversation_is_rebound_when_a_restarted_worker_lacks_its_provider(
    ground: Ground,
) -> None:
    ids = ground.bind("unconfigured", 30, "north")
    urls = {name: ground.upstreams[name].urls[name] for name in ("south", "east")}
    one = ground.workers.each[0]
    before = one.metrics()
    ground.workers.replace(ground.workers.each[1], SENTINEL_PROVIDERS=providers_file(ground.workers.folder, urls))
    reason = "provider not configured for the model"
    async with ground.clients() as clients:
        rebound = await clients.visit(ids, 1)
        assert {(reply.status, reply.outcome, reply.reason) for reply in rebound} == {(200, "rebound", reason)}
        after = await clients.visit(ids)
        assert {reply.outcome for reply in after} == {"hit"}
        assert not moved(after, bindings(rebound))
    assert ground.bound_to(ids) == {"south", "east"}
    name = "sessions_sticky_rebinds_total"
    assert total(one.metrics(), name, reason) - total(before, name, reason) == len(ids)
    tell("unconfigured", rebound)
