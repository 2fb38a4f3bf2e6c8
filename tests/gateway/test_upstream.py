"""Responses to clients when providers fail."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
import time

import msgspec
import pytest

from sentinel_project.gateway.routing import process
from sentinel_project.gateway.upstream import pool
from tests.gateway.asgi import Call, ask, chat
from tests.gateway.conftest import NORTH_KEY, provider
from tests.gateway.upstreams import Exchange, Upstream, answers, breaks_off, fails, says, stalls, streams_and_stalls
from tests.servers import free_port
from tests.waiting import SECONDS, stopwatch

ERROR = {"message": "Slow down", "type": "rate_limit_error", "param": "messages", "code": "rate_limit_exceeded"}
streaming = pytest.mark.parametrize("stream", [False, True])


@streaming
async def test_chat_answers_502_when_the_provider_refuses_connections(gateway, north: Upstream, stream):
    gone = msgspec.structs.replace(provider(north), base_url=f"http://127.0.0.1:{free_port()}/v1")
    gateway.SENTINEL_PROVIDERS = (gone,)
    answer = await ask(chat(stream=stream))
    assert answer.status == 502
    assert answer.error["code"] == "upstream_unreachable"
    assert "'north'" in answer.error["message"]
    assert answer.headers["x-session-provider"] == "north"


@pytest.mark.parametrize(
    ("base_url", "kind"),
    [
        ("http://127.0.0.1:1/v1", "ConnectFailed"),
        ("http://1.2.3.4.5/v1", "NameNotFound"),
    ],
)
async def test_log_has_the_reason_when_a_provider_cannot_be_reached(gateway, north: Upstream, caplog, base_url, kind):
    gateway.SENTINEL_PROVIDERS = (msgspec.structs.replace(provider(north), base_url=base_url),)
    assert (await ask(chat())).error["code"] == "upstream_unreachable"
    assert f"provider 'north' failed: upstream_unreachable ({kind})" in caplog.messages


@streaming
async def test_chat_answers_504_when_the_provider_stalls(gateway, only_north: Upstream, stream):
    gateway.SENTINEL_UPSTREAM_TIMEOUT_SECONDS = 0.1
    only_north.then(stalls)
    answer = await ask(chat(stream=stream))
    assert answer.status == 504
    assert answer.error["code"] == "upstream_timeout"
    exchange = only_north.wait_for_request()  # it may take longer than the gateway waited
    assert exchange.ended.wait(SECONDS)
    assert exchange.left_early


@streaming
async def test_chat_answers_502_when_the_provider_hangs_up(only_north: Upstream, stream):
    only_north.then(Exchange.cut)
    answer = await ask(chat(stream=stream))
    assert answer.status == 502
    assert answer.error["message"]


@streaming
async def test_chat_is_served_by_its_provider_when_that_closes_a_kept_connection(only_north: Upstream, stream):
    await ask(chat(stream=stream))
    await asyncio.sleep(0.05)
    only_north.then(Exchange.cut)
    assert (await ask(chat(stream=stream))).status == 200
    first, cut, again = only_north.exchanges
    assert cut is first  # one connection
    assert again is not first
    assert not process.health.failing()


@streaming
async def test_chat_is_served_by_its_provider_when_that_closes_all_kept_connections(only_north: Upstream, stream):
    both = threading.Barrier(2)

    def answers_both(exchange: Exchange) -> None:
        both.wait(SECONDS)
        answers(exchange)

    def answers_on_a_new_connection(exchange: Exchange) -> None:
        if exchange in kept:
            exchange.cut()
        else:
            answers(exchange)

    only_north.then(answers_both, answers_both)
    await asyncio.gather(ask(chat()), ask(chat()))
    kept = set(only_north.exchanges)
    assert len(kept) == 2
    only_north.then(Exchange.cut, answers_on_a_new_connection)
    assert (await ask(chat(stream=stream))).status == 200
    assert not process.health.failing()


@pytest.mark.slow
async def test_chat_is_sent_once_when_the_provider_drops_a_kept_connection_late(only_north: Upstream, monkeypatch):
    def works_and_breaks_off(exchange: Exchange) -> None:
        time.sleep(0.3)
        exchange.cut()

    monkeypatch.setattr(pool, "CLOSING_SECONDS", 0.1)
    await ask(chat())
    only_north.then(works_and_breaks_off)
    assert (await ask(chat())).status == 502
    assert len(only_north.exchanges) == 2


@pytest.mark.slow
async def test_chat_answers_502_when_the_provider_closes_a_kept_connection_and_the_next(only_north: Upstream):
    await ask(chat())
    only_north.then(Exchange.cut, Exchange.cut)
    assert (await ask(chat())).status == 502
    assert len(only_north.exchanges) == 3


@streaming
@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nConnection: close", b"HTTP/1.1 200 OK\r\nContent-Length: 0"])
async def test_chat_is_served_by_another_when_the_provider_answers_nothing(gateway, north, south, head, stream):
    gateway.SENTINEL_PROVIDERS = (provider(north), provider(south, weight=0.000_001))

    def nothing(exchange: Exchange) -> None:
        says(head)(exchange)
        exchange.cut()

    north.then(nothing)
    answer = await ask(chat(conversation_id="conv-1", stream=stream))
    assert (answer.status, answer.headers["x-session-provider"]) == (200, "south")
    assert answer.body


async def test_chat_answers_502_when_the_provider_breaks_off_a_plain_answer(only_north: Upstream):
    only_north.then(breaks_off(b'{"id": '))
    answer = await ask(chat())
    assert answer.status == 502
    assert answer.error["message"] == "Provider 'north' closed the connection before the end of its answer"


@streaming
@pytest.mark.parametrize("status", [400, 404, 413, 422, 429, 500, 503])
async def test_chat_passes_the_error_on_when_the_provider_gives_one(only_north: Upstream, status, stream):
    only_north.then(fails(status, {"error": ERROR}, Retry_After="7"))
    answer = await ask(chat(conversation_id="conv-1", stream=stream))
    assert answer.status == status
    assert answer.error == ERROR
    if status in (429, 503):
        assert answer.headers["retry-after"] == "7"
    assert answer.headers["x-session-provider"] == "north"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>Bad Gateway</html>",
        b"\xff\xfe",
        b"[]",
        b"null",
        b'{"error": null}',
        b'{"error": {}}',
        b'{"error": {"message": null, "type": null, "param": null, "code": null}}',
        b'{"detail": []}',
        300_000 * b"[",
    ],
)
async def test_chat_passes_the_status_on_when_the_error_is_of_another_shape(only_north: Upstream, body):
    only_north.then(fails(500, body))
    answer = await ask(chat())
    assert answer.status == 500
    assert answer.error["message"] == "Provider 'north' answered 500"
    assert answer.error["type"] == "upstream_error"


async def test_chat_passes_the_error_on_when_its_fields_have_other_types(only_north: Upstream):
    only_north.then(fails(400, {"error": {"message": ["a"], "type": 1, "param": {"x": 1}, "code": 17, "more": 1}}))
    answer = await ask(chat())
    assert answer.error == {"message": '["a"]', "type": "upstream_error", "param": None, "code": None}


async def test_chat_passes_the_error_on_when_it_arrives_in_pieces(only_north: Upstream):
    whole = json.dumps({"error": {**ERROR, "message": "long " * 2000}}).encode()

    def in_pieces(exchange: Exchange) -> None:
        exchange.send_response(400)
        exchange.send_header("Content-Length", str(len(whole)))
        exchange.end_headers()
        for at in range(0, len(whole), 4000):
            exchange.wfile.write(whole[at : at + 4000])
            time.sleep(0.01)

    only_north.then(in_pieces)
    answer = await ask(chat())
    assert answer.error["message"] == "long " * 2000


@streaming
@pytest.mark.parametrize(
    "head",
    [
        b"429 Slow down\r\nRetry-After: Mon, 01 Jan 2020 00:00:00 +99999999999999",
        b"429 Slow down\r\nRetry-After: 1 Jan 99999999999999999999 00:00:00 GMT",
        b"429 Slow down\r\nRetry-After: \xff",
        b"600 Odd",
        b"999 Odd",
    ],
)
async def test_chat_is_served_by_another_when_a_refusal_makes_no_sense(gateway, north: Upstream, south, head, stream):
    gateway.SENTINEL_PROVIDERS = (provider(north), provider(south, weight=0.000_001))
    north.then(says(b"HTTP/1.1 %b\r\nContent-Length: 0" % head))
    answer = await ask(chat(conversation_id="conv-1", stream=stream))
    assert (answer.status, answer.headers["x-session-provider"]) == (200, "south")
    assert len(north.exchanges) == 1


@pytest.mark.parametrize(("status", "expected"), [(599, 599), (600, 502), (999, 502)])
async def test_chat_gets_502_when_the_status_of_the_provider_is_not_http(only_north: Upstream, status, expected):
    only_north.then(fails(status))
    answer = await ask(chat())
    assert answer.status == expected
    assert answer.error["message"] == f"Provider 'north' answered {status}"


@pytest.mark.parametrize("value", [b"text/\xff", b"text/\xc3\xa9"])
async def test_stream_is_passed_on_when_its_type_cannot_be(only_north: Upstream, value):
    stream = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\ndata: [DONE]\n\n'
    head = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d" % (value, len(stream) + 2)
    only_north.then(says(head, stream + b".."))
    answer = await ask(chat(stream=True))
    assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream")
    assert answer.body == stream


@pytest.mark.parametrize("value", [b"text/\xff", b"text/\xc3\xa9"])
async def test_plain_answer_is_passed_on_when_its_type_cannot_be(only_north: Upstream, value):
    only_north.then(says(b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: 14" % value, b'{"choices":[]}'))
    answer = await ask(chat())
    assert (answer.status, answer.headers["content-type"], answer.body) == (200, "application/json", b'{"choices":[]}')


@streaming
@pytest.mark.parametrize("status", [401, 402, 403])
async def test_chat_answers_502_when_the_provider_refuses_the_gateways_key(only_north: Upstream, status, stream):
    said = {"error": {"message": f"Incorrect API key provided: {NORTH_KEY}", "type": "invalid_request_error"}}
    only_north.then(fails(status, said))
    answer = await ask(chat(stream=stream))
    assert answer.status == 502
    assert answer.error["code"] == "upstream_refused"
    assert "credentials" in answer.error["message"]
    assert answer.headers["x-should-retry"] == "false"
    assert NORTH_KEY not in f"{answer.body!r}{answer.headers}"


@pytest.mark.parametrize("status", [400, 404, 429, 500])
async def test_error_does_not_show_the_gateways_key_when_the_provider_repeats_it(only_north: Upstream, status):
    error = {"message": f"{NORTH_KEY} may not", "param": NORTH_KEY, "code": NORTH_KEY}
    only_north.then(fails(status, {"error": error}))
    answer = await ask(chat())
    assert NORTH_KEY not in f"{answer.body!r}{answer.headers}"
    assert answer.status == status


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_chat_answers_502_when_the_provider_sends_elsewhere(only_north: Upstream, south: Upstream, status):
    only_north.then(fails(status, Location=f"{south.url}/chat/completions"))
    answer = await ask(chat())
    assert answer.status == 502
    assert answer.error["message"]
    assert "location" not in answer.headers
    assert not south.exchanges


@streaming
async def test_upstream_request_ends_within_a_second_when_the_client_leaves(only_north: Upstream, stream):
    only_north.then(streams_and_stalls if stream else stalls)
    call = Call(chat(stream=stream))
    serving = call.start()
    if stream:
        assert b'"first"' in await call.next()
    exchange = await asyncio.to_thread(only_north.wait_for_request)
    call.leave()
    took = stopwatch()
    assert await asyncio.to_thread(exchange.ended.wait, 5)
    assert took() < 1
    assert exchange.left_early
    await asyncio.wait_for(serving, 5)
    if not stream:
        assert call.outgoing.empty()


async def test_upstream_request_ends_within_a_second_when_a_stalled_client_leaves(only_north: Upstream):
    only_north.then(streams_and_stalls)
    call = Call(chat(stream=True))
    full = asyncio.Event()

    async def send(message) -> None:
        if message.get("body"):
            full.set()
            await asyncio.Event().wait()  # as a server does while the client's window is closed

    call.outgoing.put = send
    serving = call.start()
    await asyncio.wait_for(full.wait(), 5)
    call.leave()
    took = stopwatch()
    assert await asyncio.to_thread(only_north.exchanges[0].ended.wait, 5)
    assert took() < 1
    await asyncio.wait_for(serving, 5)


async def test_request_is_dropped_when_the_client_leaves_before_its_body_is_there(only_north: Upstream):
    call = Call(pieces=[b'{"model":', b""])
    call._incoming.get_nowait(), call._incoming.get_nowait()
    call._incoming.put_nowait({"type": "http.request", "body": b'{"model":', "more_body": True})
    call.leave()
    await asyncio.wait_for(call.answer(), 5)
    assert call.status == 0
    assert not only_north.exchanges


async def test_serving_is_cancelled_when_the_server_stops(only_north: Upstream):
    only_north.then(stalls)
    serving = Call(chat()).start()
    exchange = await asyncio.to_thread(only_north.wait_for_request)
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert await asyncio.to_thread(exchange.ended.wait, 5)


async def test_chat_is_answered_when_the_provider_compresses_unasked(only_north: Upstream):
    completion = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "compressed"}}]}
    body = gzip.compress(json.dumps(completion).encode())
    only_north.then(lambda exchange: exchange.send(200, body, Content_Encoding="gzip"))
    answer = await ask(chat())
    assert answer.status == 200
    assert "content-encoding" not in answer.headers
    assert answer.json == completion
