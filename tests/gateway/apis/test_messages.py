"""Anthropic's Messages through the gateway."""

from __future__ import annotations

import json
import time

import msgspec
import pytest

from sentinel_project.gateway.apis.base import Stage
from sentinel_project.gateway.apis.messages import ERROR_TYPES, MESSAGES
from sentinel_project.gateway.errors import ApiError
from sentinel_project.gateway.providers.config import ECHO
from sentinel_project.gateway.providers.failures import Cools
from sentinel_project.gateway.providers.slots import Failure
from sentinel_project.gateway.routing import process
from sessions_sticky import sessions
from tests.clients.http_api import ApiError as Refusal
from tests.clients.upstream import Upstream
from tests.gateway.apis.conftest import entry
from tests.gateway.asgi import KEY, Call, ask
from tests.gateway.asgi import MESSAGES as HELLO
from tests.gateway.conftest import provider
from tests.gateway.test_streams import ends, events
from tests.gateway.upstreams import Exchange, breaks_off, fails
from tests.gateway.upstreams import Upstream as RawUpstream

MODEL = "claude-opus-4-6"
PATH, COUNT = "/v1/messages", "/v1/messages/count_tokens"
VERSION = ("anthropic-version", "2023-06-01")


def body(**fields):
    return {"model": MODEL, "max_tokens": 100, "messages": HELLO, **fields}


async def say(sent=None, *, path: str = PATH, session: str | None = "s-1", headers=(), **how) -> Call:
    ids = [("X-Claude-Code-Session-Id", session)] if session else []
    return await ask(body() if sent is None else sent, path=path, headers=[VERSION, *ids, *headers], **how)


def assert_error(answer: Call, status: int, kind: str) -> str:
    """Check Anthropic's shape; return the message."""
    assert answer.status == status
    assert answer.headers["content-type"] == "application/json"
    assert answer.json.keys() == {"type", "error", "request_id"}
    assert answer.json["type"] == "error"
    assert answer.json["error"].keys() == {"type", "message"}
    assert answer.json["error"]["type"] == kind
    return str(answer.json["error"]["message"])


def names(stream: bytes) -> list[str]:
    return [json.loads(data)["type"] for data in events(stream)]


def text(answer: Call) -> str:
    if answer.headers["content-type"].startswith("application/json"):
        return str(answer.json["content"][-1]["text"])
    deltas = [json.loads(data).get("delta", {}) for data in events(answer.body)]
    return "".join(delta.get("text", "") for delta in deltas)


@pytest.mark.parametrize("stream", [False, True])
async def test_messages_reach_the_same_provider_when_the_conversation_continues(both, east, west, stream):
    both.SENTINEL_PROVIDERS = (entry(east), entry(west))
    first, second = await say(body(stream=stream)), await say(body(stream=stream))
    assert (first.headers["x-session-outcome"], second.headers["x-session-outcome"]) == ("created", "hit")
    assert first.headers["x-session-source"] == "header.x-claude-code-session-id"
    assert text(first) == text(second)
    assert {len(east.requests), len(west.requests)} == {0, 2}


async def test_message_is_forwarded_byte_for_byte(only_east: Upstream):
    raw = (
        b'{ "model":"claude-opus-4-6", "max_tokens" : 1e2,"messages":[ {"role":"user","content":"gr\xc3\xbc\\u00df"} ],'
        b'"tools":[{"name":"look","input_schema":{"type":"object"}}]  ,"thinking":{"type":"adaptive"}}'
    )
    assert (await say(raw, query="beta=true")).status == 200
    (request,) = only_east.requests
    assert request.body == raw
    assert (request.path, request.query) == (PATH, "beta=true")
    assert request.header("anthropic-version") == "2023-06-01"


@pytest.mark.parametrize(("auth", "header"), [("x-api-key", "x-api-key"), ("bearer", "authorization")])
async def test_message_carries_the_providers_key_when_the_client_sends_its_own(both, east, auth, header):
    both.SENTINEL_PROVIDERS = (entry(east, auth=auth),)
    answer = await say(key=None, headers=[("x-api-key", KEY)])
    assert answer.status == 200
    assert (east.requests[0].header(header) or "").removeprefix("Bearer ") == east.api_key
    assert KEY not in str(east.requests[0])


@pytest.mark.parametrize(
    ("sent", "param"),
    [
        ({"messages": HELLO}, "model"),
        ({"model": MODEL}, "messages"),
        ({"model": MODEL, "messages": []}, "messages"),
        ({"model": MODEL, "messages": "hello"}, "messages"),
        ({"model": 5, "messages": HELLO}, "model"),
        (body(stream="yes"), "stream"),
    ],
)
async def test_message_is_refused_and_the_field_is_named_when_it_is_wrong(only_east: Upstream, sent, param):
    assert f"{param} must be " in assert_error(await say(sent), 400, "invalid_request_error")
    assert not only_east.requests


