"""Which headers go to a provider, and which of its headers come back: all others are dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from sentinel_project.gateway import apis
from sentinel_project.gateway.providers.config import API_NAMES, CREDENTIALS, OF_A_CLIENT, OF_A_CONNECTION
from tests.gateway.asgi import MESSAGES, ask, chat
from tests.gateway.conftest import NORTH_KEY, provider
from tests.gateway.upstreams import Exchange, Upstream, answers, fails

if TYPE_CHECKING:
    from pytest_django import Settings

BODIES: dict[str, dict[str, Any]] = {
    "/chat/completions": {"messages": MESSAGES},
    "/responses": {"input": "hello"},
    "/messages": {"messages": MESSAGES, "max_tokens": 9},
    "/messages/count_tokens": {"messages": MESSAGES},
    "/responses/input_tokens": {"input": "hello"},
    "/completions": {"prompt": "hello"},
    "/embeddings": {"input": "hello"},
}
HINTED = {"/chat/completions", "/responses", "/messages"}
"""Where a field that the API does not know may be sent: OpenAI refuses it in other requests."""
SERVED = [api for api in apis.APIS if api.path in BODIES]
PASSED_ON = {
    "openai-beta": "responses=v1",
    "anthropic-version": "2023-06-01",
    "anthropic-beta": "context-1m, interleaved-thinking",
    "x-stainless-lang": "python",
    "x-stainless-retry-count": "0",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "tracestate": "congo=t61rcWkgMzE",
    "idempotency-key": "key-of-the-client",
}
REFUSED = {"content-encoding"}
"""A compressed body is answered with 415."""
DROPPED = {
    *(CREDENTIALS - {"authorization"}),
    *OF_A_CLIENT,
    *(
        OF_A_CONNECTION
        - {"host", "connection", "content-type", "content-length", "transfer-encoding", "expect"}
        - REFUSED
    ),
    *("x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "via", "origin", "referer", "accept"),
    *(
        "x-stainless",
        "x-session-id",
        "x-conversation-id",
        "x-request-id",
        "x-codex-window-id",
        "openai-betas",
        "x-other",
    ),
}
OWN = {
    "host": None,
    "accept": "*/*",
    "accept-encoding": "identity",
    "user-agent": "sessions_sticky",
    "content-length": None,
    "content-type": "application/json",
    "authorization": f"Bearer {NORTH_KEY}",
}
"""What the gateway's own HTTP client sends; None: a value that depends on the request."""
TO_CLIENT = {
    "x-ratelimit-limit-requests": "5000",
    "x-ratelimit-remaining-tokens": "4999",
    "anthropic-ratelimit-unified-status": "allowed",
    "retry-after": "3",
    "retry-after-ms": "3000",
    "x-should-retry": "true",
    "openai-processing-ms": "12",
    "openai-version": "2020-10-01",
    "openai-model": "gpt-5.2",
    "x-reasoning-included": "true",
}
NOT_TO_CLIENT = {
    "set-cookie": "__cf_bm=secret",
    "server": "cloudflare",
    "openai-organization": "org-of-the-operator",
    "openai-project": "proj-of-the-operator",
    "anthropic-organization-id": "organization-of-the-operator",
    "cf-ray": "1",
    "via": "1.1 proxy",
    "alt-svc": "h3",
    "strict-transport-security": "max-age=1",
    "access-control-allow-origin": "*",
    "x-other": "1",
    "authorization": "Bearer secret",
    "location": "http://elsewhere",
}
GATEWAYS = {
    *("x-request-id", "x-content-type-options", "content-type", "content-length", "cache-control", "x-accel-buffering"),
    *("x-session-outcome", "x-session-source", "x-session-provider", "x-session-model", "x-session-expires-in"),
}


def got(exchange: Exchange) -> dict[str, str]:
    """Return the headers that an upstream got, each of which came once."""
    headers = {name.lower(): value for name, value in exchange.headers.items()}
    assert len(headers) == len(exchange.headers)
    return headers


def added(exchange: Exchange) -> dict[str, str]:
    """Return the headers that an upstream got besides the gateway's own."""
    headers = got(exchange)
    for name, value in OWN.items():
        assert value is None or headers[name] == value
        del headers[name]
    return headers


@pytest.mark.parametrize("api", SERVED, ids=lambda api: api.path)
async def test_provider_gets_exactly_the_headers_that_are_passed_on(gateway: Settings, north: Upstream, api):
    gateway.SENTINEL_PROVIDERS = (provider(north, apis=API_NAMES),)
    north.then(lambda exchange: exchange.send(200, msgspec.json.encode({api.answer_field: []})))
    sent = {**dict.fromkeys(sorted(DROPPED), "secret"), **PASSED_ON}
    answer = await ask({"model": "model-a", **BODIES[api.path]}, path=f"/v1{api.path}", headers=sent.items())
    assert answer.status == 200, answer.body
    (exchange,) = north.exchanges
    assert exchange.path == f"/v1{api.path}"
    assert added(exchange) == PASSED_ON
    assert "secret" not in str(exchange.headers)


