"""Streams that go wrong after they have begun."""

from __future__ import annotations

import json
import time

import msgspec
import pytest

from sentinel_project.gateway import metrics
from sentinel_project.gateway.routing import process
from sentinel_project.gateway.upstream import relay
from tests.gateway.asgi import ask, chat, outcome_of, say
from tests.gateway.upstreams import Behaviour, Exchange, Upstream, breaks_off, fails, stalls_after, streams_and_stalls

FIRST = b'data: {"choices":[{"index":0,"delta":{"content":"first"}}]}\n\n'
DONE = b"data: [DONE]\n\n"
CHAT_ERROR = b'data: {"error":{"message":"Slow down","code":429},"choices":[]}\n\n'
RESPONSES_DELTA = b'data: {"type":"response.output_text.delta","delta":"first","sequence_number":1}\n\n'
RESPONSES_ERROR = b'data: {"type":"error","code":"rate_limit_exceeded","message":"Slow down","sequence_number":2}\n\n'
RESPONSE_FAILED = b'data: {"type":"response.failed","response":{"error":{"code":"server_error","message":"no"}}}\n\n'
MESSAGES_DELTA = b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"an error"}}\n\n'
MESSAGES_ERROR = b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n'


def events(body: bytes) -> list[str]:
    """Return the data of each event, as a client reads them: an event ends with an empty line."""
    blocks = body.decode().replace("\r\n", "\n").split("\n\n")
    return [
        "\n".join(line.removeprefix("data:").strip() for line in block.split("\n") if line.startswith("data:"))
        for block in blocks
        if block.strip()
    ]


def ends(*parts: bytes) -> Behaviour:
    """Send these parts of a stream and end it."""

    def behave(exchange: Exchange) -> None:
        exchange.begin()
        for part in (*parts, b""):
            exchange.chunk(part)

    return behave


def breaks(*parts: bytes) -> Behaviour:
    """Send these parts of a stream and break the connection once they have been read: else what is unread is lost."""

    def behave(exchange: Exchange) -> None:
        exchange.begin()
        for part in parts:
            exchange.chunk(part)
        time.sleep(0.1)
        exchange.cut()

    return behave


async def test_stream_ends_with_an_error_event_when_it_breaks_off(only_north: Upstream):
    only_north.then(breaks_off(FIRST))
    answer = await ask(chat(stream=True))
    assert answer.status == 200
    first, error = events(answer.body)
    assert "first" in first
    assert json.loads(error)["error"]["code"] == "upstream_unreachable"
    assert json.loads(error)["error"].keys() == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("behave", "reason", "kind"),
    [
        (breaks_off(FIRST), "upstream_unreachable", " (Disconnected)"),
        (streams_and_stalls, "upstream_timeout", " (TimeoutError)"),
        (None, "upstream_too_long", ""),
    ],
)
async def test_log_and_metrics_report_a_broken_stream(
    gateway, only_north: Upstream, monkeypatch, caplog, behave, reason, kind
):
    gateway.SENTINEL_IDLE_TIMEOUT_SECONDS = 0.5
    monkeypatch.setattr(relay, "MAX_EVENT_BYTES", 1000)
    counted = metrics.upstream_failures.labels("north", reason)._value
    before = counted.get()
    only_north.then(behave or breaks_off(FIRST, 2000 * b"x"))
    await ask(chat(stream=True))
    assert counted.get() == before + 1
    assert f"provider 'north' broke off a stream: {reason}{kind}" in caplog.messages
    assert not process.health.failing()


PATHS = {"chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages"}
REPORTED = {
    "chat": ("chat", (FIRST, CHAT_ERROR), "429"),
    "chat, with its end": ("chat", (FIRST, CHAT_ERROR, DONE), "429"),
    "chat, in one piece with content": ("chat", (FIRST + CHAT_ERROR,), "429"),
    "chat, by the event's name": ("chat", (FIRST, b'event: error\ndata: {"message":"no"}\n\n'), "502"),
    "responses": ("responses", (RESPONSES_DELTA, RESPONSES_ERROR), "429"),
    "responses, failed": ("responses", (RESPONSES_DELTA, RESPONSE_FAILED), "502"),
    "responses, both": ("responses", (RESPONSES_DELTA, RESPONSES_ERROR, RESPONSE_FAILED), "429"),
    "responses, without a reason": ("responses", (RESPONSES_DELTA, b'data: {"type":"response.failed"}\n\n'), "502"),
    "messages": ("messages", (MESSAGES_DELTA, MESSAGES_ERROR), "529"),
    "messages, of no JSON": ("messages", (MESSAGES_DELTA, b"event: error\ndata: Overloaded\n\n"), "502"),
}


