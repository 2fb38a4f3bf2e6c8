"""Providers that come, go and are drained."""

from __future__ import annotations

import json

import pytest

from sessions_sticky import sessions
from tests.gateway.asgi import ask, chat
from tests.gateway.conftest import provider
from tests.gateway.upstreams import Upstream
from tests.sessions_sticky.calls import sample


def bind(session_cache, conversation_id: str, **fields: str) -> None:
    session = sample(conversation_id, **{"provider": "north", "model": "model-a", "owner": "ann", **fields})
    session_cache.set(f"sentinel:session:{conversation_id}", session.to_json(), ex=60)


def stored(session_cache, conversation_id: str) -> dict:
    return json.loads(session_cache.get(f"sentinel:session:{conversation_id}"))


async def test_chat_is_rebound_when_its_provider_is_gone_from_the_configuration(gateway, session_cache, south):
    bind(session_cache, "conv-1")
    gateway.SENTINEL_PROVIDERS = (provider(south),)
    answer = await ask(chat("model-b", conversation_id="conv-1"))
    assert answer.said == "south as model-a"  # the model stays
    assert answer.headers["x-session-outcome"] == "rebound"
    assert answer.headers["x-session-provider"] == "south"
    before = json.loads(sample("conv-1", provider="south", model="model-a", owner="ann").to_json())
    assert stored(session_cache, "conv-1") == before
    assert 0 < session_cache.pttl("sentinel:session:conv-1") <= 86_400_000
    again = await ask(chat("model-b", conversation_id="conv-1"))
    assert (again.said, again.headers["x-session-outcome"]) == ("south as model-a", "hit")


async def test_chat_is_rebound_when_its_provider_no_longer_serves_the_model(gateway, session_cache, north, south):
    bind(session_cache, "conv-1")
    gateway.SENTINEL_PROVIDERS = (provider(north, models=("model-b",)), provider(south))
    answer = await ask(chat("model-b", conversation_id="conv-1"))
    assert (answer.said, answer.headers["x-session-outcome"]) == ("south as model-a", "rebound")
    created, event = await sessions.ahistory("conv-1")
    assert created.kind == "created"
    assert (event.kind, event.from_provider, event.provider) == ("rebound", "north", "south")
    assert event.reason == answer.headers["x-session-reason"]


@pytest.mark.slow
async def test_chat_is_rebound_to_the_model_asked_for_when_its_own_is_not_configured(gateway, session_cache, north):
    bind(session_cache, "conv-1", provider="old", model="model-a")
    gateway.SENTINEL_PROVIDERS = (provider(north, models=("model-b",)),)
    assert (await ask(chat("model-a", conversation_id="conv-1"))).status == 404
    answer = await ask(chat("model-b", conversation_id="conv-1"))
    assert (answer.said, answer.headers["x-session-outcome"]) == ("north as model-b", "rebound")
    assert answer.headers["x-session-reason"] == "model not configured"
    assert stored(session_cache, "conv-1")["model"] == "model-b"
    assert (await ask(chat("model-b", conversation_id="conv-1"))).headers["x-session-outcome"] == "hit"


async def test_chat_keeps_another_owners_conversation_when_its_provider_is_gone(gateway, session_cache, south):
    bind(session_cache, "conv-1", owner="ben")
    gateway.SENTINEL_PROVIDERS = (provider(south),)
    assert (await ask(chat(conversation_id="conv-1"))).status == 403
    assert stored(session_cache, "conv-1")["provider"] == "north"


async def test_new_conversations_pass_by_when_the_weight_is_0(gateway, north: Upstream, south: Upstream):
    gateway.SENTINEL_PROVIDERS = (provider(north, weight=0), provider(south))
    for number in range(20):
        await ask(chat(conversation_id=f"conv-{number}"))
        await ask(chat())
    assert not north.exchanges
    assert len(south.exchanges) == 40


async def test_old_conversation_stays_when_the_weight_becomes_0(gateway, session_cache, north, south):
    bind(session_cache, "conv-1")
    gateway.SENTINEL_PROVIDERS = (provider(north, weight=0), provider(south))
    answer = await ask(chat(conversation_id="conv-1"))
    assert (answer.said, answer.headers["x-session-outcome"]) == ("north as model-a", "hit")


async def test_old_conversation_stays_when_the_weight_of_the_only_provider_becomes_0(gateway, session_cache, north):
    bind(session_cache, "conv-1")
    gateway.SENTINEL_PROVIDERS = (provider(north, weight=0),)
    answer = await ask(chat(conversation_id="conv-1"))
    assert answer.status == 200, answer.body
    assert answer.headers["x-session-outcome"] == "hit"


@pytest.mark.parametrize("body", [{}, {"conversation_id": "conv-1"}])
async def test_chat_answers_503_when_all_weights_are_0(gateway, session_cache, north, south, body):
    gateway.SENTINEL_PROVIDERS = (provider(north, weight=0), provider(south, weight=0))
    answer = await ask(chat(**body))
    assert answer.status == 503
    assert int(answer.headers["retry-after"]) > 0
    assert session_cache.dbsize() == 0


@pytest.mark.slow
async def test_new_conversations_follow_the_weights_when_they_differ(gateway, north: Upstream, south: Upstream):
    gateway.SENTINEL_PROVIDERS = (provider(north, weight=9), provider(south, weight=1))
    for number in range(100):
        await ask(chat(conversation_id=f"conv-{number}"))
    assert 80 <= len(north.exchanges) <= 98  # the ranking is fixed: no chance in it


async def test_chat_goes_to_those_who_serve_the_model_when_others_do_not(gateway, north: Upstream, south: Upstream):
    gateway.SENTINEL_PROVIDERS = (provider(north, models=("model-a",)), provider(south, models=("model-b",)))
    for number in range(6):
        assert (await ask(chat("model-b", conversation_id=f"conv-{number}"))).said == "south as model-b"
        assert (await ask(chat("model-a"))).said == "north as model-a"


async def test_session_of_another_program_is_replaced_when_it_cannot_be_read(gateway, session_cache, caplog):
    session_cache.set("sentinel:session:conv-1", b"{broken", ex=60)
    answer = await ask(chat(conversation_id="conv-1"))
    assert (answer.status, answer.headers["x-session-outcome"]) == (200, "created")
    assert stored(session_cache, "conv-1")["external_id"] == "ann"
