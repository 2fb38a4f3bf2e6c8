"""Which conversation the gateway recognizes in a request, and what it binds."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.management import call_command

from sessions_sticky import rendezvous, sessions
from sessions_sticky.identity import identify
from tests.gateway.asgi import KEY, MESSAGES, OTHER_KEY, Call, ask, chat
from tests.gateway.conftest import provider
from tests.gateway.upstreams import Upstream, fails

pytestmark = pytest.mark.usefixtures("gateway")

ANSWERED = [*MESSAGES, {"role": "assistant", "content": "hi"}, {"role": "user", "content": "and now?"}]
PREFIX = "sentinel:session:"


def bound(session_cache) -> dict[str, dict[str, Any]]:
    """Return the sessions that are stored, by id."""
    keys = [key.decode() for key in session_cache.keys(f"{PREFIX}*")]
    return {key.removeprefix(PREFIX): json.loads(session_cache.get(key)) for key in keys}


def expected(headers=None, model="model-a", owner="ann", **fields) -> Any:
    """Return the identity that the settings give a request."""
    body = {"messages": MESSAGES, **fields}
    return identify(headers or {}, body, owner=owner, model=model, api="chat", key=django_settings.SENTINEL_ID_KEY)


def answered(model: str = "model-a", **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": ANSWERED, **fields}


def test_identify_command_makes_the_ids_of_the_gateway(tmp_path):
    headers = {"X-Session-Id": "ses_1"}
    file = tmp_path / "request.json"
    file.write_text(json.dumps({"headers": headers, "body": {"model": "model-a"}}))
    out = io.StringIO()
    call_command("sessions", "identify", str(file), owner="ann", json=True, stdout=out)
    assert json.loads(out.getvalue())["session_id"] == expected({"x-session-id": "ses_1"}).session_id


@pytest.mark.parametrize(
    ("headers", "fields"),
    [([("x-litellm-session-id", "ses-1")], {}), ([], {"metadata": {"session_id": "ses-1"}})],
)
async def test_chat_finds_the_session_that_a_pin_of_litellm_became(headers, fields):
    """As docs/how-to/litellm.md moves it: by the model too, for LiteLLM has a pin for each."""
    for model, name in (("model-a", "south"), ("model-b", "north")):
        moved = expected({"x-litellm-session-id": "ses-1"}, model, messages=None)
        sessions.create(moved.session_id, provider=name, model=model, owner="ann")
        answer = await ask(chat(model, **fields), headers=headers)
        found = answer.headers["x-session-outcome"], answer.headers["x-session-provider"]
        assert found == ("hit", name)


async def test_chat_binds_the_id_itself_when_it_is_named(session_cache):
    answer = await ask(chat(conversation_id="conv-1"))
    assert answer.headers["x-session-source"] == "body.conversation_id"
    assert list(bound(session_cache)) == ["conv-1"]


@pytest.mark.parametrize("name", ["x-session-affinity", "X-Claude-Code-Session-Id", "session-id", "x-any-session-id"])
async def test_chat_binds_per_owner_and_model_when_the_id_is_observed(session_cache, name):
    answer = await ask(chat(), headers=[(name, "ses-1")])
    assert answer.headers["x-session-source"] == f"header.{name.lower()}"
    (session_id,) = bound(session_cache)
    assert session_id.endswith(":ses-1@model-a")
    assert session_id == expected({name.lower(): "ses-1"}).session_id


async def test_models_of_one_session_are_served_as_asked_by_one_provider(session_cache):
    calls = [await ask(chat(model), headers=[("x-session-affinity", "ses-1")]) for model in ("model-a", "model-b")]
    assert [call.headers["x-session-model"] for call in calls] == ["model-a", "model-b"]
    assert len({call.headers["x-session-provider"] for call in calls}) == 1
    assert len(bound(session_cache)) == 2


async def test_owners_with_one_id_have_two_sessions(session_cache):
    for key in (KEY, OTHER_KEY):
        answer = await ask(answered(prompt_cache_key="app"), headers=[("x-session-id", "ses-1")], key=key)
        assert answer.status == 200
    assert sorted(session["external_id"] for session in bound(session_cache).values()) == ["ann", "ben"]


async def test_owners_with_one_prompt_cache_key_have_two_sessions(session_cache):
    for key in (KEY, OTHER_KEY):
        answer = await ask(answered(prompt_cache_key="app"), key=key)
        assert (answer.status, answer.headers["x-session-source"]) == (200, "content")
    assert len(bound(session_cache)) == 2


@pytest.mark.parametrize("value", ["", " ", "a\x01b", b"conv-\xe8", 300 * "x", "0123456789ab:c@m"])
async def test_observed_id_is_never_refused(value):
    assert (await ask(chat(), headers=[("X-Session-Id", value)])).status == 200


@pytest.mark.parametrize("value", ["", 257 * "x", "a\nb", 17, ["a"], "0123456789ab:c@model-a"])
async def test_named_id_is_refused_and_named_when_it_is_not_valid(session_cache, value):
    answer = await ask(chat(conversation_id=value))
    assert (answer.status, answer.error["param"]) == (400, "conversation_id")
    assert answer.error["code"] == "invalid_conversation_id"
    assert session_cache.dbsize() == 0


async def test_header_is_named_by_the_setting(session_cache, gateway):
    gateway.SENTINEL_PINNING_SOURCES = ["body.conversation_id", "header.x-session-id"]
    await ask(chat("model-a"), headers=[("X-Session-Id", "conv-1")])
    answer = await ask(chat("model-b"), headers=[("X-Session-Id", "conv-1")])
    assert answer.headers["x-session-model"] == "model-a"
    assert list(bound(session_cache)) == ["conv-1"]


async def test_first_request_without_an_id_stores_nothing_when_its_first_provider_answers(session_cache):
    for number in range(20):
        answer = await ask(chat(messages=[{"role": "user", "content": f"question {number}"}]))
        assert (answer.status, answer.headers["x-session-outcome"]) == (200, "ranked")
        assert "x-session-expires-in" not in answer.headers
    assert session_cache.dbsize() == 0


async def test_first_request_without_an_id_is_held_for_300_s_when_another_provider_answers(session_cache, north, south):
    upstreams = {"north": north, "south": south}
    first, second = rendezvous(expected().ranking_id, {"north": 1, "south": 1})
    upstreams[first].then(fails(500))
    answer = await ask(chat())
    assert answer.headers["x-session-provider"] == second
    ((session_id, session),) = bound(session_cache).items()
    assert session["provider"] == second
    assert 0 < session_cache.ttl(f"{PREFIX}{session_id}") <= 300
    following = await ask(answered())
    assert (following.headers["x-session-provider"], following.headers["x-session-outcome"]) == (second, "hit")


async def test_later_requests_without_an_id_are_bound_where_the_first_was_served(session_cache, gateway):
    gateway.SENTINEL_CONTENT_TTL_SECONDS = 60
    first = await ask(chat())
    second = await ask(answered())
    third = await ask(answered(messages=[*ANSWERED, {"role": "assistant", "content": "x"}, *MESSAGES]))
    assert len({call.headers["x-session-provider"] for call in (first, second, third)}) == 1
    assert [call.headers["x-session-outcome"] for call in (first, second, third)] == ["ranked", "created", "hit"]
    assert third.headers["x-session-expires-in"] == "60"
    (session_id,) = bound(session_cache)
    assert 0 < session_cache.ttl(f"{PREFIX}{session_id}") <= 60


async def test_request_is_of_no_conversation_when_content_is_not_a_source(gateway, session_cache, north, south):
    gateway.SENTINEL_CONVERSATION_ID_SOURCES = ["header.x-session-id"]
    for _ in range(40):
        answer = await ask(answered())
        assert (answer.headers["x-session-outcome"], answer.headers["x-session-source"]) == ("none", "none")
    assert min(len(north.exchanges), len(south.exchanges)) > 0
    assert session_cache.dbsize() == 0


async def test_observed_session_of_another_owner_is_served_unbound(session_cache, caplog):
    session_id = expected({"x-session-id": "ses-1"}).session_id
    written = {"id": session_id, "provider": "north", "model": "model-a", "external_id": "eve", "created_at": 1}
    session_cache.set(f"{PREFIX}{session_id}", json.dumps(written))
    answer = await ask(chat(), headers=[("x-session-id", "ses-1")])
    assert (answer.status, answer.headers["x-session-outcome"]) == (200, "none")
    assert bound(session_cache)[session_id]["external_id"] == "eve"
    assert "belongs to another owner: served unbound" in caplog.text


async def test_session_fields_are_forwarded_only_to_the_provider_that_takes_them(gateway, north: Upstream):
    fields = {"conversation_id": "conv-1", "session_id": "ses-1", "litellm_session_id": "ses-2"}
    for taken, sent in ((None, chat()), ("session_id", chat(session_id="ses-1"))):
        gateway.SENTINEL_PROVIDERS = (provider(north, affinity_field=taken),)
        await ask(chat(**fields))
        assert north.exchanges[-1].json == sent


async def test_provider_gets_a_hint_that_is_one_for_the_conversation_and_not_its_id(gateway, north: Upstream):
    hints = {"affinity_field": "prompt_cache_key", "affinity_header": "x-session-affinity"}
    gateway.SENTINEL_PROVIDERS = (provider(north, **hints),)
    sent = []
    for conversation_id in ("conv-1", "conv-1", "conv-2"):
        await ask(chat(conversation_id=conversation_id))
        sent.append(north.exchanges[-1].json["prompt_cache_key"])
        assert north.exchanges[-1].headers["X-Session-Affinity"] == sent[-1]
    assert sent[0] == sent[1] != sent[2]
    assert "conv-1" not in sent[0]


async def test_provider_gets_the_clients_own_hint_when_there_is_one(gateway, north: Upstream):
    hints = {"affinity_field": "prompt_cache_key", "affinity_header": "x-session-affinity"}
    gateway.SENTINEL_PROVIDERS = (provider(north, **hints),)
    await ask(chat(prompt_cache_key="bucket"), headers=[("X-Session-Affinity", "ses-1")])
    (exchange,) = north.exchanges
    assert (exchange.json["prompt_cache_key"], exchange.headers["X-Session-Affinity"]) == ("bucket", "ses-1")


@pytest.mark.parametrize("is_hashed", [False, True])
async def test_log_line_has_source_route_and_key_hint(gateway, caplog, is_hashed):
    gateway.SENTINEL_LOG_HASHED_IDS = is_hashed
    caplog.set_level("INFO", "sentinel_project.requests")
    await Call(chat(), headers=[("x-session-id", "ses-1")]).answer()
    line = json.loads(caplog.messages[-1])
    assert line["source"] == "header.x-session-id"
    assert (line["conversation_id"] == "ses-1") is not is_hashed
    assert line["bound_provider"] == line["provider"]
    assert line["key"] == f"{KEY[:16]}..."
    assert line["at"].endswith("Z")
    assert len(line["at"]) == len("2026-11-25T10:14:00.123Z")


async def test_log_line_of_a_refused_key_has_its_hint(caplog):
    caplog.set_level("INFO", "sentinel_project.requests")
    answer = await ask(chat(), key="sk-sentinel-revoked-and-secret")
    line = json.loads(caplog.messages[-1])
    assert (answer.status, line["status"], line["key"]) == (401, 401, "sk-sentinel-revo...")
    assert "secret" not in caplog.text