@pytest.mark.parametrize("path", [PATH, COUNT])
@pytest.mark.parametrize(
    ("how", "status", "kind"),
    [
        ({"key": None}, 401, "authentication_error"),
        ({"key": "sk-wrong"}, 401, "authentication_error"),
        ({"sent": b"{"}, 400, "invalid_request_error"),
        ({"sent": body(model="claude-0")}, 404, "not_found_error"),
        ({"method": "GET"}, 405, "invalid_request_error"),
        ({"sent": 3000 * b" "}, 413, "request_too_large"),
    ],
)
async def test_gateways_own_errors_have_anthropics_shape(both, path, how, status, kind):
    both.DATA_UPLOAD_MAX_MEMORY_SIZE = 2000
    answer = await say(path=path, **how)
    assert_error(answer, status, kind)
    assert answer.json["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize("path", ["/v1/messages/batches", "/v1/messages/", "/v1/files", "/v1/complete"])
async def test_unknown_path_is_not_found_in_anthropics_shape(both, path):
    answer = await ask(path=path, headers=[VERSION])
    assert assert_error(answer, 404, "not_found_error") == f"Unknown path: {path}"
    assert answer.json["request_id"] == answer.headers["x-request-id"]


async def test_error_below_messages_has_anthropics_shape_when_the_client_sends_no_version(both):
    assert_error(await ask(path="/v1/messages/batches"), 404, "not_found_error")
    answer = await ask(path="/v1/chat/completions", key=None, headers=[VERSION])
    assert answer.error["code"] == "invalid_api_key"


async def test_message_is_refused_in_anthropics_shape_when_all_providers_state_a_time(both, east, west):
    for name in ("east", "west"):
        process.health.failed(name, MODEL, Failure(Cools.MODEL, retry_after=30))
    answer = await say()
    assert_error(answer, 429, "rate_limit_error")
    assert 1 <= int(answer.headers["retry-after"]) <= 30


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [429, 500, 503, 529])
async def test_message_fails_over_when_a_provider_fails(both, east, west, status, stream):
    east.fail_turns(Refusal(status, "Overloaded", headers={"retry-after": "7"}))
    answer = await say(body(stream=stream))
    assert text(answer) == f"west as {MODEL}"
    assert process.health.failing() == ["east"]
    assert len(east.requests) == 1


@pytest.mark.parametrize("status", [400, 404, 413, 429, 500, 503, 529])
async def test_providers_error_is_passed_on_as_it_is_when_it_has_anthropics_shape(only_east: Upstream, status):
    only_east.fail_turns(Refusal(status, "as it says", headers={"retry-after": "7"}))
    answer = await say()
    default = "invalid_request_error" if status < 500 else "api_error"
    assert assert_error(answer, status, ERROR_TYPES.get(status, default)) == "as it says"
    assert answer.json["request_id"].startswith("req_")
    assert answer.headers["request-id"].startswith("req_")
    assert answer.headers["retry-after"] == "7"
    assert answer.headers["anthropic-ratelimit-requests-limit"] == "4000"
    assert "anthropic-organization-id" not in answer.headers


@pytest.mark.parametrize(
    "sent",
    [
        {"error": {"message": "too long", "type": "invalid_request_error", "code": 5}},
        {"type": "error", "error": {"message": "too long"}},
        {"message": "too long"},
        {"detail": "too long"},
    ],
)
async def test_providers_error_is_rendered_in_anthropics_shape_when_it_has_another(gateway, north, sent):
    gateway.SENTINEL_PROVIDERS = (msgspec.structs.replace(provider(north), apis=("messages",)),)
    north.then(fails(413, sent))
    assert assert_error(await say(body(model="model-a")), 413, "request_too_large") == "too long"


async def test_error_about_the_providers_key_is_not_about_the_clients(both, east):
    both.SENTINEL_PROVIDERS = (entry(east, api_key="unknown-key"),)
    message = assert_error(await say(), 502, "api_error")
    assert message == "Provider 'east' refused the gateway's credentials (401)"


START = b'event: message_start\ndata: {"type":"message_start","message":{"content":[],"usage":{"input_tokens":1}}}\n\n'
PING = b'event: ping\ndata: {"type": "ping"}\n\n'
BLOCK = b'event: content_block_start\ndata: {"type":"content_block_start","index":0,"content_block":%b}\n\n'
EMPTY = BLOCK % b'{"type":"text","text":""}'
DELTA = (
    b"event: content_block_delta\n"
    b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"first"}}\n\n'
)
STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
OVERLOADED = (
    b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"},'
    b'"request_id":"req_1"}\n\n'
)


