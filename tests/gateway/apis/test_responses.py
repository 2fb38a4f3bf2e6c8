"""POST /v1/responses: rules, fidelity, streams, errors, and reasoning of another account."""

from __future__ import annotations

import json
import time

import pytest

from sentinel_project.gateway.apis.base import Stage
from sentinel_project.gateway.apis.body import Body
from sentinel_project.gateway.apis.responses import RESPONSES as API
from sentinel_project.gateway.apis.upstream_objects import MAX_ITEMS
from sentinel_project.gateway.errors import ApiError
from sentinel_project.gateway.providers.config import ECHO
from tests.clients.http_api import ApiError as UpstreamError
from tests.gateway.asgi import Call, ask
from tests.gateway.responses import MODEL, RESPONSES, account, events, respond, responses_only, said

SESSION = [("Session-Id", "0199-codex")]
ENCRYPTED = {"store": False, "include": ["reasoning.encrypted_content"]}


@pytest.fixture
def alone(accounts, gateway):
    """The only upstream."""
    gateway.SENTINEL_PROVIDERS = (account(accounts[0]),)
    return accounts[0]


async def test_response_comes_from_the_provider_when_it_is_plain(alone):
    answer = await respond()
    assert (answer.status, said(answer), answer.json["object"]) == (200, f"north as {MODEL}", "response")
    assert answer.headers["x-session-provider"] == "north"


async def test_body_reaches_the_provider_byte_for_byte(alone):
    raw = (
        b'{ "model":"gpt-5.2" ,"stream":true,\n"input":[{"type":"message","role":"user",'
        b'"content":[{"type":"input_text","text":"h\\u00e9 \xc3\xa9 1e2"}]}],"x": 1.0e5,"store":false}'
    )
    answer = await ask(raw, path=RESPONSES, headers=SESSION)
    assert answer.status == 200
    assert alone.used()[0].body == raw


async def test_stream_passes_byte_for_byte_and_keeps_the_order_of_events(alone):
    answer = await respond(stream=True)
    kinds = [event["type"] for event in events(answer)]
    assert kinds[:3] == ["response.created", "response.in_progress", "response.output_item.added"]
    assert kinds[-1] == "response.completed"
    assert answer.headers["content-type"].startswith("text/event-stream")


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"model": None}, "model", "missing_required_parameter"),
        ({"model": 3}, "model", "invalid_type"),
        ({"input": None}, "input", "missing_required_parameter"),
        ({"input": {"role": "user"}}, "input", "invalid_type"),
        ({"input": 3}, "input", "invalid_type"),
        ({"stream": "yes"}, "stream", "invalid_type"),
    ],
)
async def test_request_is_refused_with_the_field_when_a_rule_is_broken(alone, fields, param, code):
    body = {"model": MODEL, "input": "hello", **fields}
    answer = await ask({name: value for name, value in body.items() if value is not None}, path=RESPONSES)
    assert (answer.status, answer.error["param"], answer.error["code"]) == (400, param, code)
    assert alone.requests == []


@pytest.mark.parametrize("number", [0, 1, 2, 3])
async def test_stream_that_breaks_before_content_is_served_by_another(accounts, number):
    bound = (await respond(headers=SESSION)).headers["x-session-provider"]
    first, other = accounts if bound == "north" else accounts[::-1]
    first.script.append(number)
    answer = await respond(stream=True, headers=SESSION)
    assert events(answer)[-1]["type"] == "response.completed"
    assert answer.headers["x-session-provider"] == other.name


@pytest.mark.parametrize("number", [5, 6, 7])
async def test_stream_that_breaks_after_content_ends_with_a_numbered_error_event(alone, number):
    alone.script.append(number)
    found = events(await respond(stream=True))
    assert len(found) > 1
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    last = found[-1]
    assert (last["type"], last["code"], last["param"]) == ("error", "upstream_unreachable", None)
    assert "closed the connection before the end of its answer" in last["message"]
    assert last["error"]["message"] == last["message"]


EMPTY_MESSAGE = {"id": "msg_1", "type": "message", "status": "in_progress", "role": "assistant", "content": []}


