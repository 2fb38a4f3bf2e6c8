"""The recording upstreams refuse what the real ones refuse, and count what the real ones count."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.clients.upstream import Upstream

LONG = [{"role": "user", "content": 560 * "word "}]
"""2,800 characters and some more: five whole blocks."""
CACHED = 5 * 128


@pytest.fixture(scope="module")
def north() -> Iterator[Upstream]:
    with Upstream("north") as upstream:
        yield upstream


@pytest.fixture(scope="module")
def south() -> Iterator[Upstream]:
    with Upstream("south") as upstream:
        yield upstream


def post(upstream: Upstream, path: str, **body: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {upstream.api_key}", "anthropic-version": "2023-06-01"}
    if path != "messages":
        del headers["anthropic-version"]
        body = {"model": "gpt-5.2", **body}
    else:
        body = {"model": "claude-opus-4-6", "max_tokens": 2000, **body}
    return httpx.post(f"{upstream.url}/{path}", json=body, headers=headers)


def test_request_is_recorded_byte_for_byte(north: Upstream) -> None:
    body = b'{ "model":"gpt-5.2",\n "messages" : [{"role":"user","content":"\\u00e9"}] }'
    httpx.post(f"{north.url}/chat/completions?a=%20b", content=body, headers={"X-Odd": "1"}).close()
    recorded = north.requests[-1]
    assert (recorded.path, recorded.query, recorded.body) == ("/v1/chat/completions", "a=%20b", body)
    assert ("X-Odd", "1") in recorded.headers


def test_reasoning_is_refused_when_another_account_made_it(north: Upstream, south: Upstream) -> None:
    turn: dict[str, Any] = {"store": False, "include": ["reasoning.encrypted_content"]}
    output = post(north, "responses", input="hello", **turn).json()["output"]
    assert [item["type"] for item in output] == ["reasoning", "message"]
    again = [*output, {"role": "user", "content": "and now?"}]
    assert post(north, "responses", input=again, **turn).status_code == 200
    refused = post(south, "responses", input=again, **turn)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_encrypted_content")
    assert post(south, "responses", input=again[1:], **turn).status_code == 200


def test_thinking_is_refused_when_another_account_made_it(north: Upstream, south: Upstream) -> None:
    turn: dict[str, Any] = {"thinking": {"type": "adaptive"}}
    hello = {"role": "user", "content": "hello"}
    content = post(north, "messages", messages=[hello], **turn).json()["content"]
    assert [block["type"] for block in content] == ["thinking", "text"]
    again = [hello, {"role": "assistant", "content": content}, hello]
    assert post(north, "messages", messages=again, **turn).status_code == 200
    refused = post(south, "messages", messages=again, **turn)
    assert refused.status_code == 400
    error = refused.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["message"] == "messages.1.content.0: Invalid `signature` in `thinking` block"


@pytest.mark.parametrize("path", ["chat/completions", "responses"])
def test_usage_contains_the_cached_tokens_when_the_api_is_openais(path: str) -> None:
    names = (
        ("prompt_tokens", "prompt_tokens_details")
        if path == "chat/completions"
        else ("input_tokens", "input_tokens_details")
    )
    field = "messages" if path == "chat/completions" else "input"
    with Upstream("east") as upstream:
        cold, warm = (post(upstream, path, **{field: LONG}).json()["usage"] for _ in range(2))
    assert cold[names[0]] == warm[names[0]] > CACHED
    assert [usage[names[1]]["cached_tokens"] for usage in (cold, warm)] == [0, CACHED]


def test_usage_is_apart_from_the_cached_tokens_when_the_api_is_anthropics() -> None:
    cached = [{"type": "text", "text": 560 * "word ", "cache_control": {"type": "ephemeral"}}]
    with Upstream("east") as upstream:
        usages = [
            post(upstream, "messages", system=system, messages=[{"role": "user", "content": "hi"}]).json()["usage"]
            for system in (560 * "word ", cached, cached)
        ]
    counted = [(each["cache_creation_input_tokens"], each["cache_read_input_tokens"]) for each in usages]
    assert counted == [(0, 0), (CACHED, 0), (0, CACHED)]
    assert usages[0]["input_tokens"] == usages[1]["input_tokens"] + CACHED == usages[2]["input_tokens"] + CACHED