async def test_provider_gets_a_dropped_header_when_its_entry_forwards_it(gateway: Settings, north: Upstream):
    named = frozenset({"x-other", "x-session-id", "user-agent"})
    gateway.SENTINEL_PROVIDERS = (provider(north, forward_headers=named),)
    await ask(chat(), headers=[*dict.fromkeys(sorted(DROPPED), "1").items(), ("User-Agent", "agent/1.0")])
    headers = got(north.exchanges[0])
    assert headers.pop("user-agent") == "agent/1.0"
    assert headers.keys() - OWN.keys() == {"x-other", "x-session-id"}


async def test_provider_gets_its_entrys_headers_when_the_client_sends_others(gateway: Settings, north: Upstream):
    own = {"openai-beta": "of-the-operator", "openai-organization": "org-1", "x-stainless-lang": "none"}
    gateway.SENTINEL_PROVIDERS = (provider(north, headers=own),)
    await ask(chat(), headers=[("OpenAI-Beta", "of-the-client"), ("X-Stainless-Lang", "python")])
    assert added(north.exchanges[0]) == own


@pytest.mark.parametrize(
    "connection",
    [
        ["OpenAI-Beta"],
        ["keep-alive, OpenAI-Beta"],
        ["openai-beta ,traceparent"],
        ["OpenAI-Beta", "keep-alive"],
        ["keep-alive", "close", "OPENAI-BETA"],
    ],
)
async def test_provider_gets_no_header_that_connection_names(gateway: Settings, north: Upstream, connection):
    gateway.SENTINEL_PROVIDERS = (provider(north, forward_headers=frozenset({"x-kept"}), affinity_header="x-hint"),)
    headers = [("OpenAI-Beta", "v1"), ("X-Kept", "1"), *(("Connection", value) for value in connection)]
    await ask(chat(conversation_id="conv-1"), headers=headers)
    assert added(north.exchanges[0]).keys() == {"x-kept", "x-hint"}


@pytest.mark.parametrize("name", ["x-stainless-lang", "x-forwarded-by-entry", "x-hint"])
@pytest.mark.parametrize("value", ["a\tb", "é", b"\xff", "\x7f", "☃"])
async def test_provider_gets_no_value_that_is_not_printable_ascii(gateway: Settings, north: Upstream, name, value):
    fields = {"forward_headers": frozenset({"x-forwarded-by-entry"}), "affinity_header": "x-hint"}
    gateway.SENTINEL_PROVIDERS = (provider(north, **fields),)
    answer = await ask(chat(conversation_id="conv-1"), headers=[(name, value)])
    assert answer.status == 200
    headers = added(north.exchanges[0])
    assert len(headers.pop("x-hint")) == 32  # the gateway's own
    assert headers == {}


async def test_provider_gets_repeated_headers_as_one_list(only_north: Upstream):
    await ask(chat(), headers=[("Anthropic-Beta", "context-1m"), ("Anthropic-Beta", "thinking")])
    assert added(only_north.exchanges[0]) == {"anthropic-beta": "context-1m, thinking"}


@pytest.mark.parametrize("failure", [fails(503), fails(429), fails(401), fails(404), lambda exchange: exchange.cut()])
async def test_idempotency_key_goes_to_the_first_provider_only(gateway: Settings, north, south, failure):
    for upstream in (north, south):
        upstream.then(failure)
    await ask(chat(), headers=[("Idempotency-Key", "key-1"), ("OpenAI-Beta", "v1")])
    first, second = sorted((upstream.exchanges[0] for upstream in (north, south)), key=lambda each: each.received)
    assert got(first)["idempotency-key"] == "key-1"
    assert "idempotency-key" not in got(second)
    assert got(first)["openai-beta"] == got(second)["openai-beta"] == "v1"


@pytest.mark.parametrize("api", SERVED, ids=lambda api: api.path)
async def test_provider_gets_its_hint_in_every_api_that_can_have_one(gateway: Settings, north: Upstream, api):
    hints = {"affinity_field": "prompt_cache_key", "affinity_header": "x-hint"}
    gateway.SENTINEL_PROVIDERS = (provider(north, apis=API_NAMES, **hints),)
    body = {"model": "model-a", **BODIES[api.path]}
    hinted, fields = [], []
    for session_id in ("ses-1", "ses-1", "ses-2"):
        await ask(body, path=f"/v1{api.path}", headers=[("X-Session-Id", session_id)])
        hinted.append(added(north.exchanges[-1])["x-hint"])  # a connection's next request takes its place
        fields.append(north.exchanges[-1].json.get("prompt_cache_key"))
    assert hinted[0] == hinted[1] != hinted[2]
    assert "ses" not in hinted[0]
    assert fields == (hinted if api.path in HINTED else [None] * 3)


