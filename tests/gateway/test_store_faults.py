"""The store fails in every way under load: no conversation moves, no request fails, waiting is bounded."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from tests.gateway.faulty import (
    CONVERSATIONS,
    NAMES,
    Ground,
    begin_rebound,
    bind,
    degraded,
    replicate,
    start_workers,
    suffer,
    visit_stored,
)
from tests.gateway.load import bindings, failed, moved
from tests.gateway.proxy import Proxy
from tests.gateway.upstream_process import UpstreamProcess
from tests.servers import VALKEY, Server, free_port, start_server
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

SLOW_LOADING = ("--key-load-delay", "5000", "--loading-process-events-interval-bytes", "1024")
"""5 ms a key, during which the server replies LOADING: longer than the workers' breakers are open."""


@pytest.fixture(scope="module")
def upstreams() -> Iterator[UpstreamProcess]:
    with UpstreamProcess(*NAMES) as upstreams:
        yield upstreams


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory, upstreams: UpstreamProcess) -> Iterator[Ground]:
    """Two workers, a store of their own, 100 conversations that both have seen."""
    with (
        start_server(VALKEY, *SLOW_LOADING, tcp=True) as store,
        start_workers(tmp_path_factory.mktemp("workers"), store.url, upstreams) as workers,
    ):
        yield Ground(workers, store, bind(workers, [f"conv-{number}" for number in range(CONVERSATIONS)]))


def configure(store: Server, **options: str) -> None:
    with store.client() as client:
        for name, value in options.items():
            client.config_set(name.replace("_", "-"), value)


async def test_conversations_stay_when_the_store_is_killed_and_restarted_empty(ground: Ground) -> None:
    restarting = Thread(target=lambda: (time.sleep(0.2), ground.store.restart(), time.sleep(0.2)))
    replies = await suffer(ground, "restarted empty", restarting.start, restarting.join, seconds=3)
    assert sum(reply.outcome == "created" for reply in replies) > 0


@pytest.mark.parametrize("way", ["FLUSHALL", "restart"])
async def test_conversations_stay_where_one_worker_saw_them_when_the_store_is_emptied(ground: Ground, way: str) -> None:
    """Their next turns reach the other worker; any other turn lets the first one restore them."""
    ids = [f"{way}-{number}" for number in range(60)]
    async with ground.clients() as clients:
        seen = bindings(await begin_rebound(clients, ids))
        if way == "FLUSHALL":
            with ground.store.client() as client:
                client.flushall()
        else:
            ground.store.restart()
        await clients.load(list(ground.before), seconds=2, rate=50)
        replies = await clients.visit(seen, 1)
    assert not failed(replies)
    assert not moved(replies, seen)


async def test_conversations_stay_when_the_port_of_the_store_is_closed(ground: Ground) -> None:
    replies = await suffer(
        ground, "closed port", ground.store.kill, ground.store.start, seconds=2, error="ConnectionError"
    )
    assert degraded(replies) > 0.9 * len(replies)


async def test_conversations_stay_when_the_store_is_stopped(ground: Ground) -> None:
    replies = await suffer(ground, "SIGSTOP", ground.store.stop, ground.store.cont, seconds=2.5, error="TimeoutError")
    assert degraded(replies) == len(replies)


async def test_conversations_stay_when_clients_are_paused(ground: Ground) -> None:
    def pause() -> None:
        with ground.store.client() as client:
            client.client_pause(1500, all=True)

    def wait() -> None:
        with ground.store.client() as client:
            client.ping()

    assert degraded(await suffer(ground, "CLIENT PAUSE", pause, wait, seconds=2, error="TimeoutError")) > 0


async def test_conversations_stay_when_the_store_is_out_of_memory(ground: Ground) -> None:
    await suffer(
        ground,
        "OOM",
        lambda: configure(ground.store, maxmemory="1", maxmemory_policy="noeviction"),
        lambda: configure(ground.store, maxmemory="0"),
        seconds=1,
        error="OutOfMemoryError",
    )


async def test_conversations_stay_when_the_store_cannot_save(ground: Ground) -> None:
    """MISCONF, as with a full disk."""

    def break_disk() -> None:
        with ground.store.client() as client:
            blocked = Path(client.config_get("dir")["dir"], "dump.rdb", "in the way")
            blocked.mkdir(parents=True)
            client.config_set("save", "3600 1")
            client.bgsave()
            wait_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err")

    def repair_disk() -> None:
        with ground.store.client() as client:
            blocked = Path(client.config_get("dir")["dir"], "dump.rdb", "in the way")
            blocked.rmdir()
            blocked.parent.rmdir()
            client.config_set("save", "")

    replies = await suffer(ground, "MISCONF", break_disk, repair_disk, seconds=1, error="ResponseError")
    assert degraded(replies) == len(replies)


