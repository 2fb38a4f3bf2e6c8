"""Requests that cannot be served: a 4xx in OpenAI's shape that names the field."""

from __future__ import annotations

import json
import logging
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from sentinel_project.gateway.providers.config import ECHO
from sentinel_project.http_exchange import EXCHANGE, Exchange
from tests.gateway.asgi import CHAT, KEY, MESSAGES, Call, ask, chat
from tests.gateway.conftest import provider

pytestmark = pytest.mark.usefixtures("gateway")

BEARER = {"headers": {"Authorization": f"Bearer {KEY}"}}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": MESSAGES}, "model"),
        (chat(""), "model"),
        (chat(17), "model"),
        (chat(["model-a"]), "model"),
        (chat(None), "model"),
        (chat(257 * "m"), "model"),
        ({"model": "model-a"}, "messages"),
        (chat() | {"messages": []}, "messages"),
        (chat() | {"messages": None}, "messages"),
        (chat() | {"messages": "hello"}, "messages"),
        (chat() | {"messages": {"role": "user"}}, "messages"),
        (chat(stream="yes"), "stream"),
        (chat(stream=1), "stream"),
        (chat(stream=[]), "stream"),
        (chat(conversation_id=17), "conversation_id"),
        (chat(conversation_id=["a"]), "conversation_id"),
        (chat(conversation_id={}), "conversation_id"),
        (chat(conversation_id=False), "conversation_id"),
        (chat(conversation_id=""), "conversation_id"),
        (chat(conversation_id=257 * "x"), "conversation_id"),
        (chat(conversation_id="a\x00b"), "conversation_id"),
        (chat(conversation_id="a\r\nb"), "conversation_id"),
    ],
)
async def test_chat_is_refused_and_names_the_field_when_it_is_wrong(body, param, session_cache, north, south):
    answer = await ask(body)
    assert answer.status == 400
    assert answer.error["param"] == param
    assert answer.error["type"] == "invalid_request_error"
    assert param in answer.error["message"]
    assert not north.exchanges + south.exchanges
    assert session_cache.dbsize() == 0


@pytest.mark.parametrize("stream", [True, False])
async def test_chat_is_refused_when_no_provider_serves_the_model(session_cache, stream):
    answer = await ask(chat("gpt-0", conversation_id="conv-1", stream=stream))
    assert answer.status == 404
    assert answer.error["param"] == "model"
    assert answer.error["code"] == "model_not_found"
    assert "'gpt-0'" in answer.error["message"]
    assert session_cache.dbsize() == 0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"hello",
        b"null",
        b"[]",
        b'"text"',
        b"17",
        b"NaN",
        b"model=model-a&messages=hello",
        b'{"model": "model-a", "messages": [{"content": "\xff\xfe"}]}',
        b'{"model": "\xc3"}',
        b'{"model": "model-a", "x": "\\ud800"}',
        b"\xef\xbb\xbf{}",
        "{}".encode("utf-16"),
        100_000 * b"[",
        b'{"a":' * 100_000,
    ],
)
async def test_chat_is_refused_when_the_body_is_not_a_json_object(body):
    answer = await ask(body)
    assert answer.status == 400
    assert answer.error["code"] == "invalid_json"
    assert "The request body is not " in answer.error["message"]
    assert len(answer.body) < 1000


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "not JSON: it is empty"),
        (b" \n", "not JSON: it is empty"),
        (b'{"model": "model-a"', "not JSON: it ends too early"),
        (b'{"model": "\xff"}', "not UTF-8: byte 0xff at position 11"),
        (b'{"x": ' + 100_000 * b"[", "not supported: it is nested too deeply"),
        (b'{"model": "m", "x": "cut \\ud83d"}', "not JSON: \\ud83d at position 25 is half of a surrogate pair"),
        (b'{"x": ["\\ud83d\\ude00", "\\uDE00 cut"]}', "not JSON: \\uDE00 at position 24 is half of a surrogate pair"),
        (b'{"x": "\\ud83d\\u0041"}', "not JSON: \\ud83d at position 7 is half of a surrogate pair"),
        (b'{"model": hello}', "not JSON: JSON is malformed: invalid character (byte 10)"),
    ],
)
async def test_chat_is_refused_with_the_problem_of_its_body(body, problem):
    assert (await ask(body)).error["message"] == f"The request body is {problem}"


async def test_chat_is_refused_when_the_body_begins_with_a_byte_order_mark():
    answer = await ask(b"\xef\xbb\xbf" + json.dumps(chat()).encode())
    assert (answer.status, answer.error["code"]) == (400, "invalid_json")
    assert "byte order mark" in answer.error["message"]


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd", "deflate, gzip", "x" * 1000])
async def test_chat_is_refused_with_415_when_the_body_is_compressed(north, south, encoding):
    answer = await ask(chat(), headers=[("Content-Encoding", encoding)])
    assert (answer.status, answer.error["code"]) == (415, "unsupported_encoding")
    assert answer.headers["accept-encoding"] == "identity"
    assert len(answer.body) < 500
    assert not north.exchanges + south.exchanges
    assert (await ask(chat(), headers=[("Content-Encoding", "identity")])).status == 200


@pytest.mark.parametrize("depth", [10, 100, *range(880, 1010, 5), 5000])
async def test_chat_never_fails_when_the_body_is_nested_deeply(gateway, depth):
    nested = b'{"model":"echo-small","messages":[{"role":"user","content":%s}]}' % (depth * b"[" + depth * b"]")
    gateway.SENTINEL_PROVIDERS = ECHO
    answer = await ask(nested)
    assert answer.status in ((200,) if depth <= 100 else (200, 400)), answer.body
    if answer.status == 400:
        assert answer.error["message"] == "The request body is not supported: it is nested too deeply"


