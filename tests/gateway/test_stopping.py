"""A stopping worker finishes its running answers within the drain time and loses no request."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.gateway.asgi import CHAT, chat
from tests.gateway.fleet import RUN, UVICORN, Fleet
from tests.gateway.load import Clients, failed, tell
from tests.gateway.upstream_process import UpstreamProcess
from tests.gateway.workers import providers_file
from tests.servers import start_server
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc"),
]

programs = pytest.mark.parametrize("program", [UVICORN, RUN], ids=["uvicorn", "run"])
DRAIN_SECONDS = 3

Start = Callable[..., Fleet]


@pytest.fixture(scope="module")
def upstream() -> Iterator[UpstreamProcess]:
    with UpstreamProcess("north") as upstream:
        yield upstream


@pytest.fixture
def start(tmp_path: Path, upstream: UpstreamProcess) -> Iterator[Start]:
    """Start the gateway; it is stopped in the end."""
    with start_server() as store:
        variables = {"REDIS_URL": store.url, "SENTINEL_PROVIDERS": providers_file(tmp_path, upstream.urls)}
        variables["SENTINEL_DRAIN_SECONDS"] = str(DRAIN_SECONDS)
        started: list[Fleet] = []

        def start(workers: int, program: tuple[str, ...]) -> Fleet:
            started.append(Fleet(tmp_path, workers, program=program, **variables))
            return started[-1]

        yield start
        for fleet in started:
            fleet.__exit__()


def client(fleet: Fleet) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(fleet.url, headers={"Authorization": f"Bearer {fleet.key}"})


def terminate(fleet: Fleet) -> float:
    fleet.process.send_signal(signal.SIGTERM)
    return time.monotonic()


def takes_connections(fleet: Fleet) -> bool:
    try:
        socket.create_connection(("127.0.0.1", fleet.port), timeout=5).close()
    except OSError:
        return False
    return True


async def ended(fleet: Fleet) -> None:
    await asyncio.to_thread(fleet.process.wait, 10)


async def begin_stream(http: aiohttp.ClientSession, **how: Any) -> aiohttp.ClientResponse:
    """Return a stream whose first event has arrived."""
    answer = await http.post(CHAT, json=chat(stream=True, conversation_id="conv-1", test=how))
    assert answer.status == 200
    await answer.content.readuntil(b"\n\n")
    return answer


@pytest.mark.parametrize(
    ("program", "workers", "refuses"),
    [(UVICORN, 1, True), (UVICORN, 2, False), (RUN, 1, True), (RUN, 2, True)],  # uvicorn's parent keeps its socket
    ids=["uvicorn", "uvicorn-2", "run", "run-2"],
)
async def test_stream_is_finished_and_connections_are_refused_when_its_worker_stops(
    start: Start, program, workers: int, refuses: bool
) -> None:
    fleet = start(workers, program)
    async with client(fleet) as http:
        stream = await begin_stream(http, chunks=5, pause=0.4)
        stopped_at = terminate(fleet)
        if refuses:
            await asyncio.to_thread(wait_until, lambda: not takes_connections(fleet), 1.5)  # the stream lasts 1.6 s
        text = await stream.text()
        lasted = time.monotonic() - stopped_at
    assert text.count('"north ') == 4
    assert text.endswith("data: [DONE]\n\n")
    await ended(fleet)
    assert 1.2 < lasted < DRAIN_SECONDS
    assert "Traceback" not in fleet.log.read_text()


@programs
async def test_stream_ends_with_an_error_event_when_it_lasts_longer_than_the_drain(start: Start, program) -> None:
    fleet = start(1, program)
    async with client(fleet) as http:
        stream = await begin_stream(http, chunks=50, pause=0.3)
        stopped_at = terminate(fleet)
        text = await stream.text()  # which fails when the end is missing
    assert DRAIN_SECONDS - 0.1 < time.monotonic() - stopped_at < DRAIN_SECONDS + 1
    *events, last, nothing = text.split("\n\n")
    assert nothing == ""
    assert all('"choices"' in event for event in events)
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "gateway_restarting"
    await ended(fleet)
    assert "Traceback" not in fleet.log.read_text()


async def test_plain_chat_gets_gateway_restarting_when_it_outlasts_the_drain(start: Start) -> None:
    fleet = start(1, UVICORN)
    async with client(fleet) as http:
        asked = asyncio.create_task(http.post(CHAT, json=chat(conversation_id="conv-1", test={"delay": 30})))
        await asyncio.sleep(0.3)
        terminate(fleet)
        answer = await asked
        assert answer.status == 503
        assert answer.headers["Retry-After"] == "1"
        assert answer.headers["Connection"] == "close"
        assert answer.headers["X-Request-Id"]
        assert (await answer.json())["error"]["code"] == "gateway_restarting"
    await ended(fleet)
    log = fleet.log.read_text()
    assert '"status":503' in log
    assert "Traceback" not in log


async def test_request_gets_gateway_restarting_when_its_body_is_incomplete(start: Start) -> None:
    fleet = start(1, UVICORN)
    with socket.create_connection(("127.0.0.1", fleet.port), timeout=10) as slow:
        slow.sendall(b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{" % CHAT.encode())
        await asyncio.sleep(0.3)
        terminate(fleet)
        with slow.makefile("rb") as file:
            answer = await asyncio.to_thread(file.read)  # to the end: the connection is closed
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"gateway_restarting" in answer
    await ended(fleet)
    assert "Traceback" not in fleet.log.read_text()


@programs
async def test_kept_connection_is_closed_with_an_answer_when_the_worker_stops(start: Start, program) -> None:
    fleet = start(1, program)
    paths = ("/v1/models", "/healthz")
    async with client(fleet) as http:
        for answer in await asyncio.gather(*map(http.get, paths)):  # a connection for each
            await answer.read()
            assert answer.headers.get("Connection") != "close"
        terminate(fleet)
        await asyncio.to_thread(wait_until, lambda: not takes_connections(fleet), DRAIN_SECONDS)
        for path, answer in zip(paths, await asyncio.gather(*map(http.get, paths)), strict=True):
            await answer.read()
            assert answer.status == 200, path
            assert answer.headers["Connection"] == "close"
    await ended(fleet)
    assert "Traceback" not in fleet.log.read_text()


@pytest.mark.parametrize("program", [UVICORN, RUN], ids=["uvicorn", "run"])
async def test_no_request_fails_when_workers_are_restarted_under_load(start: Start, program) -> None:
    fleet = start(2, program)
    ids = [f"conv-{number}" for number in range(60)]

    async def restart() -> None:
        for pid in fleet.workers():
            await asyncio.sleep(0.7)
            os.kill(pid, signal.SIGTERM)
            await asyncio.to_thread(wait_until, lambda gone=pid: gone not in fleet.workers() and two())

    def two() -> bool:
        return len(fleet.serving()) == 2

    async with Clients([fleet.url], fleet.key) as clients:
        restarting = asyncio.create_task(restart())
        replies = []
        while not restarting.done():
            replies += await clients.load(ids, seconds=0.5, rate=60)
        await restarting
    tell("restarts", replies)
    assert not failed(replies)
    assert {reply.outcome for reply in replies} == {"hit", "created"}


@pytest.mark.parametrize("program", [(*UVICORN, "--timeout-worker-healthcheck", "30"), RUN], ids=["uvicorn", "run"])
async def test_no_request_fails_when_all_workers_are_replaced(program: tuple[str, ...], start: Start) -> None:
    """`kill -HUP` of the parent: one worker after the other, the new one before the old one goes."""
    fleet = start(2, program)
    before = fleet.workers()
    async with Clients([fleet.url], fleet.key) as clients:
        await clients.load(["conv-1"], seconds=0.5, rate=60)
        fleet.process.send_signal(signal.SIGHUP)
        replies = []
        while set(before) & set(fleet.workers()):
            replies += await clients.load([f"conv-{n}" for n in range(60)], seconds=0.5, rate=60)
    tell("rolling restart", replies)
    assert not failed(replies)
    assert len(fleet.workers()) == 2


async def test_stop_ends_a_restart_before_it_replaces_the_other_workers(start: Start) -> None:
    fleet = start(2, RUN)
    before = set(fleet.workers())
    fleet.process.send_signal(signal.SIGHUP)
    wait_until(lambda: set(fleet.workers()) - before)
    terminate(fleet)
    replaced: set[int] = set()
    while fleet.process.poll() is None:
        replaced |= set(fleet.workers()) - before
        await asyncio.sleep(0.05)
    assert len(replaced) <= 1  # that one is ended as it starts
