"""OpenAI's Responses API over two accounts that record every byte: requests, and what a stream says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from sentinel_project.gateway.providers.config import Provider
from tests.clients.upstream import Upstream
from tests.gateway.asgi import Call, ask

MODEL = "gpt-5.2"
RESPONSES = "/v1/responses"
APIS = ("chat", "responses", "completions", "embeddings")


def account(upstream: Upstream, **fields: Any) -> Provider:
    """Return the provider entry of an upstream."""
    entry = {"models": upstream.account.models, "weight": 1, "apis": APIS, "account": upstream.name, **fields}
    return Provider(name=upstream.name, base_url=upstream.url, api_key=upstream.api_key, **entry)


@contextmanager
def two_accounts() -> Iterator[tuple[Upstream, Upstream]]:
    """Start two upstreams, `north` and `south`."""
    with Upstream("north") as north, Upstream("south") as south:
        yield north, south


def responses_only(gateway: Any) -> None:
    """Let the only provider speak this API."""
    (entry,) = gateway.SENTINEL_PROVIDERS
    gateway.SENTINEL_PROVIDERS = (msgspec.structs.replace(entry, apis=("responses",)),)


async def respond(given: Any = "hello", *, headers: Any = (), key: str | None = None, **fields: Any) -> Call:
    """Return the answered request; `key` None is ann's."""
    how = {} if key is None else {"key": key}
    return await ask({"model": MODEL, "input": given, **fields}, path=RESPONSES, headers=headers, **how)


def events(call: Call) -> list[dict[str, Any]]:
    """Return the events of a stream; each has its type as its name too."""
    found = []
    for event in call.body.decode().split("\n\n")[:-1]:
        name, data = event.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def said(call: Call) -> str:
    """Return the text of a response's message."""
    return str(call.json["output"][-1]["content"][0]["text"])