@pytest.mark.parametrize("depth", [10, 100, *range(880, 1010, 5)])
async def test_chat_never_fails_when_a_field_to_forward_is_nested_deeply(only_north, depth):
    only_north.then(lambda exchange: exchange.send(200, b'{"choices":[]}'))
    nested = b'{"model":"model-a","messages":[{}],"x":%s}' % (depth * b"[" + depth * b"]")
    answer = await ask(nested)
    assert answer.status in ((200,) if depth <= 100 else (200, 400)), answer.body


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_chat_is_refused_with_the_allowed_method_for_another_one(method):
    answer = await ask(chat(), method=method)
    assert answer.status == 405
    assert answer.headers["allow"] == "POST"
    assert method in answer.error["message"]


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/model-a"])
async def test_models_are_refused_with_the_allowed_method_for_another_one(path):
    answer = await ask({}, path=path)
    assert answer.status == 405
    assert answer.headers["allow"] == "GET"
    assert answer.error["message"]


@pytest.mark.parametrize(
    "path", ["/v1/", "/v1/files", "/v1/chat/completions/", "/v1//chat/completions", "/v1/é\n%", "/v1/models/"]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_unknown_path_is_not_found_when_it_is_below_v1(path, method):
    answer = await ask(chat(), path=path, method=method)
    assert answer.status == 404
    assert answer.error["code"] == "unknown_url"
    assert answer.error["message"] == f"Unknown path: {path}"


async def test_model_is_described_when_its_name_has_slashes(gateway, north):
    gateway.SENTINEL_PROVIDERS = (provider(north, models=("org/model:free",)),)
    answer = await ask(path="/v1/models/org/model:free", method="GET")
    assert answer.json == {"id": "org/model:free", "object": "model", "created": 0, "owned_by": "north"}


LIMIT = 2048


def padded(length: int) -> bytes:
    start = b'{"model":"model-a","messages":[{"role":"user","content":"'
    return start + (length - len(start) - 4) * b"x" + b'"}]}'


async def test_chat_is_served_when_the_body_is_exactly_at_the_limit(gateway):
    gateway.DATA_UPLOAD_MAX_MEMORY_SIZE = LIMIT
    assert len(padded(LIMIT)) == LIMIT
    assert (await ask(padded(LIMIT))).status == 200


@pytest.mark.parametrize("pieces", [[padded(LIMIT + 1)], [padded(LIMIT + 1)[:LIMIT], b"}"], 100 * [1024 * b" "]])
async def test_chat_is_refused_when_the_body_is_over_the_limit(gateway, north, south, pieces):
    gateway.DATA_UPLOAD_MAX_MEMORY_SIZE = LIMIT
    answer = await ask(pieces=pieces)
    assert answer.status == 413
    assert answer.error["code"] == "request_too_large"
    assert str(LIMIT) in answer.error["message"]
    assert not north.exchanges + south.exchanges
    assert answer.unread == max(0, len(pieces) - 3)  # it does not read what it will not use


@pytest.mark.parametrize(("length", "status"), [(LIMIT, 200), (LIMIT + 1, 413)])
async def test_limit_applies_to_a_body_that_has_arrived_whole_at_our_own_server(gateway, length, status):
    gateway.DATA_UPLOAD_MAX_MEMORY_SIZE = LIMIT
    exchange = Exchange(Mock(), SimpleNamespace(is_persistent=True, expects_continue=False), {})
    exchange.feed(padded(length), is_last=True)
    call = Call(pieces=[])
    call._scope["extensions"] = {EXCHANGE: exchange}
    assert (await call.answer()).status == status


@pytest.mark.parametrize("key", [None, "sk-sentinel-unknown"])
async def test_chat_reads_no_long_body_when_the_key_is_not_valid(gateway, key):
    answer = await ask(pieces=9 * [32 * 1024 * b" "], key=key)
    assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
    assert answer.unread == 6
    assert answer.headers["x-request-id"]


async def test_chat_is_served_when_a_long_body_comes_in_many_pieces(gateway):
    body = json.dumps(chat(extra="x" * 300_000)).encode()
    pieces = [body[at : at + 32 * 1024] for at in range(0, len(body), 32 * 1024)]
    assert (await ask(pieces=pieces)).status == 200


async def test_test_client_gets_the_same_answers_through_djangos_path(gateway, async_client, north, south):
    async def post(body, **how):
        return await async_client.post(CHAT, body, content_type="application/json", **{**BEARER, **how})

    answer = await post(chat(conversation_id="conv-1"))
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"] in ("north as model-a", "south as model-a")
    assert answer["X-Session-Outcome"] == "created"
    stream = await post(chat(conversation_id="conv-1", stream=True))
    assert stream["X-Session-Outcome"] == "hit"
    assert b"".join([chunk async for chunk in stream]).endswith(b"data: [DONE]\n\n")
    refused = await post(chat(17))
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "model")
    gateway.DATA_UPLOAD_MAX_MEMORY_SIZE = LIMIT
    refused = await post(padded(LIMIT + 1))
    assert (refused.status_code, refused.json()["error"]["code"]) == (413, "request_too_large")
    refused = await post(chat(), headers={})
    assert (refused.status_code, refused["WWW-Authenticate"]) == (401, "Bearer")
    for path, status in (("/v1/nothing", 404), ("/v1/models", 200), (CHAT, 405)):
        assert (await async_client.get(path, **BEARER)).status_code == status


async def test_log_and_answer_stay_short_when_the_model_is_long(caplog):
    with caplog.at_level(logging.INFO):
        answer = await ask(chat(100_000 * "m"))
    assert len(answer.body) < 1000
    assert caplog.messages
    assert max(map(len, caplog.messages)) < 1000
