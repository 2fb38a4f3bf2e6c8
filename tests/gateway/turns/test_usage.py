"""The tokens that providers report, under every name, plain and in streams."""

from __future__ import annotations

import json

import msgspec
import pytest

from sentinel_project.gateway.apis.base import parse
from sentinel_project.gateway.apis.chat import CHAT
from sentinel_project.gateway.apis.messages import MESSAGES
from sentinel_project.gateway.apis.responses import RESPONSES
from sentinel_project.gateway.upstream.usage import UsageReader, stream_options
from sessions_sticky import Usage

CHUNK = b'data: {"choices":[{"index":0,"delta":{"content":"an \\"input_tokens\\""}}],"usage":null}\n\n'
EXTRA = b'data: {"choices":[],"usage":{"prompt_tokens":2000,"completion_tokens":7}}\n\n'
DONE = b"data: [DONE]\n\n"


def event(value: object, name: str = "") -> bytes:
    return (f"event: {name}\n" if name else "").encode() + b"data: " + json.dumps(value).encode() + b"\n\n"


@pytest.mark.parametrize(
    ("api", "usage", "expected"),
    [
        (CHAT, {"prompt_tokens": 2_000, "completion_tokens": 7}, Usage(2_000, output=7, cached=0)),
        (
            CHAT,
            {"prompt_tokens": 2_000, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 1_920}},
            Usage(2_000, 1_920, output=7),
        ),
        (CHAT, {"prompt_tokens": 2_000, "prompt_cache_hit_tokens": 1_024}, Usage(2_000, 1_024)),
        (CHAT, {"prompt_tokens": 2_000, "cached_tokens": 256, "prompt_tokens_details": None}, Usage(2_000, 256)),
        (
            CHAT,
            {"prompt_tokens": 2_000, "cache_read_input_tokens": 500, "cache_creation_input_tokens": 700},
            Usage(2_000, 500, 700),
        ),
        (
            CHAT,
            {"prompt_tokens": 2_000, "prompt_tokens_details": {"cached_tokens": 500, "cache_write_tokens": 90}},
            Usage(2_000, 500, 90),
        ),
        (CHAT, {"prompt_tokens": 20, "completion_tokens": 151, "total_tokens": 553}, Usage(20, output=533, cached=0)),
        (CHAT, {"prompt_tokens": 20, "completion_tokens": 151, "total_tokens": 171}, Usage(20, output=151, cached=0)),
        (CHAT, {"prompt_tokens": 20, "completion_tokens": 151, "total_tokens": 20}, Usage(20, output=151, cached=0)),
        (
            CHAT,
            {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 1_715, "cache_read_input_tokens": 1_700},
            Usage(1_710, 1_700, output=5),
        ),
        (
            CHAT,
            {"prompt_tokens": 900, "completion_tokens": 5, "total_tokens": 1_005, "cached_tokens": 768},
            Usage(900, 768, output=105),
        ),
        (
            RESPONSES,
            {"input_tokens": 3_000, "output_tokens": 5, "input_tokens_details": {"cached_tokens": 2_944}},
            Usage(3_000, 2_944, output=5),
        ),
        (
            MESSAGES,
            {
                "input_tokens": 3,
                "cache_read_input_tokens": 4_000,
                "cache_creation_input_tokens": 500,
                "output_tokens": 9,
            },
            Usage(4_503, 4_000, 500, 9, 4_500),
        ),
        (MESSAGES, {"input_tokens": 30, "output_tokens": 9}, Usage(30, output=9, cached=0)),
        (CHAT, {"prompt_tokens": 10, "cached_tokens": 20}, Usage(20, 20)),
        (CHAT, {"prompt_tokens": -1}, None),
        (CHAT, {"prompt_tokens": 2**63 - 1}, None),
        (CHAT, {"prompt_tokens": 10, "completion_tokens": 2**41}, None),
        (MESSAGES, dict.fromkeys(("input_tokens", "cache_read_input_tokens", "output_tokens"), 2**40), None),
        (CHAT, {"completion_tokens": 1}, None),
        (CHAT, {"prompt_tokens": "12"}, None),
        (CHAT, None, None),
    ],
)
def test_reader_reads_a_plain_answer(api, usage, expected):
    reader = UsageReader(api)
    reader.read(json.dumps({"id": "x", "usage": usage, "choices": [{"index": 0}]}).encode())
    assert reader.usage() == expected