@pytest.mark.parametrize(
    ("event", "stage"),
    [
        ({"type": "response.created", "response": {"status": "in_progress"}}, Stage.PRELUDE),
        ({"type": "response.queued", "response": {}}, Stage.PRELUDE),
        ({"type": "response.in_progress", "response": {}}, Stage.PRELUDE),
        ({"type": "keepalive"}, Stage.PRELUDE),
        ({"type": "response.output_item.added", "item": EMPTY_MESSAGE}, Stage.PRELUDE),
        ({"type": "response.output_item.added", "item": {"type": "reasoning", "summary": []}}, Stage.PRELUDE),
        ({"type": "response.output_item.added", "item": {"type": "function_call", "name": "ls"}}, Stage.CONTENT),
        ({"type": "response.output_item.added", "item": {**EMPTY_MESSAGE, "content": [{}]}}, Stage.CONTENT),
        ({"type": "response.content_part.added", "part": {"type": "output_text", "text": ""}}, Stage.PRELUDE),
        ({"type": "response.content_part.added", "part": {"type": "output_text", "text": "a"}}, Stage.CONTENT),
        ({"type": "response.output_text.delta", "delta": "a"}, Stage.CONTENT),
        ({"type": "response.output_item.done", "item": {"type": "reasoning"}}, Stage.CONTENT),
        ({"type": "response.output_item.added", "item": 3}, Stage.CONTENT),
        ({"type": "response.unknown"}, Stage.CONTENT),
        ([], Stage.CONTENT),
        ({"type": "error", "message": "no"}, Stage.ERROR),
        ({"error": {"message": "no"}}, Stage.ERROR),
        ({"type": "response.failed", "response": {"error": {"message": "no"}}}, Stage.ERROR),
        ({"type": "response.completed", "response": {}}, Stage.END),
        ({"type": "response.incomplete", "response": {}}, Stage.END),
    ],
)
def test_stage_of_an_event(event, stage):
    assert API.stage(b"event: x\ndata: %b\n\n" % json.dumps(event).encode()) is stage


@pytest.mark.parametrize("event", [b": keep-alive\n\n", b"event: response.created\n\n"])
def test_stage_of_an_event_without_data_is_prelude(event):
    assert API.stage(event) is Stage.PRELUDE


async def scripted(only_north, gateway, *parts: bytes) -> Call:
    """Return the answer to a stream when the only upstream sends these parts."""

    def behave(exchange):
        exchange.begin()
        for part in parts:
            exchange.chunk(part)
        exchange.chunk(b"")

    responses_only(gateway)
    only_north.then(behave)
    return await ask({"model": "model-a", "input": "hello", "stream": True}, path=RESPONSES)


def event(kind: str, **fields) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


@pytest.mark.parametrize(
    "failed",
    [
        event("response.failed", response={"error": {"code": "server_error", "message": "north is ill"}}),
        event("error", code="server_error", message="north is ill", param=None, sequence_number=1),
        event("error", error={"code": "server_error", "message": "north is ill"}, sequence_number=1),
    ],
)
async def test_failure_before_content_is_an_error_in_the_shape_of_the_api(only_north, gateway, failed):
    answer = await scripted(only_north, gateway, event("response.created", response={}), failed)
    assert (answer.status, answer.error["message"], answer.error["code"]) == (502, "north is ill", "server_error")


@pytest.mark.parametrize("kind", ["response.completed", "response.incomplete"])
async def test_stream_without_deltas_is_an_answer_when_its_last_event_is_whole(only_north, gateway, kind):
    parts = event("response.created", response={}), event(kind, response={"output": []})
    answer = await scripted(only_north, gateway, *parts)
    assert answer.body == b"".join(parts)


async def test_stream_without_an_answer_is_incomplete(only_north, gateway):
    answer = await scripted(only_north, gateway, event("response.created", response={}), b"data: [DONE]\n\n")
    assert (answer.status, answer.error["code"]) == (502, "upstream_incomplete")


@pytest.mark.parametrize(
    "last",
    [
        event("error", message="no", sequence_number=2),
        event("response.failed", response={"error": {"message": "no"}}),
    ],
)
async def test_stream_that_the_provider_ends_with_an_error_gets_no_second_one(only_north, gateway, last):
    parts = event("response.output_text.delta", delta="a", sequence_number=1), last
    answer = await scripted(only_north, gateway, *parts)
    assert answer.body == b"".join(parts)


