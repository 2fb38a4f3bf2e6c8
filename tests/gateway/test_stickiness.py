"""The story: a conversation stays with the provider and model of its first request."""

from __future__ import annotations

import asyncio
import json
import time
import uuid

import httpx
import pytest
import redis

from tests.gateway.asgi import ask, chat
from tests.gateway.live import LiveGateway
from tests.gateway.upstreams import Held, Upstream
from tests.sessions_sticky.calls import sample


@pytest.fixture
def client(live: LiveGateway) -> httpx.Client:
    with httpx.Client(base_url=f"{live.url}/v1", headers={"Authorization": f"Bearer {live.key}"}) as client:
        yield client


@pytest.fixture
def store(live: LiveGateway) -> redis.Redis:
    with redis.Redis.from_url(live.env["REDIS_URL"]) as store:
        yield store


def new_id() -> str:
    return f"conv-{uuid.uuid4()}"


@pytest.mark.slow
def test_chat_keeps_provider_and_model_when_another_model_is_asked_for(client, north: Upstream, south: Upstream):
    conversation_id = new_id()
    first = client.post("/chat/completions", json=chat("model-a", conversation_id=conversation_id))
    others = [
        client.post("/chat/completions", json=chat(model, conversation_id=conversation_id))
        for model in ("model-b", "only-north", "only-south", "model-a")
    ]
    said = first.json()["choices"][0]["message"]["content"]
    assert said in ("north as model-a", "south as model-a")
    assert [other.json()["choices"][0]["message"]["content"] for other in others] == 4 * [said]
    assert [first.headers["x-session-outcome"], *(other.headers["x-session-outcome"] for other in others)] == [
        "created",
        *4 * ["hit"],
    ]
    assert {len(north.exchanges), len(south.exchanges)} == {0, 5}


@pytest.mark.slow
def test_chat_spreads_over_providers_when_conversations_differ(client, north: Upstream, south: Upstream):
    for _ in range(40):
        client.post("/chat/completions", json=chat(conversation_id=new_id())).raise_for_status()
    assert len(north.exchanges) + len(south.exchanges) == 40
    assert min(len(north.exchanges), len(south.exchanges)) >= 5  # by chance once in 100,000 runs


def test_chat_stores_the_session_byte_for_byte_when_it_is_new(client, store: redis.Redis):
    conversation_id = f"Gespräch/{uuid.uuid4()}"
    before = int(time.time())
    answer = client.post("/chat/completions", json=chat("model-b", conversation_id=conversation_id))
    raw = store.get(f"sentinel:session:{conversation_id}")
    created_at = json.loads(raw)["created_at"]
    assert before <= created_at <= time.time()
    assert (
        raw
        == (
            f'{{"id":"{conversation_id}","provider":"{answer.headers["x-session-provider"]}","model":"model-b",'
            f'"external_id":"ann","created_at":{created_at}}}'
        ).encode()
    )
    assert 86_390_000 < store.pttl(f"sentinel:session:{conversation_id}") <= 86_400_000


def test_chat_follows_the_session_when_another_program_wrote_it(client, store: redis.Redis, south: Upstream):
    conversation_id = new_id()
    theirs = sample(conversation_id, provider="south", model="model-b", owner="ann")
    store.set(f"sentinel:session:{conversation_id}", json.dumps({"by": "hand", **json.loads(theirs.to_json())}), ex=60)
    answer = client.post("/chat/completions", json=chat("model-a", conversation_id=conversation_id))
    assert answer.json()["choices"][0]["message"]["content"] == "south as model-b"
    assert store.pttl(f"sentinel:session:{conversation_id}") > 86_000_000


@pytest.mark.slow
async def test_chat_starts_again_when_the_session_has_expired(gateway, session_cache):
    gateway.SESSION_TTL_SECONDS = 1
    await ask(chat("model-a", conversation_id="conv-1"))
    while session_cache.exists("sentinel:session:conv-1"):  # noqa: ASYNC110 - made so by the store
        await asyncio.sleep(0.01)
    answer = await ask(chat("model-b", conversation_id="conv-1"))
    assert answer.status == 200
    assert answer.headers["x-session-outcome"] == "created"
    assert answer.headers["x-session-model"] == "model-b"


def test_chat_has_session_headers_when_there_is_a_session(client):
    conversation_id = new_id()
    for outcome in ("created", "hit"):
        answer = client.post("/chat/completions", json=chat("model-a", conversation_id=conversation_id))
        assert answer.headers["x-session-outcome"] == outcome
        assert answer.headers["x-session-provider"] in ("north", "south")
        assert answer.headers["x-session-model"] == "model-a"
        assert answer.headers["x-session-expires-in"] == "86400"


def test_stream_keeps_provider_and_model_when_the_first_request_was_plain(client, north: Upstream, south: Upstream):
    conversation_id = new_id()
    first = client.post("/chat/completions", json=chat("model-a", conversation_id=conversation_id))
    second = client.post("/chat/completions", json=chat("model-b", conversation_id=conversation_id, stream=True))
    provider = first.headers["x-session-provider"]
    assert second.headers["content-type"] == "text/event-stream"
    assert second.headers["x-accel-buffering"] == "no"
    assert second.headers["x-session-outcome"] == "hit"
    assert second.headers["x-session-provider"] == provider
    events = [line.removeprefix("data: ") for line in second.text.split("\n\n") if line]
    deltas = [json.loads(event)["choices"][0]["delta"].get("content", "") for event in events[:-1]]
    assert "".join(deltas).strip() == f"{provider} as model-a"
    assert events[-1] == "[DONE]"


def test_stream_passes_chunks_on_when_the_upstream_has_not_finished(client, north: Upstream):
    held = Held()
    north.then(held)
    with client.stream("POST", "/chat/completions", json=chat("only-north", stream=True)) as answer:
        parts = answer.iter_raw()
        first = next(parts)
        assert b'"first"' in first
        assert b'"second"' not in first
        held.release.set()
        assert b'"second"' in b"".join(parts)


@pytest.mark.slow
def test_chats_bind_once_when_many_begin_one_conversation_at_once(client, live, north: Upstream, south: Upstream):
    async def race() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=client.base_url, headers=client.headers) as racer:
            body = [chat(model, conversation_id=conversation_id) for model in ("model-a", "model-b") for _ in range(10)]
            return await asyncio.gather(*(racer.post("/chat/completions", json=each) for each in body))

    conversation_id = new_id()
    answers = asyncio.run(race())
    assert len({answer.json()["choices"][0]["message"]["content"] for answer in answers}) == 1
    assert sorted(answer.headers["x-session-outcome"] for answer in answers) == ["created", *19 * ["hit"]]
