"""What the upstream is sent."""

from __future__ import annotations

import json

import msgspec
import pytest

from sentinel_project.gateway.upstream import client
from tests.gateway.asgi import KEY, MESSAGES, ask, chat
from tests.gateway.conftest import NORTH_KEY, provider
from tests.gateway.upstreams import Exchange, Upstream, fails

TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 0.1, "top_p": 1.0, "seed": -5, "n": 2, "stop": None, "logprobs": False},
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "look"}}},
        {"a_field_of_tomorrow": {"nested": [[[{"deep": [1, 2.5, "x", None, True]}]]]}},
        {"seed": 2**63, "big": 2**64 - 1, "small": -(2**63)},
        {"beyond": 2**64, "far": 10**40, "below": -(10**40)},
        {"tiny": 5e-324, "huge": 1.7976931348623157e308, "third": 0.30000000000000004, "zero": -0.0},
        {"text": 'Grüße 🙂 \u2028 \x00 "quoted" \\ /', "ключ": "значение"},
        {"user": "ann", "safety_identifier": "s-1", "metadata": {"conversation_id": "conv-1", "topic": "x"}},
        {"prompt_cache_key": "conv-2", "store": True},
    ],
)
async def test_chat_forwards_fields_unchanged_when_they_are_not_the_gateways(only_north: Upstream, fields):
    answer = await ask(chat(**fields))
    assert answer.status == 200, answer.body
    sent = json.loads(only_north.exchanges[0].body)
    assert sent == chat(**fields)
    assert repr(sent) == repr(chat(**fields))  # 1 is not 1.0, 0.0 is not -0.0, and the order stays


