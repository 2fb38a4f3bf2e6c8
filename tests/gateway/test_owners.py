"""Conversations of different owners."""

from __future__ import annotations

import json

import pytest

from tests.gateway.asgi import OTHER_KEY, ask, chat


@pytest.mark.usefixtures("gateway")
@pytest.mark.parametrize("stream", [True, False])
async def test_chat_is_refused_when_the_conversation_is_another_owners(session_cache, north, south, stream):
    await ask(chat(conversation_id="conv-1"))
    before = session_cache.get("sentinel:session:conv-1")
    answer = await ask(chat(conversation_id="conv-1", stream=stream), key=OTHER_KEY)
    assert answer.status == 403
    assert answer.headers["x-should-retry"] == "false"
    assert answer.error["type"] == "permission_error"
    assert answer.error["code"] == "conversation_owner_mismatch"
    assert len(north.exchanges) + len(south.exchanges) == 1
    assert session_cache.get("sentinel:session:conv-1") == before


@pytest.mark.usefixtures("gateway")
async def test_refusal_does_not_reveal_the_owner_of_the_conversation():
    await ask(chat(conversation_id="conv-1"))
    answer = await ask(chat(conversation_id="conv-1"), key=OTHER_KEY)
    assert "ann" not in f"{answer.body!r}{answer.headers}"
    assert not [name for name in answer.headers if name.startswith("x-session-")]


@pytest.mark.parametrize("conversation_id", ["conv-1", 256 * "x", 256 * "é"])
async def test_chats_have_a_session_for_each_owner_when_the_scope_is_owner(gateway, session_cache, conversation_id):
    gateway.SENTINEL_CONVERSATION_SCOPE = "owner"
    for outcome in ("created", "hit"):
        for key in (None, OTHER_KEY):
            how = {} if key is None else {"key": key}
            answer = await ask(chat(conversation_id=conversation_id), **how)
            assert (answer.status, answer.headers["x-session-outcome"]) == (200, outcome)
    found = session_cache.keys("sentinel:session:*")
    stored = [json.loads(session_cache.get(key)) for key in found]
    assert sorted(session["external_id"] for session in stored) == ["ann", "ben"]
    assert {f"sentinel:session:{session['id']}".encode() for session in stored} == set(found)


async def test_chats_cannot_meet_when_an_owner_imitates_anothers_id(gateway, session_cache):
    gateway.SENTINEL_CONVERSATION_SCOPE = "owner"
    await ask(chat(conversation_id="conv-1"))
    (key,) = session_cache.keys("sentinel:session:*")
    imitated = key.decode().removeprefix("sentinel:session:")
    answer = await ask(chat(conversation_id=imitated), key=OTHER_KEY)
    assert (answer.status, answer.headers["x-session-outcome"]) == (200, "created")