@pytest.mark.parametrize(
    "answer",
    [
        {"message": {"role": "assistant", "content": [{"type": "text", "text": "hi"}]}},
        {"message": "hi"},
        {"response": "hi"},
        {"response": {"output": []}},
        {"message": None, "response": {}},
    ],
)
def test_reader_reads_the_usage_beside_what_the_model_wrote(answer):
    """Cohere's answers have a `message`, others a `response`, and their usage beside it."""
    reader = UsageReader(CHAT)
    reader.read(json.dumps({**answer, "usage": {"prompt_tokens": 2_000, "completion_tokens": 7}}).encode())
    assert reader.usage() == Usage(2_000, output=7, cached=0)


def test_reader_reads_geminis_names():
    reader = UsageReader(CHAT)
    counts = {
        "promptTokenCount": 5_000,
        "cachedContentTokenCount": 4_000,
        "candidatesTokenCount": 5,
        "thoughtsTokenCount": 6,
    }
    stream = event({"candidates": [], "usageMetadata": counts})
    assert reader.take(stream) == stream
    assert reader.usage() == Usage(5_000, 4_000, output=11)


def test_reader_adds_up_the_events_of_messages():
    reader = UsageReader(MESSAGES)
    begun = {"input_tokens": 3, "cache_read_input_tokens": 4_000, "cache_creation_input_tokens": 0, "output_tokens": 1}
    parts = [
        event({"type": "message_start", "message": {"usage": begun}}, "message_start"),
        event({"type": "content_block_delta", "delta": {"text": "hi"}}, "content_block_delta"),
        event({"type": "message_delta", "delta": {}, "usage": {"output_tokens": 40}}, "message_delta"),
    ]
    assert b"".join(map(reader.take, parts)) == b"".join(parts)
    assert reader.usage() == Usage(4_003, 4_000, 0, 40, 4_000)


def test_reader_reads_the_response_that_ends_a_stream():
    reader = UsageReader(RESPONSES)
    usage = {"input_tokens": 3_000, "output_tokens": 5, "input_tokens_details": {"cached_tokens": 0}}
    for kind, response in (
        ("response.created", {"usage": None, "max_output_tokens": 9}),
        ("response.completed", {"usage": usage}),
    ):
        reader.take(event({"type": kind, "response": response}, kind))
    assert reader.usage() == Usage(3_000, output=5)


@pytest.mark.parametrize(
    "chunks", [[CHUNK, CHUNK, EXTRA, DONE], [CHUNK + CHUNK + EXTRA + DONE], [CHUNK, CHUNK + EXTRA, DONE]]
)
def test_reader_removes_the_usage_event_that_the_client_did_not_request(chunks):
    reader = UsageReader(CHAT, drops_event=True)
    assert b"".join(map(reader.take, chunks)) == CHUNK + CHUNK + DONE
    assert reader.usage() == Usage(2_000, output=7, cached=0)


def test_reader_keeps_the_event_when_the_client_asked_or_it_holds_more():
    assert UsageReader(CHAT).take(EXTRA) == EXTRA
    last = event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 5}})
    reader = UsageReader(CHAT, drops_event=True)
    assert reader.take(last) == last
    assert reader.usage() == Usage(5, cached=0)


@pytest.mark.parametrize("damaged", [b'data: {"x_tokens":1\n\n', b'data: {"x_tokens":1,"usage":[]}\n\n', b'"_tokens"'])
def test_reader_passes_on_what_it_cannot_read(damaged):
    reader = UsageReader(CHAT, drops_event=True)
    assert reader.take(damaged) == damaged
    assert reader.usage() is None


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ({}, {"include_usage": True}),
        ({"stream_options": None}, {"include_usage": True}),
        ({"stream_options": {"include_usage": False, "x": 1}}, {"include_usage": True, "x": 1}),
        ({"stream_options": {"include_usage": True}}, None),
        ({"stream_options": 3}, None),
        ({"stream": False}, None),
    ],
)
def test_stream_options_ask_where_the_client_did_not(settings, given, asked):
    settings.SENTINEL_STREAM_USAGE = True
    body = {"model": "m", "messages": [{}], "stream": True, **given}
    options = stream_options(parse(CHAT, json.dumps(body).encode(), {}, ""))
    assert (None if options is None else msgspec.json.decode(options)) == asked


def test_stream_options_are_for_apis_that_know_them(settings):
    settings.SENTINEL_STREAM_USAGE = True
    assert stream_options(parse(RESPONSES, b'{"model":"m","input":"x","stream":true}', {}, "")) is None
