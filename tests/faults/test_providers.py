"""Experiments 14 to 17: a request that each provider fails, a slow provider, a clock that steps, an empty account."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from sessions_sticky import Session
from tests.gateway.live import ROOT, provider_entry
from tests.gateway.load import Clients, Reply, bindings, failed, moved
from tests.gateway.upstream_process import UpstreamProcess
from tests.gateway.workers import Workers, total
from tests.servers import Server, start_server
from tests.waiting import SECONDS, stopwatch, wait_until

NAMES = ("north", "south", "east")
SETUP = "2 workers, 3 providers, 1 Valkey; 150 conversations, 100 chats a second for 6 s"
CLOCK = """
import os, pathlib, time
real, offset = time.time, pathlib.Path(os.environ["CLOCK_OFFSET"])
time.time = lambda: real() + float(offset.read_text())
"""
"""A `sitecustomize` module: the wall clock of a worker is as far off as a file says."""


class Ground(NamedTuple):
    """Two workers over three providers; each has seen all conversations of `before`."""

    workers: Workers
    upstreams: dict[str, UpstreamProcess]
    store: Server
    before: dict[str, tuple[str, str]]
    offsets: tuple[Path, Path]

    def clients(self) -> Clients:
        return Clients(self.workers.urls, self.workers.key)

    def stored(self) -> dict[str, str]:
        """Return the provider that the store holds for each conversation."""
        with self.store.client() as client:
            values = {each: client.get(f"sentinel:session:{each}") for each in self.before}
        return {each: Session.from_json(value).provider for each, value in values.items()}

    def moved_for_good(self) -> int:
        """Count the conversations whose binding has changed."""
        return sum(provider != self.before[each][0] for each, provider in self.stored().items())


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    upstreams = {name: UpstreamProcess(name) for name in NAMES}
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(CLOCK)
    offsets = (tmp_path / "offset-0", tmp_path / "offset-1")
    for offset in offsets:
        offset.write_text("0")
    file = tmp_path / "providers.toml"
    urls = {name: upstream.urls[name] for name, upstream in upstreams.items()}
    file.write_text(
        "".join(provider_entry(name, url, ["model-a"], first_byte_seconds=0.5) for name, url in urls.items())
    )
    variables = {"SENTINEL_PROVIDERS": str(file), "PYTHONPATH": f"{hook}:{ROOT}"}
    with (
        start_server() as store,
        Workers(tmp_path, 1, REDIS_URL=store.url, CLOCK_OFFSET=str(offsets[0]), **variables) as workers,
    ):
        workers.add(CLOCK_OFFSET=str(offsets[1]))
        yield Ground(workers, upstreams, store, asyncio.run(_visit(workers)), offsets)
    for upstream in upstreams.values():
        upstream.kill()


async def _visit(workers: Workers) -> dict[str, tuple[str, str]]:
    async with Clients(workers.urls, workers.key) as clients:
        return bindings(await clients.visit([f"conv-{number}" for number in range(150)]))


async def under_load(ground: Ground, during: Callable[[Clients], Any], **fields: Any) -> list[Reply]:
    """Put load on the workers, do something a second later, and return the replies."""
    async with ground.clients() as clients:
        running = asyncio.create_task(clients.load(list(ground.before), seconds=6, rate=100, **fields))
        await asyncio.sleep(1)
        await during(clients)
        return await running


def spilled(replies: list[Reply]) -> list[Reply]:
    return [reply for reply in replies if reply.outcome == "spilled"]


async def test_no_other_request_is_refused_when_one_makes_every_provider_fail(ground: Ground, experiment) -> None:
    poison: list[Reply] = []

    async def ask_poison(clients: Clients) -> None:
        for number in range(20):
            poison.append(await clients.ask("poison", number % 2, test={"status": 500}))
            await asyncio.sleep(0.2)

    replies = await under_load(ground, ask_poison)
    assert {reply.status for reply in poison} == {500}
    assert len(replies) == 600
    assert not failed(replies)
    assert not moved(replies, ground.before)
    assert ground.moved_for_good() == 0
    experiment(
        14,
        "Poison request",
        setup=SETUP,
        fault="20 requests of one conversation that each provider answers with 500",
        figures={
            "other chats": f"{len(replies)}",
            "refused": f"{len(failed(replies))}",
            "served elsewhere": f"{len(spilled(replies))}",
            "conversations moved": f"{ground.moved_for_good()}",
        },
    )


async def test_streams_go_elsewhere_when_a_provider_is_slow(ground: Ground, experiment) -> None:
    async def slow_down(clients: Clients) -> None:
        await asyncio.to_thread(ground.upstreams["north"].behave, "north", delay=5)

    replies = await under_load(ground, slow_down, stream=True)
    assert not failed(replies)
    assert ground.moved_for_good() == 0
    norths = [reply for reply in replies if ground.before[reply.conversation_id][0] == "north"]
    others = sorted(reply.seconds for reply in replies if ground.before[reply.conversation_id][0] != "north")
    late = [reply for reply in norths if reply.seconds > 0.5 + others[len(others) * 9 // 10]]  # not by a busy machine
    assert len(spilled(replies)) > 60
    assert len(late) < len(norths) / 3
    experiment(
        15,
        "Slow provider",
        setup=f"{SETUP}, streams; `first_byte_seconds` 0.5",
        fault="one provider begins its answers after 5 s",
        figures={
            "chats": f"{len(replies)}",
            "failed": f"{len(failed(replies))}",
            "of the provider's conversations": f"{len(norths)}",
            "waited for it": f"{len(late)}",
            "longest": f"{max(reply.seconds for reply in replies):.1f} s",
            "conversations moved": f"{ground.moved_for_good()}",
        },
    )


@pytest.mark.parametrize("step", [-3600, 3600])
async def test_cooldown_ends_in_time_when_the_clock_of_a_worker_steps(ground: Ground, experiment, step: int) -> None:
    one = next(each for each, (provider, _) in ground.before.items() if provider == "north")
    north = ground.upstreams["north"]
    async with ground.clients() as clients:
        north.behave("north", status=429, headers={"Retry-After": "3"})
        begun, took = time.monotonic(), stopwatch(*(worker.process.pid for worker in ground.workers.each))
        assert (await clients.ask(one, 0)).outcome == "spilled"
        north.behave("north")
        ground.offsets[0].write_text(str(step))
        await asyncio.sleep(0.9)
        asked = north.stats("north")["requests"]
        assert [(await clients.ask(one, worker)).outcome for worker in (0, 1)] == ["spilled", "spilled"]
        assert north.stats("north")["requests"] == asked
        back = []
        for worker in (0, 1):
            async with asyncio.timeout(SECONDS):
                while (await clients.ask(one, worker)).outcome != "hit":  # noqa: ASYNC110 - asks each time
                    await asyncio.sleep(0.02)
            back.append(time.monotonic() - begun)
            assert took() < 4.5
    assert min(back) > 2.9
    experiment(
        16,
        "Clock step",
        setup="2 workers, 3 providers, 1 Valkey; a provider that asks to wait for 3 s",
        fault=f"the clock of one worker steps by {step:+d} s during the cooldown",
        figures={"back at that worker and at the other after": " and ".join(f"{each:.1f} s" for each in back)},
    )


async def test_conversations_come_back_when_an_account_is_out_of_credit_for_a_while(ground: Ground, experiment) -> None:
    north = ground.upstreams["north"]

    async def run_out(clients: Clients) -> None:
        await asyncio.to_thread(north.behave, "north", status=402, message="no credit")

    replies = await under_load(ground, run_out)
    asked = north.stats("north")["requests"]
    assert not failed(replies)
    assert ground.moved_for_good() == 0
    refused = sum(
        total(worker.metrics(), "sentinel_upstream_failures_total", "north") for worker in ground.workers.each[:1]
    )
    assert 1 <= refused <= 40
    took = stopwatch(*(worker.process.pid for worker in ground.workers.each))
    wait_until(lambda: total(ground.workers.each[0].metrics(), "sentinel_provider_cooling", "north") >= 1)
    assert took() < 2
    experiment(
        17,
        "Account out of credit",
        setup=SETUP,
        fault="one provider answers 402",
        figures={
            "chats": f"{len(replies)}",
            "failed": f"{len(failed(replies))}",
            "served elsewhere": f"{len(spilled(replies))}",
            "refused by the provider": f"{refused:.0f}",
            "conversations moved": f"{ground.moved_for_good()}",
        },
    )
    assert asked > 0