@pytest.mark.parametrize(
    ("event", "stage"),
    [
        (START, Stage.PRELUDE),
        (PING, Stage.PRELUDE),
        (b": keep-alive\n\n", Stage.PRELUDE),
        (b"event: ping\n\n", Stage.PRELUDE),
        (EMPTY, Stage.PRELUDE),
        (BLOCK % b'{"type":"thinking","thinking":"","signature":""}', Stage.PRELUDE),
        (BLOCK % b'{"type":"tool_use","id":"t","name":"look","input":{}}', Stage.CONTENT),
        (BLOCK % b'{"type":"redacted_thinking","data":"x"}', Stage.CONTENT),
        (DELTA, Stage.CONTENT),
        (b'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n', Stage.CONTENT),
        (b'event: message_delta\ndata: {"type":"message_delta","delta":{}}\n\n', Stage.CONTENT),
        (b'event: of_tomorrow\ndata: {"type":"of_tomorrow"}\n\n', Stage.CONTENT),
        (b"data: not JSON\n\n", Stage.CONTENT),
        (OVERLOADED, Stage.ERROR),
        (b"event: error\r\ndata: not JSON\r\n\r\n", Stage.ERROR),
        (STOP, Stage.END),
        (b'data: {"type":"message_stop"}\n\n', Stage.END),
        (b"event: message_stop\ndata: {}\n\n", Stage.END),
        (b'data: {"error":{"message":"Overloaded"}}\n\n', Stage.ERROR),
        (b'event: error\ndata: {"type":"error","error":{},"content_block":null}\n\n', Stage.ERROR),
        (b'data: {"type":"content_block_start","content_block":null}\n\n', Stage.PRELUDE),
    ],
)
def test_stage_is_derived_from_the_event(event, stage):
    assert MESSAGES.stage(event) is stage


@pytest.fixture
def raw(gateway, north: RawUpstream, south: RawUpstream) -> RawUpstream:
    """North, which sends what a test says, is asked first; then south, which sends an answer."""
    entries = (provider(north), provider(south, weight=1e-6))
    gateway.SENTINEL_PROVIDERS = tuple(msgspec.structs.replace(each, apis=("messages",)) for each in entries)
    south.then(ends(START, EMPTY, DELTA, STOP))
    return north


@pytest.mark.parametrize(
    "sent",
    [
        (OVERLOADED,),
        (START, OVERLOADED),
        (START, PING, EMPTY, OVERLOADED),
        (START + PING, b": still there\n\n", EMPTY),
        (START, STOP),
        (b"",),
    ],
)
async def test_stream_fails_over_when_it_fails_before_its_content(raw, sent):
    raw.then(breaks_off(*sent))
    answer = await say(body(model="model-a", stream=True))
    assert answer.body == START + EMPTY + DELTA + STOP
    assert answer.headers["x-session-provider"] == "south"
    assert not process.health.failing()  # one request condemns no provider


async def test_stream_is_passed_on_byte_for_byte_up_to_its_last_event(raw):
    thinking = BLOCK % b'{"type":"thinking","thinking":"","signature":""}'
    stream = START + PING + thinking.replace(b"\n", b"\r\n") + b": wait\n\n" + DELTA
    raw.then(ends(stream, STOP + b"data: [DONE]\n\n"))
    answer = await say(body(model="model-a", stream=True))
    assert answer.body == stream + STOP
    assert answer.headers["content-type"] == "text/event-stream"


async def test_stream_ends_with_anthropics_error_event_when_it_breaks_off(raw):
    raw.then(breaks_off(START, EMPTY, DELTA))
    answer = await say(body(model="model-a", stream=True))
    *passed, error = answer.body.removesuffix(b"\n\n").split(b"\n\n")
    assert b"\n\n".join(passed) + b"\n\n" == START + EMPTY + DELTA
    name, data = error.split(b"\n")
    assert name == b"event: error"
    sent = json.loads(data.removeprefix(b"data: "))
    assert sent["type"] == "error"
    message = "Provider 'north' closed the connection before the end of its answer"
    assert sent["error"] == {"type": "api_error", "message": message}


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("overloaded_error", 529),
        ("rate_limit_error", 429),
        ("timeout_error", 504),
        ("api_error", 502),
        ("invalid_request_error", 400),
        ("request_too_large", 413),
        ("not_found_error", 404),
        ("of_tomorrow_error", 502),
    ],
)
async def test_message_fails_with_the_status_of_the_error_of_every_stream(raw, south, kind, status):
    error = b'event: error\ndata: {"type":"error","error":{"type":"%b","message":"No"},"request_id":"r"}\n\n'
    for upstream in (raw, south):
        upstream.script.clear()
        upstream.then(breaks_off(START, error % kind.encode()))
    answer = await say(body(model="model-a", stream=True))
    assert assert_error(answer, status, kind) == "No"
    assert len(south.exchanges) == 1


