"""Load and faults at random moments for minutes, and the resources that the workers use."""

from __future__ import annotations

import asyncio
import logging
import math
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from tests.faults.balancer import Balancer, Slot
from tests.gateway.live import provider_entry
from tests.gateway.upstream_process import UpstreamProcess
from tests.gateway.workers import Worker, Workers
from tests.servers import Server

logger = logging.getLogger(__name__)

NAMES = ("north", "south", "east", "west")
CONVERSATIONS = 80
RATE = 50
SAMPLE_SECONDS = 1.0
PAUSE_SECONDS = (1.0, 4.0)
"""Between the end of one fault and the next."""


class Sample(NamedTuple):
    """What a worker takes, `seconds` after the begin, `requests` of all workers later."""

    pid: int
    seconds: float
    requests: int
    rss_kib: int
    threads: int
    files: int


def sample(worker: Worker, seconds: float, requests: int) -> Sample:
    """Look at a worker."""
    pid = worker.process.pid
    files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return Sample(pid, seconds, requests, worker.status("VmRSS"), worker.status("Threads"), files)


class Soak:
    """Two workers, four providers and a store under load; `run` it once.

    One worker is left alone in the second half: its `samples` tell of leaks.
    """

    def __init__(
        self, workers: Workers, store: Server, upstreams: dict[str, UpstreamProcess], file: Path, random: Random
    ) -> None:
        self.balancer = Balancer(random)
        self.faults: Counter[str] = Counter()
        self.samples: list[Sample] = []
        self.workers, self.store, self.upstreams, self._file = workers, store, upstreams, file
        self._random = random
        self._ids = [f"conv-{number}" for number in range(CONVERSATIONS)]
        self._busy: set[str] = set()
        self._over = False
        self._began = time.monotonic()
        self._until = 0.0

    async def run(self, seconds: float) -> None:
        """Run; what was found is in the attributes."""
        self._began = time.monotonic()
        self._until = self._began + seconds
        self.balancer.slots = [Slot(worker, self.workers.key) for worker in self.workers.each]
        try:
            await self._all_see_all()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._load(tasks))
                tasks.create_task(self._watch())
                await self._suffer()
                self._over = True
        finally:
            for slot in self.balancer.slots:
                await slot.http.close()

    async def _load(self, tasks: asyncio.TaskGroup) -> None:
        """Half of the requests are streams, some of which last seconds; one in ten begins a conversation."""
        began, number = time.monotonic(), 0
        while not self._over:
            number += 1
            await asyncio.sleep(max(0.0, began + number / RATE - time.monotonic()))
            free = [each for each in self._ids if each not in self._busy]
            new = not free or number % 10 == 0
            tasks.create_task(self._ask(f"once-{number}" if new else self._random.choice(free)))

    async def _ask(self, conversation_id: str, slot: Slot | None = None) -> None:
        pause = self._random.choice((0, 0.02, 0.6))
        fields = {"stream": True, "test": {"chunks": 5, "pause": pause}} if self._random.random() < 0.5 else {}
        self._busy.add(conversation_id)
        await self.balancer.ask(conversation_id, slot, **fields)
        self._busy.discard(conversation_id)

    async def _all_see_all(self) -> None:
        """Let each worker see each conversation, which it then knows without the store."""
        await asyncio.gather(*map(self._all_see, self._ids))

    async def _all_see(self, conversation_id: str) -> None:
        while conversation_id in self._busy:  # noqa: ASYNC110 - a test may poll
            await asyncio.sleep(0.02)
        self._busy.add(conversation_id)
        for slot in self.balancer.slots:
            while await self.balancer.ask(conversation_id, slot) == "degraded":  # noqa: ASYNC110 - asks each time
                await asyncio.sleep(0.1)
        self._busy.discard(conversation_id)

    async def _watch(self) -> None:
        while not self._over:
            worker = self.balancer.slots[0].worker
            if worker.process.poll() is None:
                seconds, requests = time.monotonic() - self._began, self.balancer.counts["requests"]
                with suppress(AssertionError, OSError):  # it ends at this moment
                    self.samples.append(sample(worker, seconds, requests))
            await asyncio.sleep(SAMPLE_SECONDS)

    async def _suffer(self) -> None:
        kinds: list[Callable[[], Awaitable[None]]]
        kinds = [
            self._flap,
            self._crash_provider,
            self._empty_store,
            self._reload,
            self._stop_worker,
            self._kill_worker,
        ]
        turn: list[Callable[[], Awaitable[None]]] = []
        while time.monotonic() < self._until:
            turn = turn or self._random.sample(kinds, len(kinds))  # each as often as the others
            fault = turn.pop()
            logger.info("%.0f s: %s", time.monotonic() - self._began, fault.__name__)
            self.faults[fault.__name__.strip("_")] += 1
            await fault()
            await asyncio.sleep(self._random.uniform(*PAUSE_SECONDS))

    async def _flap(self) -> None:
        name = self._random.choice(NAMES)
        how: dict[str, Any] = {"status": self._random.choice((500, 503, 429))}
        await asyncio.to_thread(self.upstreams[name].behave, name, **how)
        await asyncio.sleep(self._random.uniform(0.5, 2))
        await asyncio.to_thread(self.upstreams[name].behave, name)

    async def _crash_provider(self) -> None:
        upstream = self.upstreams[self._random.choice(NAMES)]
        self.balancer.broken_at.append(math.inf)
        await asyncio.to_thread(upstream.kill)
        self.balancer.broken_at[-1] = time.monotonic() + 1  # until the workers have heard of it
        await asyncio.sleep(self._random.uniform(0, 1))
        await asyncio.to_thread(upstream.start)

    async def _empty_store(self) -> None:
        await asyncio.to_thread(self.store.kill)
        await asyncio.sleep(self._random.uniform(0, 1))
        await asyncio.to_thread(self.store.start)
        # A worker that is new now must not find a conversation that is neither in the store nor known to it.
        await self._all_see_all()

    async def _reload(self) -> None:
        """Remove one provider or none and change weights; sometimes write an invalid file."""
        gone = self._random.choice((*NAMES, None))
        urls = {name: self.upstreams[name].urls[name] for name in NAMES if name != gone}
        text = "".join(self._entry(name, url) for name, url in urls.items())
        if self._random.random() < 0.25:
            await self._write("[[provider" + text)
        await self._write(text)

    async def _write(self, text: str) -> None:
        new = self._file.with_suffix(".new")
        new.write_text(text)
        new.rename(self._file)
        await asyncio.sleep(3)  # it is taken over after two; a worker that starts reads it at once

    def _entry(self, name: str, url: str) -> str:
        return provider_entry(name, url, ["model-a"], weight=self._random.choice((0.5, 1, 3)))

    async def _stop_worker(self) -> None:
        slot = self._victim()
        slot.worker.process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(slot.worker.process.wait, 30)
        await self._replace(slot)

    async def _kill_worker(self) -> None:
        slot = self._victim()
        slot.is_killed = True
        await asyncio.to_thread(slot.worker.kill)
        await self._replace(slot)

    def _victim(self) -> Slot:
        half_over = time.monotonic() > (self._began + self._until) / 2
        return self.balancer.slots[1] if half_over else self._random.choice(self.balancer.slots)

    async def _replace(self, slot: Slot) -> None:
        self.workers.each.remove(slot.worker)
        new = Slot(await asyncio.to_thread(self.workers.add), self.workers.key)
        self.balancer.slots[self.balancer.slots.index(slot)] = new
        await self._all_see_all()
        await asyncio.sleep(0.1)  # what was under way to the old one
        await slot.http.close()
