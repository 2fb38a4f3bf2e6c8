"""Chats continue when the session store fails."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from sentinel_project.gateway.providers.failures import Cools
from sentinel_project.gateway.providers.slots import Failure
from sentinel_project.gateway.routing import process
from sessions_sticky import cache_config
from tests.gateway.asgi import ask, chat
from tests.gateway.conftest import provider
from tests.gateway.upstreams import Upstream
from tests.servers import Server, start_server
from tests.waiting import stopwatch


@pytest.fixture
def store() -> Iterator[Server]:
    """A Valkey of this test's own, to be stopped and killed."""
    with start_server() as server:
        yield server


@pytest.fixture
def down(gateway, store: Server) -> Server:
    """The gateway over a store that a test may kill."""
    gateway.CACHES = {"default": cache_config(store.url)}  # with the timeouts of production
    return store


@pytest.mark.parametrize("stream", [False, True])
async def test_chat_is_served_as_degraded_when_the_store_is_down(down: Server, stream):
    first = await ask(chat("model-a", conversation_id="conv-1"))
    down.kill()
    second = await ask(chat("model-b", conversation_id="conv-1", stream=stream))
    assert second.status == 200
    assert second.headers["x-session-outcome"] == "degraded"
    assert second.headers["x-session-provider"] == first.headers["x-session-provider"]
    new = await ask(chat("model-b", conversation_id="conv-2"))
    assert (new.status, new.headers["x-session-outcome"]) == (200, "degraded")
    assert (await ask(chat())).headers["x-session-outcome"] == "ranked"


async def test_chat_is_served_when_the_store_is_down_and_the_only_provider_is_drained(
    gateway, down: Server, north: Upstream
):
    for weight in (1, 0):
        gateway.SENTINEL_PROVIDERS = (provider(north, models=("model-a",), weight=weight),)
        assert (await ask(chat("model-a", conversation_id="conv-1"))).status == 200
    down.kill()
    for conversation_id in ("conv-1", "of another worker"):
        answer = await ask(chat("model-a", conversation_id=conversation_id))
        assert (answer.status, answer.headers.get("x-session-outcome")) == (200, "degraded")


async def test_chat_keeps_its_provider_when_the_store_is_down_and_the_model_is_unknown(
    gateway, down: Server, north: Upstream, south: Upstream
):
    gateway.SENTINEL_PROVIDERS = (provider(north, models=("model-a",)), provider(south, models=("model-b",)))
    await ask(chat("model-a", conversation_id="conv-1"))
    down.kill()
    process.health.failed("south", "model-b", Failure(Cools.MODEL, retry_after=30))
    assert (await ask(chat("model-b", conversation_id="conv-1"))).said == "north as model-a"
    new = await ask(chat("model-b", conversation_id="conv-2"))
    assert (new.status, new.error["code"]) == (429, "rate_limit_exceeded")


@pytest.mark.slow
async def test_chat_is_served_within_its_bound_when_the_store_stalls(down: Server):
    await ask(chat("model-a", conversation_id="conv-1"))
    down.stop()
    try:
        took = stopwatch()
        answer = await ask(chat("model-a", conversation_id="conv-1"))
        assert took() < 1.5
        assert answer.headers["x-session-outcome"] == "degraded"
    finally:
        down.cont()


async def test_chat_answers_503_when_the_store_is_down_and_the_setting_is_raise(gateway, down: Server):
    gateway.SESSIONS_STICKY = {"ON_STORE_ERROR": "raise"}
    down.kill()
    answer = await ask(chat(conversation_id="conv-1"))
    assert answer.status == 503
    assert int(answer.headers["retry-after"]) > 0
    assert answer.error["type"] == "service_unavailable"
    assert (await ask(chat())).status == 200  # without a conversation no store is needed


@pytest.mark.django_db(transaction=True)
async def test_readyz_fails_but_healthz_succeeds_when_the_store_is_down(down: Server, async_client):
    down.kill()
    ready = await async_client.get("/readyz")
    assert ready.status_code == 503
    assert ready.json() == {"status": "unavailable", "store": "unavailable", "database": "ok"}
    assert (await async_client.get("/healthz")).status_code == 200


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
async def test_chat_binds_again_when_the_store_comes_back(down: Server, async_client):
    await ask(chat("model-a", conversation_id="conv-1"))
    down.kill()
    assert (await ask(chat("model-b", conversation_id="conv-1"))).headers["x-session-outcome"] == "degraded"
    down.start()
    async with asyncio.timeout(5):
        answer = await ask(chat(conversation_id="conv-1"))
        while answer.headers["x-session-outcome"] == "degraded":
            await asyncio.sleep(0.02)
            answer = await ask(chat(conversation_id="conv-1"))
    answer = await ask(chat("model-b", conversation_id="conv-1"))
    assert answer.headers["x-session-outcome"] == "hit"
    assert answer.headers["x-session-model"] == "model-a"  # the lost binding was restored
    assert (await async_client.get("/readyz")).status_code == 200