async def test_error_of_the_provider_reaches_the_client_as_it_is(alone):
    alone.script.append(UpstreamError(400, "No tool output found", code="bad_tool", param="input"))
    answer = await respond()
    assert (answer.status, answer.error["code"], answer.error["param"]) == (400, "bad_tool", "input")


def test_error_event_has_the_fields_of_the_reference_and_of_the_service():
    error = ApiError(502, "no", type="upstream_error", code="c", param="p")
    found = json.loads(API.error_event(error, b'data: {"sequence_number": 41}\n\n').split(b"data: ")[1])
    flat = {"code": "c", "message": "no", "param": "p"}
    assert found == {"type": "error", **flat, "sequence_number": 42, "error": {"type": "upstream_error", **flat}}
    assert b'"sequence_number":0' in API.error_event(error)


async def test_turn_state_goes_back_to_its_issuer_only(accounts, gateway):
    north, south = accounts
    gateway.SENTINEL_PROVIDERS = (account(north),)
    state = (await respond(headers=SESSION)).headers["x-codex-turn-state"]
    await respond(headers=[*SESSION, ("X-Codex-Turn-State", state)])
    sent = north.used()[-1].header("x-codex-turn-state")
    assert sent is not None
    assert north.account.has_sealed(sent)
    gateway.SENTINEL_PROVIDERS = (account(south),)
    await respond(headers=[*SESSION, ("X-Codex-Turn-State", state)])
    assert south.used()[-1].header("x-codex-turn-state") is None


def turn(history: list, text: str) -> list:
    return [*history, {"type": "message", "role": "user", "content": text}]


async def test_conversation_continues_at_the_other_account_without_the_firsts_reasoning(accounts, gateway):
    north, south = accounts
    history: list = []
    repaired = []
    for upstream in (north, south, north, north):
        gateway.SENTINEL_PROVIDERS = (account(upstream),)
        history = turn(history, "continue")
        answer = await respond(history, headers=SESSION, **ENCRYPTED)
        assert (answer.status, said(answer)) == (200, f"{upstream.name} as {MODEL}")
        repaired.append(answer.headers.get("x-session-repaired"))
        history += answer.json["output"]
    assert repaired == [None, "encrypted_reasoning", "encrypted_reasoning", "encrypted_reasoning"]
    first, second = south.used()
    assert [item["type"] for item in first.json["input"]] == ["message", "reasoning", "message", "message"]
    assert [item["type"] for item in second.json["input"]] == ["message", "message", "message"]


async def test_repair_removes_reasoning_only_and_keeps_all_other_bytes(accounts, gateway):
    north, south = accounts
    gateway.SENTINEL_PROVIDERS = (account(north),)
    reasoning = json.dumps((await respond(**ENCRYPTED)).json["output"][0]).encode()
    gateway.SENTINEL_PROVIDERS = (account(south),)
    kept = (
        b'{"type":"message", "role":"user","content":"\\u00e9 \xc3\xa9"}',
        b'{"type":"function_call","call_id":"c","name":"n","arguments":"{\\"type\\":\\"reasoning\\"}"}',
        b'{"type":"function_call_output","call_id":"c","output":"1.0"}',
    )
    raw = b'{"model":"gpt-5.2","input":[%b,%b,%b,%b],"store":false,"x":1.0e2}'
    answer = await ask(raw % (kept[0], reasoning, *kept[1:]), path=RESPONSES)
    assert answer.headers["x-session-repaired"] == "encrypted_reasoning"
    assert south.used()[-1].body == b'{"model":"gpt-5.2","input":[%b,%b,%b],"store":false,"x":1.0e2}' % kept


