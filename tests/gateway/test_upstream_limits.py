"""Providers that send without end, or slowly without end: what the gateway bears of one."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from sentinel_project.gateway.upstream import client, relay
from tests.gateway.asgi import Call, ask, chat
from tests.gateway.upstreams import Exchange, Upstream, fails, says
from tests.waiting import stopwatch

LIMIT = 10_000


@pytest.fixture
def low_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MAX_ANSWER_BYTES", LIMIT)
    monkeypatch.setattr(relay, "MAX_EVENT_BYTES", LIMIT)


def sends_without_end(exchange: Exchange) -> None:
    """One answer, or one event, that never ends."""
    exchange.begin("text/event-stream" if exchange.json.get("stream") else "application/json")
    while True:
        exchange.chunk(b"x" * 1000)


def drips(exchange: Exchange) -> None:
    """A byte now and then: no read ever waits for long."""
    exchange.begin("application/json")
    while True:
        exchange.chunk(b" ")
        time.sleep(0.02)


def drips_an_error(exchange: Exchange) -> None:
    exchange.send_response(500)
    exchange.send_header("Content-Length", "100000")
    exchange.end_headers()
    while True:
        exchange.wfile.write(b" ")
        time.sleep(0.02)


@pytest.mark.usefixtures("low_limits")
async def test_chat_answers_502_and_leaves_when_an_answer_does_not_end(only_north: Upstream):
    only_north.then(sends_without_end)
    answer = await ask(chat())
    assert answer.status == 502
    assert answer.error["code"] == "upstream_too_long"
    assert answer.error["message"] == f"Provider 'north' sent more than {LIMIT} bytes"
    assert await asyncio.to_thread(only_north.exchanges[0].ended.wait, 5)
    assert only_north.exchanges[0].left_early


@pytest.mark.usefixtures("low_limits")
async def test_stream_answers_502_and_disconnects_when_its_first_event_does_not_end(only_north: Upstream):
    only_north.then(sends_without_end)
    answer = await ask(chat(stream=True))
    assert (answer.status, answer.error["code"]) == (502, "upstream_too_long")
    assert await asyncio.to_thread(only_north.exchanges[0].ended.wait, 5)
    assert only_north.exchanges[0].left_early


@pytest.mark.usefixtures("low_limits")
async def test_stream_ends_with_an_error_event_and_disconnects_when_an_event_does_not_end(only_north: Upstream):
    def behave(exchange: Exchange) -> None:
        exchange.begin()
        exchange.event({"content": "first"})
        while True:
            exchange.chunk(b"x" * 1000)

    only_north.then(behave)
    answer = await ask(chat(stream=True))
    assert answer.status == 200
    error = answer.body.rpartition(b"data: ")[2]
    assert json.loads(error)["error"]["code"] == "upstream_too_long"
    assert await asyncio.to_thread(only_north.exchanges[0].ended.wait, 5)
    assert only_north.exchanges[0].left_early


@pytest.mark.usefixtures("low_limits")
async def test_stream_continues_when_only_all_of_its_events_are_longer(only_north: Upstream):
    def behave(exchange: Exchange) -> None:
        exchange.begin()
        for _ in range(30):
            exchange.event({"content": "x" * 1000})
        exchange.end()

    only_north.then(behave)
    answer = await ask(chat(stream=True))
    assert answer.body.count(b'xxx"') == 30
    assert answer.body.endswith(b"data: [DONE]\n\n")


@pytest.mark.slow
@pytest.mark.parametrize("ending", [b"\n\n", b"\r\n\r\n", b"\r\r"])
async def test_events_are_passed_on_whole_when_their_ends_come_in_pieces(only_north: Upstream, ending):
    first = b'data: {"choices":[{"delta":{"content":"a"}}]}'
    events = [first + ending, b"data: 2" + ending]

    def behave(exchange: Exchange) -> None:
        exchange.begin()
        for byte in b"".join(events) + b"data: [DONE]":
            exchange.chunk(bytes([byte]))
            time.sleep(0.005)
        exchange.chunk(b"")

    only_north.then(behave)
    call = Call(chat(stream=True))
    serving = call.start()
    parts = []
    while part := await call.next():
        parts.append(part)
    await serving
    assert parts == [*events, b"data: [DONE]\n\n"]


@pytest.mark.slow
@pytest.mark.parametrize("behave", [drips, drips_an_error])
async def test_chat_answers_504_when_the_provider_drips(gateway, only_north: Upstream, behave):
    gateway.SENTINEL_UPSTREAM_TIMEOUT_SECONDS = 0.3
    only_north.then(behave)
    took = stopwatch()
    answer = await ask(chat())
    assert took() < 2
    assert (answer.status, answer.error["code"]) == (504, "upstream_timeout")
    assert await asyncio.to_thread(only_north.exchanges[0].ended.wait, 5)


async def test_chat_is_answered_when_the_provider_sends_a_long_header(only_north: Upstream):
    body = {"choices": [{"message": {"role": "assistant", "content": "x"}}]}
    only_north.then(fails(200, body, X_Policy="x" * 60_000))
    assert (await ask(chat())).status == 200


async def test_chat_answers_502_when_the_provider_sends_a_huge_header(only_north: Upstream):
    only_north.then(fails(200, b"{}", X_Huge="x" * 100_000))
    answer = await ask(chat())
    assert (answer.status, answer.error["code"]) == (502, "upstream_unreachable")


async def test_status_counts_when_the_body_of_an_error_breaks_off(only_north: Upstream):
    def breaks_off(exchange: Exchange) -> None:
        says(b"HTTP/1.1 413 Too Large\r\nContent-Type: text/plain\r\nContent-Length: 99", b"only 1 MB")(exchange)
        exchange.cut()

    only_north.then(breaks_off)
    answer = await ask(chat())
    assert (answer.status, answer.error["message"]) == (413, "only 1 MB")


async def test_error_reports_that_redirects_are_not_followed_when_the_provider_redirects(only_north: Upstream, south):
    only_north.then(fails(307, Location=f"{south.url}/chat/completions"))
    answer = await ask(chat())
    assert answer.status == 502
    assert answer.error["message"] == "Provider 'north' answered 307: redirects are not followed"
    assert not south.exchanges