async def test_chat_forwards_messages_unchanged_when_they_have_parts(only_north: Upstream):
    messages = [
        {"role": "system", "content": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function", "function": {}}]},
        {"role": "tool", "tool_call_id": "c", "content": ""},
    ]
    await ask({"model": "model-a", "messages": messages})
    assert only_north.sent[0]["messages"] == messages


@pytest.mark.parametrize("kib", [1, 1_023, 1_024, 5_000])
async def test_chat_forwards_large_bodies_with_their_length_also_when_sent_again(only_north: Upstream, kib: int):
    """The second one is sent again, on a new connection, because the provider has closed the kept one."""
    url = "data:image/png;base64," + kib * 1024 * "A"
    body = json.dumps(chat(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": url}]}])).encode()
    assert (await ask(body)).status == 200
    only_north.then(Exchange.cut)
    assert (await ask(body)).status == 200
    first, _, again = only_north.exchanges
    for exchange in (first, again):
        assert exchange.body == body
        assert exchange.headers["Content-Length"] == str(len(body))


async def test_chat_keeps_conversation_id_to_itself_when_it_forwards(only_north: Upstream):
    await ask(chat(conversation_id="conv-1"), headers=[("X-Conversation-Id", "conv-2"), ("X-Session-Id", "conv-3")])
    (exchange,) = only_north.exchanges
    assert exchange.json == chat()
    assert "conv-" not in f"{exchange.headers}{exchange.body!r}"


async def test_chat_sends_the_providers_key_and_not_the_clients_when_it_forwards(gateway, north, south):
    for upstream in (north, south):
        gateway.SENTINEL_PROVIDERS = (provider(upstream),)
        await ask(chat(), headers=[("Cookie", "sessionid=secret"), ("OpenAI-Organization", "org-of-the-client")])
    (to_north,), (to_south,) = north.exchanges, south.exchanges
    assert to_north.headers["Authorization"] == f"Bearer {NORTH_KEY}"
    assert "Authorization" not in to_south.headers  # it has no key
    for exchange in (to_north, to_south):
        assert KEY not in str(exchange.headers)
        assert "Cookie" not in exchange.headers
        assert exchange.headers["Content-Type"] == "application/json"
        assert exchange.path == "/v1/chat/completions"


async def test_chat_forwards_the_sessions_model_when_another_was_asked_for(only_north: Upstream):
    await ask(chat("model-a", conversation_id="conv-1"))
    await ask(chat("model-b", conversation_id="conv-1", temperature=0.5))
    assert only_north.sent[1] == chat("model-a", temperature=0.5)


async def test_chat_logs_the_difference_when_another_model_was_asked_for(only_north: Upstream, caplog):
    await ask(chat("model-a", conversation_id="conv-1"))

    def differences() -> list[str]:
        return [record.message for record in caplog.records if record.name == "sentinel_project.gateway.routing.plan"]

    with caplog.at_level("INFO", "sentinel_project"):
        await ask(chat("model-a", conversation_id="conv-1"))
        assert not differences()
        await ask(chat("model-b", conversation_id="conv-1"))
    (message,) = differences()
    assert "'conv-1'" in message
    assert "'model-a'" in message
    assert "'model-b'" in message


async def test_chat_passes_the_answer_on_unchanged_when_the_upstream_answers(only_north: Upstream):
    body = b'{"id": "x",  "choices": [], "their_field": 1.0}\n'
    only_north.then(lambda exchange: exchange.send(200, body, content_type="application/json; charset=utf-8"))
    answer = await ask({"model": "model-a", "messages": MESSAGES})
    assert answer.body == body
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.headers["content-length"] == str(len(body))


@pytest.mark.parametrize(
    ("status", "how"),
    [
        (200, {"body": chat()}),
        (200, {"body": chat(stream=True)}),
        (200, {"path": "/v1/models", "method": "GET"}),
        (400, {"body": b"{"}),
        (401, {"body": chat(), "key": "sk-unknown"}),
        (404, {"path": "/v1/nothing"}),
        (405, {"method": "PUT"}),
        (413, {"body": b" " * 2000}),
        (502, {"body": chat("broken")}),
    ],
)
async def test_answer_is_sent_with_nosniff(gateway, north: Upstream, status, how):
    gateway.DATA_UPLOAD_MAX_MEMORY_SIZE = 1000
    closed = msgspec.structs.replace(provider(north), base_url="http://127.0.0.1:1", models=("broken",), name="closed")
    gateway.SENTINEL_PROVIDERS = (provider(north), closed)
    answer = await ask(**how)
    assert answer.status == status
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("query", "own", "sent"),
    [
        ("", {}, ""),
        ("beta=true", {}, "beta=true"),
        ("include[]=a&include%5B%5D=b+c%26d", {}, "include%5B%5D=a&include%5B%5D=b+c%26d"),
        ("stream=true&starting_after=5&limit=2&order=asc&after=x", {}, None),
        ("stream=true&starting_after=5&include_obfuscation=false", {}, None),
        ("beta=&key=secret&api-version=2020&Beta=x&BETA", {}, "beta="),
        ("beta=true", {"api-version": "2026-01-01"}, "beta=true&api-version=2026-01-01"),
        ("beta=true&limit=3&beta=x", {"beta": "false"}, "limit=3&beta=false"),
        ("beta=%ff%00&after=\u00fc", {}, "beta=%EF%BF%BD%00&after=%C3%BC"),
    ],
)
async def test_query_that_is_allowed_is_forwarded_and_the_providers_own_wins(gateway, north, query, own, sent):
    gateway.SENTINEL_PROVIDERS = (msgspec.structs.replace(provider(north), query=own),)
    assert (await ask(chat(), query=query)).status == 200
    path, _, forwarded = north.exchanges[0].path.partition("?")
    assert path == "/v1/chat/completions"
    assert forwarded == (query if sent is None else sent)


async def test_probe_sends_the_providers_query_and_headers(north: Upstream):
    own = msgspec.structs.replace(provider(north), query={"api-version": "1"}, headers={"anthropic-version": "2"})
    north.then(fails(404))
    assert await client.probe(own) == 404
    (exchange,) = north.exchanges
    assert (exchange.path, exchange.headers["anthropic-version"]) == ("/v1/models?api-version=1", "2")
