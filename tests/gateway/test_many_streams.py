"""A thousand streams at once on one worker."""

from __future__ import annotations

import asyncio
import json
import logging
import resource
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.gateway.asgi import CHAT, chat
from tests.gateway.upstream_process import UpstreamProcess
from tests.gateway.workers import Worker, Workers, providers_file
from tests.servers import start_server
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc"),
]

logger = logging.getLogger(__name__)

STREAMS = 1000
LEAVERS = 200
LASTING_SECONDS = 27
"""Of their streams, were they not ended early."""
MAX_MIB = 300
IDLE_SECONDS = 6
FILES = 4 * STREAMS


@pytest.fixture(scope="module", autouse=True)
def _files() -> Iterator[None]:
    """Each stream takes two sockets of the worker."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < FILES:
        pytest.skip(f"only {hard} open files are allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, FILES), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module")
def upstream(_files: None) -> Iterator[UpstreamProcess]:
    with UpstreamProcess("north") as upstream:
        yield upstream


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory, upstream: UpstreamProcess) -> Iterator[Workers]:
    folder = tmp_path_factory.mktemp("workers")
    file = providers_file(folder, upstream.urls)
    with start_server() as store:
        variables = {
            "REDIS_URL": store.url,
            "SENTINEL_PROVIDERS": file,
            "SENTINEL_IDLE_TIMEOUT_SECONDS": str(IDLE_SECONDS),
        }
        with Workers(folder, 1, **variables) as workers:
            yield workers


@pytest.fixture
async def http(workers: Workers) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(
        workers.urls[0],
        headers={"Authorization": f"Bearer {workers.key}"},
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=60),
    ) as http:
        yield http


def watch(worker: Worker) -> tuple[int, float]:
    """Return its threads and its memory in MiB."""
    return worker.status("Threads"), worker.status("VmRSS") / 1024


async def test_streams_take_no_thread_and_little_memory_when_a_thousand_run_at_once(
    workers: Workers, upstream: UpstreamProcess, http: aiohttp.ClientSession
) -> None:
    (worker,) = workers.each

    beginning = asyncio.Semaphore(50)  # a connection whose request does not come in ten seconds is closed

    async def stream(number: int, pause: float = 1, at_once: int = STREAMS) -> str:
        how = {"chunks": 2, "pause": pause, "at_once": at_once}
        body = chat(stream=True, conversation_id=f"stream-{number}", test=how)
        async with beginning:
            answer = await http.post(CHAT, json=body)
        async with answer:
            assert answer.status == 200
            return await answer.text()

    await stream(-1, pause=0, at_once=1)
    threads_before, mib_before = watch(worker)
    begun = time.monotonic()
    running = [asyncio.create_task(stream(number)) for number in range(STREAMS)]
    peaks = []
    while not all(task.done() for task in running):
        peaks.append((*watch(worker), (await asyncio.to_thread(upstream.stats, "north"))["active"]))
        await asyncio.sleep(0.1)
    texts = await asyncio.gather(*running)
    threads, mib, at_once = (max(each) for each in zip(*peaks, strict=True))
    logger.info(
        "%d streams, %d at once, in %.1f s: threads %d before, %d at most; MiB %.0f before, %.0f at most",
        *(STREAMS, at_once, time.monotonic() - begun, threads_before, threads, mib_before, mib),
    )
    assert all(text.count('"north ') >= 2 and text.endswith("data: [DONE]\n\n") for text in texts)
    assert at_once == STREAMS
    assert threads <= threads_before + 2
    assert mib <= MAX_MIB
    assert worker.metrics()["sentinel_streams_in_flight"] == 0


async def test_upstream_requests_end_when_many_clients_leave(
    workers: Workers, upstream: UpstreamProcess, http: aiohttp.ClientSession
) -> None:
    async def begin(number: int) -> aiohttp.ClientResponse:
        body = chat(stream=True, conversation_id=f"leaver-{number}", test={"chunks": 30, "pause": LASTING_SECONDS / 30})
        answer = await http.post(CHAT, json=body)
        await answer.content.readany()
        return answer

    streams = await asyncio.gather(*map(begin, range(LEAVERS)))
    (worker,) = workers.each
    assert upstream.stats("north")["active"] == LEAVERS
    assert worker.metrics()["sentinel_streams_in_flight"] == LEAVERS
    for stream in streams[1:]:
        stream.close()
    began = time.monotonic()
    await asyncio.to_thread(wait_until, lambda: upstream.stats("north")["active"] == 1, LASTING_SECONDS / 2)
    took = time.monotonic() - began
    logger.info("%d clients left: the last upstream request ended %.3f s later", LEAVERS - 1, took)
    assert await streams[0].content.readany()  # the remaining one continues
    streams[0].close()
    await asyncio.to_thread(wait_until, lambda: worker.metrics()["sentinel_streams_in_flight"] == 0)


async def test_streams_end_with_an_error_event_when_their_upstream_stalls(http: aiohttp.ClientSession) -> None:
    async def stream(number: int) -> tuple[float, list[str]]:
        body = chat(stream=True, conversation_id=f"stalled-{number}", test={"chunks": 5, "stall_at": 2})
        begun = time.monotonic()
        async with http.post(CHAT, json=body) as answer:
            return time.monotonic() - begun, (await answer.text()).split("\n\n")

    begun = time.monotonic()
    answers = await asyncio.gather(*map(stream, range(50)))
    took = time.monotonic() - begun
    logger.info("50 stalled streams ended after %.2f s", took)
    for _, events in answers:
        assert len(events) == 4
        error = json.loads(events[2].removeprefix("data: "))["error"]
        assert error["code"] == "upstream_timeout"
    assert IDLE_SECONDS <= took < IDLE_SECONDS + 5
