"""Totals under load are exact: what upstreams with prompt caches of their own have counted for themselves."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

import aiohttp
import pytest

from tests.clients.upstream import Upstream
from tests.gateway.live import environment, manage, provider_entry
from tests.gateway.workers import Workers
from tests.servers import start_server

pytestmark = pytest.mark.slow

NAMES = ("north", "south", "east")
CLAUDE = "claude-opus-4-6"
PATHS = {"/v1/chat/completions": "gpt-5.2", "/v1/responses": "gpt-5-mini", "/v1/messages": CLAUDE}
CONVERSATIONS, TURNS, IN_FLIGHT = 60, 6, 32


@pytest.fixture
def upstreams() -> Iterator[list[Upstream]]:
    with ExitStack() as stack:
        yield [stack.enter_context(Upstream(name)) for name in NAMES]


@pytest.fixture
def variables(tmp_path, upstreams) -> Iterator[dict[str, str]]:
    """The environment of the gateway: its store, and all upstreams with all APIs."""
    file, keys = tmp_path / "providers.toml", {f"KEY_OF_{each.name.upper()}": each.api_key for each in upstreams}
    file.write_text(
        "".join(
            provider_entry(
                each.name,
                each.url,
                list(PATHS.values()),
                apis=["chat", "responses", "messages"],
                api_key_env=variable,
            )
            for each, variable in zip(upstreams, keys, strict=True)
        )
    )
    with start_server() as store:
        asks = {"REDIS_URL": store.url, "SENTINEL_PROVIDERS": str(file), "SENTINEL_STREAM_USAGE": "1"}
        yield {**asks, **keys}


def body(path: str, number: int, turn: int) -> dict[str, object]:
    """Return a conversation's request; plain and streamed ones take turns."""
    system = f"You are agent {number}. " + "You know many things. " * 300
    said = [{"role": "user", "content": "a question of some words " * 40}]
    history = said + [{"role": "assistant", "content": "an answer"}, *said] * turn
    fields = {"model": PATHS[path], "conversation_id": f"conv-{number}", "stream": (number + turn) % 2 == 0}
    if path == "/v1/responses":
        return {**fields, "instructions": system, "input": history, "store": False}
    if path == "/v1/messages":
        cached = [{"type": "text", "text": system, "cache_control": {"type": "ephemeral"}}]
        return {**fields, "system": cached, "messages": history, "max_tokens": 10}
    return {**fields, "messages": [{"role": "system", "content": system}, *history]}


async def run(workers: Workers) -> None:
    """Send all turns of all conversations, and read each answer to its end."""
    limit = asyncio.Semaphore(IN_FLIGHT)
    headers = {"Authorization": f"Bearer {workers.key}", "anthropic-version": "2023-06-01"}
    async with aiohttp.ClientSession(headers=headers) as client:

        async def converse(number: int) -> None:
            path = list(PATHS)[number % len(PATHS)]
            for turn in range(TURNS):
                url = workers.urls[(number + turn) % len(workers.urls)]
                async with limit, client.post(url + path, json=body(path, number, turn)) as answer:
                    text = await answer.text()
                    assert answer.status == 200, text

        await asyncio.gather(*(converse(number) for number in range(CONVERSATIONS)))


def test_totals_are_what_the_upstreams_counted(tmp_path, upstreams, variables):
    def recorded() -> dict[str, dict[str, int]]:
        done = manage("sessions", "stats", "--json", env=environment(tmp_path, **variables))
        sums = {name: Counter(turns=0) for name in NAMES}
        for route in json.loads(done.stdout)["usage"]:
            sums[route["provider"]].update({name: route["totals"][name] for name in ("turns", "input", "read")})
        return sums

    with Workers(tmp_path, 2, **variables) as workers:
        asyncio.run(run(workers))
    found = recorded()  # the workers have recorded their last turns when they ended
    assert sum(each["turns"] for each in found.values()) == CONVERSATIONS * TURNS
    assert found == {each.name: each.account.cache.counted for each in upstreams}
    assert all(each["read"] > each["input"] // 2 for each in found.values())