async def streamed(gateway, only_north: Upstream, api: str, behave) -> bytes:
    """Return the stream of an API for what the only provider does."""
    (entry,) = gateway.SENTINEL_PROVIDERS
    gateway.SENTINEL_PROVIDERS = (msgspec.structs.replace(entry, apis=(api,)),)
    only_north.then(behave)
    fields = {"input": "hello"} if api == "responses" else {}
    answer = await ask({**chat(stream=True), **fields}, path=PATHS[api])
    assert answer.status == 200
    return answer.body


@pytest.mark.parametrize("behaviour", [breaks, ends, stalls_after], ids=["breaks", "ends", "stays"])
@pytest.mark.parametrize("case", REPORTED)
async def test_stream_has_one_error_event_when_the_provider_reports_one(
    gateway, only_north: Upstream, caplog, case, behaviour
):
    gateway.SENTINEL_IDLE_TIMEOUT_SECONDS = 0.5
    api, parts, reason = REPORTED[case]
    counted = metrics.upstream_failures.labels("north", reason)._value
    before = counted.get()
    assert await streamed(gateway, only_north, api, behaviour(*parts)) == b"".join(parts)
    assert counted.get() == before + 1
    logged = [line for line in caplog.messages if line.startswith("provider ")]
    assert logged == [f"provider 'north' broke off a stream: {reason}"]


@pytest.mark.parametrize("left", [b"", b"\n"], ids=["no line end", "one line end"])
async def test_stream_has_the_providers_error_when_it_lacks_its_empty_line(gateway, only_north: Upstream, left):
    last = MESSAGES_ERROR.rstrip(b"\n") + left
    body = await streamed(gateway, only_north, "messages", ends(MESSAGES_DELTA, last))
    assert body == MESSAGES_DELTA + last + b"\n\n"


async def test_stream_has_an_error_event_when_it_ends_within_the_providers(gateway, only_north: Upstream):
    body = await streamed(gateway, only_north, "messages", ends(MESSAGES_DELTA, MESSAGES_ERROR[:-9]))
    assert json.loads(events(body)[-1])["error"]["type"] == "api_error"


@pytest.mark.parametrize("half", [FIRST[:30], FIRST[:-1], FIRST[:3]])
async def test_stream_ends_with_a_readable_error_event_when_it_breaks_off_within_an_event(only_north: Upstream, half):
    only_north.then(breaks_off(FIRST, half))
    answer = await ask(chat(stream=True))
    parsed = [json.loads(event) for event in events(answer.body)]  # as the SDK does, which fails on half an event
    assert parsed[-1]["error"]["code"] == "upstream_unreachable"


@pytest.mark.slow
@pytest.mark.parametrize(("seconds", "outcome"), [(1.5, (200, "spilled", "south")), (2.5, (200, "hit", "north"))])
async def test_prelude_is_held_for_two_seconds(bound_to_north, north, seconds, outcome):
    def queues(exchange: Exchange) -> None:
        exchange.begin()
        for _ in range(10):
            exchange.chunk(b": queued\n\n")
            time.sleep(seconds / 10)
        exchange.chunk(CHAT_ERROR)
        exchange.chunk(b"")

    north.then(queues)
    assert outcome_of(await ask(chat(conversation_id=bound_to_north, stream=True))) == outcome


@pytest.mark.slow
@pytest.mark.parametrize(("kib", "outcome"), [(60, (200, "spilled", "south")), (68, (200, "hit", "north"))])
async def test_prelude_is_held_up_to_64_kib(bound_to_north, north, kib, outcome):
    def queues(exchange: Exchange) -> None:
        exchange.begin()
        exchange.chunk(b": %b\n\n" % (1020 * b"x") * kib)
        time.sleep(0.3)
        exchange.chunk(CHAT_ERROR)
        exchange.chunk(b"")

    north.then(queues)
    assert outcome_of(await ask(chat(conversation_id=bound_to_north, stream=True))) == outcome


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r"])
async def test_stream_may_begin_with_a_byte_order_mark(bound_to_north, north, end):
    """The standard of server-sent events allows it; the answer here is a single event."""
    sent = b"\xef\xbb\xbf" + FIRST.strip() + end
    north.then(ends(sent, DONE))
    answered = await ask(chat(conversation_id=bound_to_north, stream=True))
    assert outcome_of(answered) == (200, "hit", "north")
    assert answered.body == sent + DONE


async def test_stream_ends_with_an_error_event_when_it_stalls(gateway, only_north: Upstream):
    gateway.SENTINEL_IDLE_TIMEOUT_SECONDS = 0.5
    only_north.then(streams_and_stalls)
    first, error = events((await ask(chat(stream=True))).body)
    assert "first" in first
    assert json.loads(error)["error"]["code"] == "upstream_timeout"