async def test_conversations_stay_when_the_store_becomes_a_replica(ground: Ground) -> None:
    """READONLY; its master is not there, so it keeps its data."""

    def demote() -> None:
        with ground.store.client() as client:
            client.replicaof("127.0.0.1", free_port())

    def promote() -> None:
        with ground.store.client() as client:
            client.replicaof("NO", "ONE")

    replies = await suffer(ground, "READONLY", demote, promote, seconds=1, error="ReadOnlyError")
    assert degraded(replies) == len(replies)


async def test_conversations_stay_when_the_store_lacks_replicas(ground: Ground) -> None:
    replies = await suffer(
        ground,
        "NOREPLICAS",
        lambda: configure(ground.store, min_replicas_to_write="1"),
        lambda: configure(ground.store, min_replicas_to_write="0"),
        seconds=1,
        error="ResponseError",
    )
    assert degraded(replies) == len(replies)


async def test_conversations_stay_when_the_store_loads_its_data(ground: Ground) -> None:
    def save_and_restart() -> None:
        with ground.store.client() as client:
            client.save()
        ground.store.kill()
        starting.start()
        time.sleep(0.1)

    starting = Thread(target=ground.store.start)
    replies = await suffer(ground, "LOADING", save_and_restart, starting.join, seconds=1, error="BusyLoadingError")
    assert degraded(replies) > 0


@pytest.fixture(scope="module")
def behind_proxy(
    tmp_path_factory: pytest.TempPathFactory, upstreams: UpstreamProcess
) -> Iterator[tuple[Ground, Proxy, Server]]:
    """Two workers whose way to the store is a proxy; a second store."""
    with (
        start_server(tcp=True) as store,
        start_server(tcp=True) as other,
        Proxy(store.port) as proxy,
        start_workers(tmp_path_factory.mktemp("workers"), proxy.url, upstreams) as workers,
    ):
        before = bind(workers, [f"conv-{number}" for number in range(CONVERSATIONS)])
        yield Ground(workers, store, before), proxy, other


async def test_conversations_stay_when_the_network_is_slow(behind_proxy: tuple[Ground, Proxy, Server]) -> None:
    ground, proxy, _ = behind_proxy
    replies = await suffer(
        ground, "slow network", lambda: setattr(proxy, "delay_seconds", 0.4), proxy.heal, seconds=2.5, error="Timeout"
    )
    assert degraded(replies) == len(replies)


async def test_conversations_stay_when_replies_are_cut_in_half(behind_proxy: tuple[Ground, Proxy, Server]) -> None:
    ground, proxy, _ = behind_proxy
    replies = await suffer(
        ground, "cut replies", lambda: setattr(proxy, "cut", True), proxy.heal, seconds=1.5, error="ConnectionError"
    )
    assert degraded(replies) == len(replies)


@pytest.mark.parametrize(
    "script", [b"\0garbage\r\n", b"-NOAUTH Authentication required.\r\n", b"-CLUSTERDOWN Hash slot not served\r\n"]
)
async def test_conversations_stay_when_replies_are_wrong(
    behind_proxy: tuple[Ground, Proxy, Server], script: bytes
) -> None:
    ground, proxy, _ = behind_proxy
    await suffer(ground, f"reply {script!r}", lambda: setattr(proxy, "script", script), proxy.heal, seconds=0.7)


async def test_conversations_stay_when_a_failover_loses_acknowledged_writes(
    behind_proxy: tuple[Ground, Proxy, Server],
) -> None:
    ground, proxy, other = behind_proxy
    late_ids = [f"late-{number}" for number in range(100)]
    with other.client() as replica:
        replicate(replica, ground.store.port)
        wait_until(lambda: replica.dbsize() >= CONVERSATIONS)
        replica.replicaof("NO", "ONE")  # the link is cut: what comes now is lost
    async with ground.clients() as clients:
        begun = bindings(await begin_rebound(clients, late_ids[:20]))
        late = bindings((await visit_stored(clients, [*begun, *late_ids[20:]]))[-1])
        assert begun.items() <= late.items()
        everything = {**ground.before, **late}
        proxy.switch(other.port)
        ground.store.kill()
        replies = await clients.load(list(everything), seconds=2, model="model-a")
        replies += await clients.visit(everything)
    assert not failed(replies)
    assert not moved(replies, everything)
    after = Ground(ground.workers, other, everything)
    assert None not in after.stored().values()
    assert all(0 < left <= 86_400_000 for left in after.expiries())