def repaired(message: str, code: str | None) -> list | None:
    reasoning = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"}
    body = Body.parse(json.dumps({"input": [reasoning, {"role": "user", "content": "hello"}]}).encode())
    repair = API.repair(body, ApiError(400, message, code=code))
    return None if repair is None else json.loads(bytes(repair.body.fields["input"]))


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("", "invalid_encrypted_content"),
        ("The encrypted content for item rs_1 could not be verified.", "InvalidEncryptedContent"),
        ("The encrypted content gAAA...c90= could not be verified. Reason: it is of another account", None),
        ("Upstream request failed: reasoning `encrypted_content` was not issued to this caller", None),
        ("Item with id 'rs_1' not found. Items are not persisted when `store` is set to false.", None),
    ],
)
def test_repair_knows_every_wording_of_unreadable_reasoning(message, code):
    assert repaired(message, code) == [{"role": "user", "content": "hello"}]


@pytest.mark.parametrize(
    "message",
    [
        "Item with id 'msg_1' not found.",
        "Item 'fc_1' of type 'function_call' was provided without its required 'reasoning' item: 'rs_1'.",
        "Unsupported value: 'reasoning.encrypted_content'",
    ],
)
def test_repair_changes_nothing_when_the_error_is_about_something_else(message):
    assert repaired(message, None) is None


@pytest.mark.parametrize("given", ["text", [{"role": "user", "content": "hello"}]])
async def test_nothing_is_repaired_when_there_is_no_reasoning(alone, given):
    alone.script.append(UpstreamError(400, "cannot be verified", code="invalid_encrypted_content"))
    answer = await respond(given)
    assert (answer.status, answer.error["code"]) == (400, "invalid_encrypted_content")
    assert len(alone.requests) == 1


@pytest.fixture
def echo(gateway):
    gateway.SENTINEL_PROVIDERS = ECHO


async def test_echo_answers_as_the_api_does(echo):
    body = {"model": "echo-small", "input": [{"role": "user", "content": [{"type": "input_text", "text": "hello"}]}]}
    answer = await ask(body, path=RESPONSES)
    assert said(answer).endswith("(echo-small) heard: hello")
    assert answer.json["usage"]["input_tokens"] == 1
    assert answer.json["store"] is False


async def test_echo_streams_the_events_of_the_api(echo):
    found = events(await ask({"model": "echo-small", "input": "hello", "stream": True}, path=RESPONSES))
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    text = "".join(event["delta"] for event in found if event["type"] == "response.output_text.delta")
    assert text == found[-1]["response"]["output"][0]["content"][0]["text"]
    assert text.endswith("heard: hello")
    assert [event["type"] for event in found][-2:] == ["response.output_item.done", "response.completed"]


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"previous_response_id": "resp_1"}, 400),
        ({"conversation": {"id": "conv_1"}}, 404),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, 404),
    ],
)
async def test_echo_has_no_stored_objects(echo, fields, status):
    answer = await ask({"model": "echo-small", "input": "hello", **fields}, path=RESPONSES)
    assert answer.status == status
    assert "not found" in answer.error["message"]


async def test_echo_counts_tokens_and_does_not_compact(echo):
    body = {"model": "echo-small", "input": "hello there"}
    assert (await ask(body, path=f"{RESPONSES}/input_tokens")).json["input_tokens"] == 2
    answer = await ask(body, path=f"{RESPONSES}/compact")
    assert (answer.status, answer.error["code"]) == (400, "unsupported")


async def test_reasoning_in_a_hostile_number_of_items_is_not_removed(alone):
    alone.script.append(UpstreamError(400, "cannot be verified", code="invalid_encrypted_content"))
    items = [{"role": "user", "content": "hello"}, *[{"type": "reasoning"}] * MAX_ITEMS]
    answer = await respond(items)
    assert (answer.status, answer.error["code"]) == (400, "invalid_encrypted_content")
    assert len(alone.requests) == 1


@pytest.mark.parametrize(
    "given",
    [
        b"1," * 2_000_000 + b"1",
        b'"' + b'","' * 2_000_000 + b'"',
        b",".join([b'{"type":"compaction"}'] * 200_000),
        b",".join([b'{"file_id":"a"}'] * 200_000),
    ],
    ids=["numbers", "texts", "compactions", "files"],
)
def test_references_of_a_hostile_input_take_less_than_a_second(given):
    body = Body.parse(b'{"model":"m","input":[%b]}' % given)
    started = time.thread_time()
    API.references(body)
    assert time.thread_time() - started < 1