@pytest.mark.slow
async def test_stream_continues_when_it_is_slow_but_never_stalls(gateway, only_north: Upstream):
    def slow(exchange: Exchange) -> None:
        exchange.begin()
        for number in range(12):
            exchange.event({"content": str(number)})
            time.sleep(0.1)
        exchange.end()

    gateway.SENTINEL_IDLE_TIMEOUT_SECONDS = 1
    only_north.then(slow)
    assert events((await ask(chat(stream=True))).body)[-1] == "[DONE]"


@pytest.mark.slow
async def test_stream_may_be_silent_for_longer_than_the_first_byte_timeout(gateway, only_north: Upstream):
    def pauses(exchange: Exchange) -> None:
        exchange.begin()
        exchange.event({"content": "first"})
        time.sleep(1.5)
        exchange.event({"content": "last"})
        exchange.end()

    gateway.SENTINEL_UPSTREAM_TIMEOUT_SECONDS, gateway.SENTINEL_IDLE_TIMEOUT_SECONDS = 1, 20
    only_north.then(pauses)
    assert events((await ask(chat(stream=True))).body)[-1] == "[DONE]"


async def test_stream_passes_bytes_on_unchanged_when_they_are_not_utf8_aligned(only_north: Upstream):
    first = 'data: {"choices":[{"index":0,"delta":{"content":"Grüße 🙂"}}]}'.encode()
    whole = first + b"\r\n\r\n: comment\n\ndata: [DONE]\n\n"

    def bytewise(exchange: Exchange) -> None:
        exchange.begin("text/event-stream; charset=utf-8")
        for at in range(len(whole)):
            exchange.chunk(whole[at : at + 1])
        exchange.chunk(b"")

    only_north.then(bytewise)
    answer = await ask(chat(stream=True))
    assert answer.body == whole
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert "content-length" not in answer.headers


async def test_stream_does_not_buffer_when_events_are_long(only_north: Upstream):
    long = b'data: {"choices":[{"index":0,"delta":{"content":"' + 500_000 * b"x" + b'"}}]}\n\n'

    def behave(exchange: Exchange) -> None:
        exchange.begin()
        exchange.chunk(long)
        exchange.end()

    only_north.then(behave)
    answer = await ask(chat(stream=True))
    assert answer.body.startswith(long)
    assert answer.body.endswith(b"data: [DONE]\n\n")


def quiet_for(seconds: float, *, then: bytes = DONE) -> Behaviour:
    def behave(exchange: Exchange) -> None:
        exchange.begin()
        exchange.chunk(FIRST)
        time.sleep(seconds)
        exchange.chunk(then)
        exchange.chunk(b"")

    return behave


@pytest.mark.slow
async def test_client_gets_heartbeats_while_a_stream_is_quiet(gateway, only_north: Upstream):
    gateway.SENTINEL_HEARTBEAT_SECONDS, gateway.SENTINEL_IDLE_TIMEOUT_SECONDS = 0.3, 20
    only_north.then(quiet_for(1.5))
    body = (await ask(chat(stream=True))).body
    assert body.startswith(FIRST + b": keep-alive\n\n")
    assert 3 <= body.count(b": keep-alive\n\n") <= 5
    assert body.endswith(b"data: [DONE]\n\n")


@pytest.mark.slow
async def test_stream_ends_after_the_idle_time_when_its_heartbeats_are_shorter(gateway, only_north: Upstream):
    gateway.SENTINEL_HEARTBEAT_SECONDS, gateway.SENTINEL_IDLE_TIMEOUT_SECONDS = 0.4, 1.4
    only_north.then(quiet_for(2))
    body = (await ask(chat(stream=True))).body
    assert body.count(b": keep-alive\n\n") == 3
    assert b"upstream_timeout" in body


@pytest.mark.slow
@pytest.mark.parametrize("heartbeat", [0, 5])
async def test_client_gets_no_heartbeat_when_none_is_due(gateway, only_north: Upstream, heartbeat):
    gateway.SENTINEL_HEARTBEAT_SECONDS = heartbeat
    only_north.then(quiet_for(0.3))
    assert (await ask(chat(stream=True))).body == FIRST + DONE


PLAIN = {"id": "1", "choices": [{"message": {"role": "assistant", "content": "x"}}]}
LIMITED = {"error": {"message": "Slow down", "code": "rate_limit_exceeded"}}


@pytest.mark.parametrize(("body", "is_limited"), [(PLAIN, False), (LIMITED, True)])
async def test_plain_answer_to_a_streamed_request_is_refused(
    bound_to_north: str, north: Upstream, south: Upstream, body, is_limited
):
    north.then(fails(200, body))
    assert outcome_of(await say(bound_to_north, stream=True)) == (200, "spilled", "south")
    assert process.health.is_cooling("north", "model-a") is is_limited


async def test_stream_as_the_answer_to_a_plain_request_is_refused(bound_to_north: str, north: Upstream, south):
    north.then(quiet_for(0))
    assert outcome_of(await say(bound_to_north)) == (200, "spilled", "south")