@pytest.mark.parametrize("kind", ["authentication_error", "permission_error", "billing_error"])
async def test_message_fails_as_refused_when_every_stream_has_an_account_error(raw, south, kind):
    error = b'event: error\ndata: {"type":"error","error":{"type":"%b","message":"No"}}\n\n'
    for upstream in (raw, south):
        upstream.script.clear()
        upstream.then(breaks_off(START, error % kind.encode()))
    answer = await say(body(model="model-a", stream=True))
    assert "refused the gateway's credentials" in assert_error(answer, 502, "api_error")
    assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("status", sorted({400, 405, 409, 422, 500, 502, 503, *ERROR_TYPES}))
def test_error_type_follows_from_the_status(status):
    error = MESSAGES.render_error(ApiError(status, "wrong"))["error"]
    expected = ERROR_TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    assert error == {"type": expected, "message": "wrong"}


async def test_count_tokens_goes_to_the_conversations_provider(both, east, west):
    await say()
    both.SENTINEL_PROVIDERS = (entry(east, weight=1e-6), entry(west))
    answer = await say(path=COUNT, query="beta=true")
    assert answer.json.keys() == {"input_tokens"}
    assert answer.headers["x-session-provider"] == "east"
    assert [(request.path, request.query) for request in east.requests] == [(PATH, ""), (COUNT, "beta=true")]
    other = await say(path=COUNT, session="s-2")
    assert other.headers["x-session-provider"] == "west"


async def test_count_tokens_does_not_bind(both, east):
    assert (await say(path=COUNT)).status == 200
    assert sessions.all().count() == 0
    assert (await say()).headers["x-session-outcome"] == "created"


async def test_count_tokens_does_not_count_for_health(both, east, west):
    east.fail_path(COUNT, Refusal(500, "broken"))
    answer = await say(path=COUNT)
    assert answer.headers["x-session-provider"] == "west"
    assert not process.health.failing()
    process.health.failed("east", MODEL, Failure(Cools.MODEL, retry_after=0))
    failing = dict(process.health.states["east"])
    assert (await say(path=COUNT)).headers["x-session-provider"] == "east"
    assert process.health.states["east"] == failing  # no trial, no success


async def test_count_tokens_answers_404_when_no_provider_has_it(both, east, west):
    for upstream in (east, west):
        upstream.fail_path(COUNT, Refusal(404, "Not found"))
    assert assert_error(await say(path=COUNT), 404, "not_found_error") == "Not found"
    assert not process.health.failing()


async def test_count_tokens_ignores_the_binding_of_another_owner(both, east, west):
    sessions.create("conv-1", provider="west", model=MODEL, owner="another owner")
    answer = await say(body(conversation_id="conv-1"), path=COUNT)
    assert (answer.status, answer.headers["x-session-provider"]) == (200, "east")


@pytest.mark.parametrize("stream", [False, True])
async def test_echo_answers_a_message_with_the_users_last_text(gateway, stream):
    gateway.SENTINEL_PROVIDERS = ECHO
    content = [{"type": "text", "text": "<system-reminder>"}, {"type": "text", "text": "hello there"}]
    messages = [{"role": "user", "content": content}, {"role": "system", "content": "Environment"}]
    sent = {"model": "echo-small", "messages": messages, "system": "Be brief."}
    answer = await say({**sent, "stream": stream})
    assert text(answer) == f"{answer.headers['x-session-provider']} (echo-small) heard: hello there"
    if stream:
        deltas = 5 * ["content_block_delta"]
        before, after = ["message_start", "content_block_start", "ping"], ["content_block_stop", "message_delta"]
        assert names(answer.body) == [*before, *deltas, *after, "message_stop"]
    else:
        assert answer.json["usage"]["input_tokens"] == 6
        assert answer.json["usage"]["output_tokens"] == 5


async def test_echo_counts_words(gateway):
    gateway.SENTINEL_PROVIDERS = ECHO
    answer = await say({"model": "echo-small", "messages": HELLO, "system": "Be brief."}, path=COUNT)
    assert answer.json == {"input_tokens": 3}


@pytest.mark.slow
async def test_client_gets_pings_while_a_stream_is_quiet(raw, gateway):
    def quiet(exchange: Exchange) -> None:
        exchange.begin()
        exchange.chunk(START + EMPTY + DELTA)
        time.sleep(0.5)
        exchange.chunk(STOP)
        exchange.chunk(b"")

    gateway.SENTINEL_HEARTBEAT_SECONDS = 0.1
    raw.then(quiet)
    answer = await say(body(model="model-a", stream=True))
    assert answer.body.startswith(START + EMPTY + DELTA + PING)
    assert answer.body.endswith(PING + STOP)
