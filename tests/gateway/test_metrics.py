"""/metrics of several workers; the dashboard and the alerts use only existing metrics."""

from __future__ import annotations

import asyncio
import json
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import aiohttp
import pytest

import sessions_sticky.metrics
from sentinel_project.gateway import metrics
from sessions_sticky import rendezvous
from tests.gateway.asgi import CHAT, chat
from tests.gateway.fleet import RUN, Fleet
from tests.gateway.live import ROOT
from tests.gateway.load import Clients, failed
from tests.gateway.upstream_process import UpstreamProcess
from tests.gateway.workers import Workers, names, providers_file, total
from tests.servers import Server, start_server
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

REQUESTS, RESOLUTIONS = "sentinel_requests_total", "sessions_sticky_resolutions_total"
METRIC = r"\b(?:sessions_sticky|sentinel)_[a-z_]+"


class Ground(NamedTuple):
    """Two workers over two upstreams. Providers do not cool down."""

    workers: Workers
    store: Server
    upstreams: UpstreamProcess

    def clients(self) -> Clients:
        return Clients(self.workers.urls, self.workers.key)


@pytest.fixture(scope="module")
def upstreams() -> Iterator[UpstreamProcess]:
    with UpstreamProcess("north", "south") as upstreams:
        yield upstreams


@pytest.fixture(scope="module")
def store() -> Iterator[Server]:
    with start_server() as store:
        yield store


def start_workers(folder: Path, store: Server, upstreams: UpstreamProcess) -> Workers:
    file = providers_file(folder, upstreams.urls)
    return Workers(folder, 2, REDIS_URL=store.url, SENTINEL_PROVIDERS=file, SENTINEL_COOLDOWN_SECONDS="0")


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory, store: Server, upstreams: UpstreamProcess) -> Iterator[Ground]:
    with start_workers(tmp_path_factory.mktemp("workers"), store, upstreams) as workers:
        yield Ground(workers, store, upstreams)


def documented() -> set[str]:
    """The metrics in the tables of both modules."""
    tables = f"{sessions_sticky.metrics.__doc__}{metrics.__doc__}"
    return set(re.findall(rf"^\| `({METRIC})`", tables, re.MULTILINE))


