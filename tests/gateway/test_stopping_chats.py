"""Chats whose time is over because their worker stops."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from sentinel_project.gateway import endpoint, handler
from sentinel_project.gateway.routing import observer
from sentinel_project.gateway.shutdown import Stopping
from sentinel_project.gateway.turns.recorder import recorder
from sentinel_project.gateway.upstream import relay
from sessions_sticky import sessions
from tests.gateway.asgi import Call, ask, chat
from tests.gateway.upstreams import Held, Upstream, stalls, streams_and_stalls
from tests.waiting import until


@pytest.fixture
def stopping(monkeypatch: pytest.MonkeyPatch) -> Stopping:
    """A stopping worker."""
    stopping = Stopping()
    stopping.stop_requested = True
    for module in (endpoint, handler, observer, relay):
        monkeypatch.setattr(module, "stopping", stopping)
    return stopping


async def test_chat_is_answered_and_its_connection_closed_when_the_worker_stops(stopping, only_north: Upstream):
    answer = await ask(chat())
    assert answer.status == 200
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("stream", [False, True])
async def test_chat_gets_gateway_restarting_when_the_drain_is_over(stopping, only_north: Upstream, stream):
    only_north.then(stalls)
    call = Call(chat(stream=stream))
    serving = call.start()
    exchange = await asyncio.to_thread(only_north.wait_for_request)
    stopping.end_chats()
    await asyncio.wait_for(serving, 5)
    await call.next()
    assert (call.status, call.error["code"]) == (503, "gateway_restarting")
    assert call.headers["retry-after"] == "1"
    assert await asyncio.to_thread(exchange.ended.wait, 5)


async def test_turn_is_unanswered_when_the_drain_is_over(stopping, bound_to_north: str, north: Upstream):
    north.then(stalls)
    serving = Call(chat(conversation_id=bound_to_north)).start()
    await asyncio.to_thread(north.wait_for_request)
    stopping.end_chats()
    await asyncio.wait_for(serving, 5)
    await recorder.flush()
    (turn,) = (await sessions.atrail(bound_to_north)).turns
    assert (turn.outcome, turn.status) == ("unanswered", 503)


async def test_stream_ends_with_an_error_event_when_its_time_is_over(stopping, only_north: Upstream):
    only_north.then(streams_and_stalls)
    call = Call(chat(stream=True))
    serving = call.start()
    assert b'"first"' in await call.next()
    stopping.end_chats()
    assert json.loads((await call.next()).removeprefix(b"data: "))["error"]["code"] == "gateway_restarting"
    assert await call.next() == b""
    await asyncio.wait_for(serving, 5)
    assert await asyncio.to_thread(only_north.exchanges[0].ended.wait, 5)


async def test_chat_is_refused_at_once_when_the_time_is_over_already(stopping, only_north: Upstream):
    stopping.end_chats()
    answer = await ask(chat())
    assert (answer.status, answer.error["code"]) == (503, "gateway_restarting")
    assert only_north.exchanges == []


async def test_nothing_is_sent_when_the_client_leaves_a_worker_that_stops(stopping, only_north: Upstream):
    only_north.then(stalls)
    call = Call(chat())
    serving = call.start()
    await asyncio.to_thread(only_north.wait_for_request)
    call.leave()
    await asyncio.wait_for(serving, 5)
    assert call.outgoing.empty()


async def test_stream_continues_when_there_is_time_left(stopping, only_north: Upstream):
    held = Held()
    only_north.then(held)
    call = Call(chat(stream=True))
    serving = call.start()
    await call.next()
    held.release.set()
    await asyncio.wait_for(serving, 5)
    assert stopping._chats == set()  # nothing is kept of a chat that has ended


async def test_signals_are_left_as_they_were_when_the_server_is_through():
    before = [signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)]
    stopping = Stopping()
    stopping.listen()
    stopping.unlisten()
    assert [signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)] == before


class Server:
    """As uvicorn's, with one connection."""

    def __init__(self) -> None:
        self.servers: list[Any] = []
        self.server_state = SimpleNamespace(connections={1})
        self.got: list[int] = []

    def handle_exit(self, signum: int, frame: Any) -> None:
        self.got.append(signum)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """A server that handles SIGTERM, and a gateway that listens."""
    server, stopping = Server(), Stopping()
    before = signal.signal(signal.SIGTERM, server.handle_exit)
    stopping.listen()
    yield server
    stopping.unlisten()
    signal.signal(signal.SIGTERM, before)


@pytest.mark.slow
async def test_server_stops_when_its_last_connection_is_gone(server: Server):
    signal.raise_signal(signal.SIGTERM)
    await asyncio.sleep(0.2)
    assert server.got == []  # the connection may have one more request
    server.server_state.connections.clear()
    assert await until(lambda: server.got) == [signal.SIGTERM]


async def test_server_stops_at_once_on_the_second_signal(server: Server):
    signal.raise_signal(signal.SIGTERM)
    await asyncio.sleep(0.1)
    signal.raise_signal(signal.SIGTERM)
    assert server.got == [signal.SIGTERM]


@pytest.mark.slow
async def test_server_stops_when_a_connection_stays_for_half_the_drain(server: Server, settings):
    settings.SENTINEL_DRAIN_SECONDS = 0.4
    signal.raise_signal(signal.SIGTERM)
    await asyncio.sleep(0.1)
    assert server.got == []
    assert await until(lambda: server.got) == [signal.SIGTERM]
