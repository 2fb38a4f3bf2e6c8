"""Experiment 13: minutes under load and every fault at random moments; SOAK_SECONDS is their length, 120 by default."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random
from statistics import linear_regression
from typing import Any

import pytest

from sentinel_project.gateway.metrics import COUNT_SECONDS
from sessions_sticky.connections.cache_config import SOCKET_TIMEOUT_SECONDS
from tests.faults.balancer import Slot
from tests.faults.soak import NAMES, RATE, Soak, sample
from tests.gateway.live import provider_entry
from tests.gateway.upstream_process import UpstreamProcess
from tests.gateway.workers import Worker, Workers
from tests.servers import start_server, with_timeout
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads /proc")

SECONDS = int(os.environ.get("SOAK_SECONDS", "120"))
SEED = int(os.environ.get("SOAK_SEED", "13"))
IDLE_SECONDS = 30
"""After the last request the gateway keeps a provider's connection for 15 s."""
MAX_KIB_A_REQUEST = 0.5
"""Whatever is kept of each request is more: its body and headers are, as Python objects. Memory of new ids: 0.1."""
NOISE_KIB = 4096
"""By so much the memory of an idle worker of the same age differs from run to run: arenas, and threads' stacks."""

MAX_STORE_CONNECTIONS = 6
"""Of a worker: two for pipelines, one for a command that comes alone, three for the blocking clients (of the shared
health, of the operators' controls, of the gauges)."""

logger = logging.getLogger(__name__)


@pytest.fixture
def soak(tmp_path: Path) -> Iterator[Soak]:
    with ExitStack() as stack:
        upstreams = {name: stack.enter_context(UpstreamProcess(name)) for name in NAMES}
        file = tmp_path / "providers.toml"
        file.write_text("".join(provider_entry(name, each.urls[name], ["model-a"]) for name, each in upstreams.items()))
        store = stack.enter_context(start_server(tcp=True))
        variables = {
            "REDIS_URL": with_timeout(store.url, SOCKET_TIMEOUT_SECONDS),
            "SENTINEL_PROVIDERS": str(file),
            "SENTINEL_COOLDOWN_SECONDS": "1",
        }
        variables["SENTINEL_DRAIN_SECONDS"] = "20"
        workers = stack.enter_context(Workers(tmp_path, 2, grace_seconds=25, **variables))
        yield Soak(workers, store, upstreams, file, Random(SEED))


@pytest.mark.timeout(SECONDS + 180)
async def test_soak_loses_and_leaks_nothing_when_everything_fails_at_random(
    soak: Soak, experiment: Callable[..., None]
) -> None:
    await soak.run(SECONDS)
    counts, balancer = soak.balancer.counts, soak.balancer
    logger.info("%s; outcomes %s; faults %s", dict(counts), dict(balancer.outcomes), dict(soak.faults))
    assert balancer.unexplained == []
    assert counts["requests"] > 0.8 * RATE * SECONDS
    assert set(balancer.outcomes) >= {"hit", "created", "spilled", "rebound"}
    growth = memory(soak)
    leaks = await asyncio.to_thread(leftovers, soak)
    for worker in soak.workers.each:
        assert "Traceback" not in worker.log.read_text()
    experiment(
        13,
        "Soak",
        setup=f"2 workers behind a balancer, 4 providers, 1 Valkey; {SECONDS / 60:g} min at {RATE} requests/s, half "
        "of them streams",
        fault=", ".join(f"{number} x {said(name)}" for name, number in sorted(soak.faults.items())),
        figures={
            "requests": str(counts["requests"]),
            "moved without a reason": "0",
            "moved with it": str(counts["rebound, with the reason"] + counts["rebound, the answer broken"]),
            "failed": "0",
            "served elsewhere once, store out of reach": str(
                counts["served elsewhere by a new worker without the store"]
            ),
            "broken by kill -9 of their worker": str(counts["broken by kill -9 of their worker"]),
            "streams broken with their provider": str(counts["streams broken with their provider"]),
            "memory, second half": f"{growth:+.2f} KiB a request",
            "left over": ", ".join(f"{name} {number:+d}" for name, number in leaks.items()),
        },
    )


def said(fault: str) -> str:
    """Return the name of a fault in words."""
    return {
        "flap": "provider flaps",
        "crash_provider": "provider killed",
        "empty_store": "store killed, back empty",
        "reload": "providers changed",
        "stop_worker": "worker stopped (SIGTERM)",
        "kill_worker": "worker killed (-9)",
    }[fault]


def memory(soak: Soak) -> float:
    """Return by how many KiB a worker has grown for each request of the second half; fail when it leaks."""
    last = soak.samples[-1].pid  # a restart of the first half may have ended in the second
    half = [each for each in soak.samples if each.seconds > SECONDS / 2 and each.pid == last]
    slope, _ = linear_regression([each.requests for each in half], [each.rss_kib for each in half])
    requests = half[-1].requests - half[0].requests
    logger.info("memory %.2f KiB a request, %d to %d KiB", slope, half[0].rss_kib, half[-1].rss_kib)
    assert slope * requests < MAX_KIB_A_REQUEST * requests + NOISE_KIB
    assert max(each.threads for each in half) <= min(each.threads for each in half) + 6
    return slope


def leftovers(soak: Soak) -> dict[str, int]:
    """Compare the old worker with a new one, both idle: return what the old one has more; fail when it is much."""
    old = soak.balancer.slots[0].worker
    clients = store_clients(soak)
    fresh = soak.workers.add()
    asyncio.run(visit(soak, fresh))
    began = time.monotonic()
    while (more := compare(old, fresh)) and any(number > 2 for number in more.values()):
        assert time.monotonic() - began < IDLE_SECONDS, more
        time.sleep(0.5)
    wait_until(lambda: all(each.stats(name)["active"] == 0 for name, each in soak.upstreams.items()))
    time.sleep(1.5 * COUNT_SECONDS)  # for the number of tasks after the visit
    samples = fresh.metrics()
    assert samples["sentinel_streams_in_flight"] == 0
    assert clients <= 2 * MAX_STORE_CONNECTIONS
    soak.workers.each.remove(fresh)
    total = samples["sentinel_tasks"]
    fresh.__exit__()
    wait_until(lambda: old.metrics()["sentinel_tasks"] < total)
    tasks_of_two = old.metrics()["sentinel_tasks"]
    more["tasks"] = round(tasks_of_two - 2 * (total - tasks_of_two))
    assert more["tasks"] <= 2, (total, tasks_of_two)
    return more


def compare(old: Worker, fresh: Worker) -> dict[str, int]:
    one, other = sample(old, 0, 0), sample(fresh, 0, 0)
    return {"files": one.files - other.files, "threads": one.threads - other.threads}


def store_clients(soak: Soak) -> int:
    with soak.store.client() as client:
        return len([each for each in client.client_list() if each["cmd"] != "client|list"])


async def visit(soak: Soak, worker: Worker) -> None:
    """Let a worker do a bit of everything."""
    slot = Slot(worker, soak.workers.key)
    asked: list[Any] = [soak.balancer.ask(f"conv-{each}", slot, stream=each % 2 == 0) for each in range(40)]
    await asyncio.gather(*asked)
    await slot.http.close()