def asked_for() -> set[str]:
    """The metrics in the expressions of the dashboard and of the alerts."""
    dashboard = json.loads((ROOT / "docs" / "grafana.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    expressions += [each["expr"] for each in dashboard["annotations"]["list"]]
    expressions += [each["definition"] for each in dashboard["templating"]["list"] if each["type"] == "query"]
    alerts = (ROOT / "docs" / "alerts.yml").read_text()
    rules = alerts.split("- alert:")[1:]
    assert len(rules) >= 6
    for rule in rules:
        expression = re.search(r"expr:(.*?)\n +(?:for|labels|annotations):", rule, re.DOTALL)
        assert expression
        expressions.append(expression[1])
    assert len(expressions) >= 14
    return {name for each in expressions for name in re.findall(METRIC, each)}


def active(ground: Ground) -> int:
    """The number of requests that the upstreams are serving."""
    return sum(ground.upstreams.stats(name)["active"] for name in ("north", "south"))


async def test_every_metric_exists_when_there_was_traffic(ground: Ground) -> None:
    async with ground.clients() as clients:
        await clients.visit(["conv-1"], 0)
        await clients.visit(["conv-1"], stream=True)
        await clients.visit(["conv-1"], 0, test={"status": 500})  # all fail
        (first, _) = rendezvous("conv-2", {"north": 1, "south": 1})
        assert (await clients.ask("conv-2", test={"refuse": [first]})).outcome == "rebound"
        bound = (await clients.ask("conv-2")).provider
        assert (await clients.ask("conv-2", test={"refuse": [bound]})).outcome == "spilled"
        leaving = asyncio.create_task(clients.ask("conv-3", test={"delay": 30}))
        await asyncio.to_thread(wait_until, lambda: active(ground) == 1)
        leaving.cancel()
        await asyncio.to_thread(wait_until, lambda: active(ground) == 0)
        ground.store.kill()
        assert (await clients.ask("conv-1")).outcome == "degraded"
        ground.store.start()
    samples = ground.workers.each[1].metrics()
    there = names(samples)
    assert documented() <= there | {name.removesuffix("_bucket") for name in there}
    assert len(documented()) == 27
    assert asked_for() <= there
    assert total(samples, "sessions_sticky_rebinds_total", 'reason="first provider failed"') == 1
    assert total(samples, "sessions_sticky_store_errors_total", "ConnectionError") >= 1
    assert total(samples, "sentinel_upstream_seconds_count", 'stream="yes"') == 2


async def test_counts_are_the_sum_of_all_workers_whichever_answers(ground: Ground) -> None:
    one, other = ground.workers.each
    before = one.metrics()
    async with ground.clients() as clients:
        assert not failed(await clients.visit([f"sum-{number}" for number in range(30)], 0))
        assert not failed(await clients.visit([f"sum-{number}" for number in range(20)], 1))
    for samples in (one.metrics(), other.metrics()):
        for name in (REQUESTS, RESOLUTIONS, "sessions_sticky_resolve_seconds_count"):
            assert total(samples, name) - total(before, name) == 50
        assert total(samples, "sentinel_streams_in_flight") == 0


async def test_turns_that_a_worker_records_as_it_stops_are_counted(
    tmp_path: Path, store: Server, upstreams: UpstreamProcess
) -> None:
    with start_workers(tmp_path, store, upstreams) as workers:
        stopping, other = workers.each
        async with Clients(workers.urls, workers.key) as clients:
            await clients.visit([f"last-{number}" for number in range(20)], 0)
        workers.each.remove(stopping)
        await asyncio.to_thread(stopping.__exit__)
        assert total(other.metrics(), "sessions_sticky_turns_total") == 20


def test_workers_are_counted_without_their_parent_and_on_a_full_disk(
    tmp_path: Path, store: Server, upstreams: UpstreamProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, variables = tmp_path / "metrics", {"SENTINEL_PROVIDERS": providers_file(tmp_path, upstreams.urls)}
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(folder))
    with Fleet(tmp_path, 2, program=RUN, REDIS_URL=store.url, **variables) as fleet:
        fleet_files = [folder / f"gauge_livemostrecent_{pid}.db" for pid in fleet.workers()]
        wait_until(lambda: all(file.exists() for file in fleet_files))  # both export the state of providers
        assert metrics.count_workers() == 2
        (folder / f"gauge_livesum_{os.getpid()}.db").touch()
        assert metrics.count_workers() == 3


async def test_labels_stay_few_when_providers_make_up_error_codes(ground: Ground) -> None:
    async with ground.clients() as clients:
        for number in range(30):
            await clients.ask(f"code-{number}", test={"status": 500, "code": f"made-up-{number}"})
    samples = ground.workers.each[0].metrics()
    codes = {re.findall('code="([^"]*)"', sample)[0] for sample in samples if "upstream_failures_total" in sample}
    assert "500" in codes
    assert not [code for code in codes if "made-up" in code]


async def test_metrics_contain_no_owner_and_no_conversation(ground: Ground) -> None:
    async with ground.clients() as clients:
        await clients.ask("a-conversation-to-look-for")
    text = "\n".join(ground.workers.each[0].metrics())
    assert "a-conversation-to-look-for" not in text
    assert '"ann"' not in text


async def test_metrics_continue_when_a_worker_is_killed_and_begin_at_zero_when_all_are_new(
    tmp_path: Path, store: Server, upstreams: UpstreamProcess
) -> None:
    with start_workers(tmp_path, store, upstreams) as workers:
        doomed, survivor = workers.each
        headers = {"Authorization": f"Bearer {workers.key}"}
        async with Clients(workers.urls, workers.key) as clients:
            await clients.visit([f"kept-{number}" for number in range(10)])
            async with aiohttp.ClientSession(headers=headers) as http:
                body = chat(stream=True, test={"chunks": 30, "pause": 1})
                async with http.post(f"{doomed.url}{CHAT}", json=body) as answer:
                    await answer.content.readany()
                    assert survivor.metrics()["sentinel_streams_in_flight"] == 1
                    before = survivor.metrics()
                    doomed.kill()
        samples = survivor.metrics()
        assert samples["sentinel_streams_in_flight"] == 0
        workers.each.remove(doomed)
        newcomer = workers.add()
        counts = {name: value for name, value in before.items() if "_total{" in name or "_count" in name}
        assert counts
        for scrape in (samples, survivor.metrics(), newcomer.metrics()):
            assert total(scrape, REQUESTS) == 20
            assert all(scrape[name] >= value for name, value in counts.items())
    with start_workers(tmp_path, store, upstreams) as workers:
        samples = workers.each[0].metrics()
        assert total(samples, REQUESTS) == total(samples, RESOLUTIONS) == 0


def test_metrics_continue_when_a_process_was_killed_as_it_created_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    for kind in ("counter", "gauge_livesum", "histogram"):
        (tmp_path / f"{kind}_{os.getpid()}.db").touch()
    assert metrics.render()[0] == b""
    assert metrics.in_flight() == {}


def test_counts_are_written_once_when_threads_count_and_the_process_forks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MAX_PENDING", 50)
    value = metrics._Value("counter", "made_up_total", "made_up_total", (), (), "Made up.")

    def count() -> None:
        for _ in range(2_000):
            value.inc(1)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    value.inc(0.5)
    if (child := os.fork()) == 0:
        os._exit(len(metrics._pending))
    assert os.waitpid(child, 0)[1] == 0
    assert value.get() == value._file.read_value(value._key)[0] == 8000.5
    value.inc(1)
    value.set(3)
    assert value.get() == 3