async def turn_state(upstream: Upstream) -> str:
    """Return what a client gets for the state of a turn that an upstream issued."""
    upstream.then(with_headers({"x-codex-turn-state": f"state-of-{upstream.name}"}))
    return (await ask(chat())).headers["x-codex-turn-state"]


async def test_turn_state_goes_back_to_the_provider_that_issued_it_and_to_no_other(gateway: Settings, north, south):
    gateway.SENTINEL_PROVIDERS = (provider(north),)
    state = await turn_state(north)
    assert "north" in state
    for upstream, sent in ((north, {"x-codex-turn-state": "state-of-north"}), (south, {})):
        gateway.SENTINEL_PROVIDERS = (provider(upstream, forward_headers=frozenset({"x-codex-turn-state"})),)
        await ask(chat(), headers=[("X-Codex-Turn-State", state)])
        headers = got(upstream.exchanges[-1])
        assert {name: value for name, value in headers.items() if name == "x-codex-turn-state"} == sent


async def test_turn_state_is_dropped_when_its_provider_fails_and_another_serves(gateway: Settings, north, south):
    gateway.SENTINEL_PROVIDERS = (provider(north),)
    state = await turn_state(north)
    gateway.SENTINEL_PROVIDERS = (provider(north), provider(south, weight=0.001))
    north.clear()
    north.then(fails(503))
    answer = await ask(chat(conversation_id="conv-1"), headers=[("X-Codex-Turn-State", state)])
    assert answer.headers["x-session-provider"] == "south"
    assert got(north.exchanges[0])["x-codex-turn-state"] == "state-of-north"
    assert "x-codex-turn-state" not in got(south.exchanges[0])


@pytest.mark.parametrize("change", ["state", ":state", "", "{issuer}:", "{issuer}", "{issuer}x:state", "{issuer}:\t"])
async def test_turn_state_is_dropped_when_the_gateway_did_not_issue_it(only_north: Upstream, change):
    issuer = (await turn_state(only_north)).partition(":")[0]
    await ask(chat(), headers=[("X-Codex-Turn-State", change.format(issuer=issuer))])
    assert added(only_north.exchanges[-1]) == {}


async def test_turn_state_is_dropped_when_connection_names_it(only_north: Upstream):
    state = await turn_state(only_north)
    await ask(chat(), headers=[("X-Codex-Turn-State", state), ("Connection", "X-Codex-Turn-State")])
    assert added(only_north.exchanges[-1]) == {}


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("request_id", ["x-request-id", "request-id"])
async def test_client_gets_exactly_the_headers_that_come_back(only_north: Upstream, is_stream, request_id):
    headers = {**NOT_TO_CLIENT, **TO_CLIENT, request_id: "req-of-the-provider"}
    only_north.then(with_headers(headers))
    answer = await ask(chat(stream=is_stream, conversation_id="conv-1"))
    assert answer.status == 200
    ids = dict.fromkeys(["x-upstream-request-id", "request-id"], "req-of-the-provider")
    assert {name: value for name, value in answer.headers.items() if name not in GATEWAYS} == {**TO_CLIENT, **ids}
    assert answer.headers["x-request-id"] != "req-of-the-provider"
    assert "secret" not in str(answer.headers)
    assert "operator" not in str(answer.headers)


@pytest.mark.parametrize("status", [400, 404, 429, 500])
async def test_client_gets_the_same_headers_with_an_error(only_north: Upstream, status):
    headers = {**NOT_TO_CLIENT, **TO_CLIENT, "x-request-id": "req-1"}
    only_north.then(fails(status, {"error": {"message": "no"}}, **headers))
    answer = await ask(chat(conversation_id="conv-1"))
    assert answer.status == status
    names = {name for name in answer.headers if name not in GATEWAYS}
    assert names - {"x-should-retry"} == {*TO_CLIENT, "x-upstream-request-id", "request-id"} - {"x-should-retry"}


@pytest.mark.parametrize("value", ["é", "a\tb"])
async def test_client_gets_no_value_that_is_not_printable_ascii(only_north: Upstream, value):
    only_north.then(with_headers(dict.fromkeys(["x-ratelimit-limit-requests", "x-request-id", "openai-model"], value)))
    answer = await ask(chat())
    assert answer.status == 200
    assert not {"x-ratelimit-limit-requests", "x-upstream-request-id", "openai-model"} & answer.headers.keys()


def with_headers(headers: dict[str, str]):
    """Answer as usual, with further headers."""

    def behave(exchange: Exchange) -> None:
        end_headers = exchange.end_headers

        def end_with_headers() -> None:
            for name, value in headers.items():
                exchange.send_header(name, value)
            end_headers()

        exchange.end_headers = end_with_headers  # type: ignore[method-assign]
        answers(exchange)

    return behave
