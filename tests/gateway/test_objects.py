"""Upstream objects: stored responses and compacted histories go to the provider that has them, and to no other."""

from __future__ import annotations

import json
import threading
import time

import pytest
from django.core.cache import cache

from sentinel_project.gateway.apis.body import Body
from sentinel_project.gateway.apis.responses import RESPONSES as API
from sentinel_project.gateway.providers.current import providers
from sentinel_project.gateway.providers.health import Health
from sentinel_project.gateway.routing import objects, process
from sentinel_project.gateway.routing.reasons import Spill
from sessions_sticky import sessions
from tests.gateway.asgi import OTHER_KEY, ask
from tests.gateway.responses import MODEL, RESPONSES, account, events, respond, responses_only, said

SESSION = [("Session-Id", "0199-codex")]
ITEM = {"role": "user", "content": "hello"}
SEALED = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "of an unknown account"}


@pytest.fixture(autouse=True)
def _other_worker():
    """No process remembers anything: each request may be another worker's."""
    objects._remembered.clear()


def only(gateway, *upstreams) -> None:
    gateway.SENTINEL_PROVIDERS = tuple(account(upstream) for upstream in upstreams)


async def test_chain_stays_at_its_provider_when_no_id_is_sent(accounts):
    first = await respond("hello")
    previous, provider = first.json["id"], first.headers["x-session-provider"]
    ids = set()
    for number in range(8):
        answer = await respond(f"turn {number}", previous_response_id=previous)
        assert (answer.status, answer.headers["x-session-provider"]) == (200, provider)
        assert answer.headers["x-session-source"] == "body.previous_response_id"
        ids.add(answer.headers["x-session-outcome"])
        previous = answer.json["id"]
    assert ids == {"created", "hit"}


async def test_stream_is_known_before_its_client_sees_the_id(accounts):
    first = await respond("hello", stream=True)
    response_id = events(first)[0]["response"]["id"]
    stored = cache.get(f"sentinel:object:{response_id}")
    assert stored == {"provider": first.headers["x-session-provider"], "owner": "ann", "conversation": None}
    assert 0 < cache.ttl(f"sentinel:object:{response_id}") <= 30 * 86_400


async def test_response_that_is_not_stored_upstream_is_not_known(accounts):
    for stream in (False, True):
        await respond("hello", store=False, stream=stream)
    assert list(cache.iter_keys("sentinel:object:*")) == []


async def test_conversation_of_the_first_response_continues_in_all_that_follow_it(accounts):
    first = await respond("hello", headers=SESSION)
    second = await respond("and now?", previous_response_id=first.json["id"])
    assert (second.headers["x-session-outcome"], second.headers["x-session-source"]) == (
        "hit",
        "body.previous_response_id",
    )


async def test_conversation_continues_after_its_response_was_read(accounts):
    first = await respond("hello", headers=SESSION)
    assert (await ask(path=f"{RESPONSES}/{first.json['id']}", method="GET")).status == 200
    objects._remembered.clear()
    assert (await respond("and now?", previous_response_id=first.json["id"])).headers["x-session-outcome"] == "hit"


async def test_object_that_is_used_does_not_expire(accounts, gateway):
    first = await respond("hello")
    key = f"sentinel:object:{first.json['id']}"
    cache.touch(key, 5)
    await respond("and now?", previous_response_id=first.json["id"])
    assert cache.ttl(key) > 86_400


async def test_model_that_the_provider_of_the_response_does_not_serve_is_not_found(accounts, gateway):
    only(gateway, accounts[0])
    first = await respond("hello")
    gateway.SENTINEL_PROVIDERS = (account(accounts[0], models=("gpt-5-mini",)), account(accounts[1]))
    answer = await respond("and now?", previous_response_id=first.json["id"])
    assert (answer.status, answer.error["code"]) == (404, "model_not_found")
    assert "stored objects" in answer.error["message"]
    answer = await respond("and now?", previous_response_id=first.json["id"], model="gpt-0")
    assert "No provider serves the model 'gpt-0'" in answer.error["message"]


async def test_named_conversation_continues_with_its_model_when_only_the_response_is_named(accounts):
    first = await respond("hello", conversation_id="conv-1")
    second = await respond("and now?", previous_response_id=first.json["id"], model="gpt-5-mini")
    assert (second.headers["x-session-outcome"], second.headers["x-session-model"]) == ("hit", MODEL)


async def test_named_id_counts_before_the_response_but_not_for_the_provider(accounts):
    first = await respond("hello")
    second = await respond("and now?", previous_response_id=first.json["id"], conversation_id="conv-2")
    assert second.headers["x-session-source"] == "body.conversation_id"
    assert second.headers["x-session-provider"] == first.headers["x-session-provider"]


async def test_spill_has_a_reason_when_another_provider_has_the_response(accounts, gateway):
    gateway.SENTINEL_PROVIDERS = (account(accounts[1]),)
    first = await respond("hello")
    gateway.SENTINEL_PROVIDERS = tuple(account(each) for each in accounts)
    sessions.create("conv-2", "north", MODEL, "ann")
    second = await respond("and now?", previous_response_id=first.json["id"], conversation_id="conv-2")
    assert (second.headers["x-session-outcome"], second.headers["x-session-reason"]) == ("spilled", Spill.PINNED)


async def test_known_response_is_answered_503_until_its_provider_is_back(accounts, gateway, monkeypatch):
    first = await respond("hello")
    bound = first.headers["x-session-provider"]
    upstream = next(each for each in accounts if each.name == bound)
    upstream.kill()
    try:
        for _ in range(3):
            answer = await respond("and now?", previous_response_id=first.json["id"])
            assert (answer.status, answer.error["code"]) == (503, "no_provider")
            assert 1 <= int(answer.headers["retry-after"]) <= gateway.SENTINEL_COOLDOWN_SECONDS
    finally:
        upstream.start()
    monkeypatch.setattr(process, "health", Health(gateway.SENTINEL_COOLDOWN_SECONDS, providers))
    assert (await respond("and now?", previous_response_id=first.json["id"])).status == 200


async def test_response_is_restored_when_the_store_has_lost_it(accounts):
    """After a restart without data, or a failover that lost writes."""
    for number in range(4):
        first = await respond(f"hello {number}", headers=SESSION)
        key = f"sentinel:object:{first.json['id']}"
        stored = cache.get(key)
        cache.clear()
        answer = await respond("and now?", previous_response_id=first.json["id"])
        assert (answer.status, answer.headers["x-session-provider"]) == (200, first.headers["x-session-provider"])
        assert cache.get(key) == stored
        assert 86_400 < cache.ttl(key) <= 30 * 86_400
        answer = await respond("and now?", previous_response_id=first.json["id"], key=OTHER_KEY)
        assert answer.error["code"] == "previous_response_not_found"


async def test_error_of_the_provider_that_has_the_response_is_not_asked_of_another(accounts):
    first = await respond("hello")
    for upstream in accounts:
        upstream.account.responses.clear()
        upstream.requests.clear()
    answer = await respond("and now?", previous_response_id=first.json["id"])
    assert (answer.status, answer.error["code"]) == (400, "previous_response_not_found")
    assert sum(len(upstream.requests) for upstream in accounts) == 1


@pytest.mark.parametrize("field", ["previous_response_id", "conversation"])
async def test_object_of_another_owner_is_answered_as_one_that_does_not_exist(accounts, field):
    made = await respond("hello")
    await objects.write(["conv_of_ann"], objects.StoredObject("north", "ann"))
    theirs = made.json["id"] if field == "previous_response_id" else "conv_of_ann"
    answers = [
        await respond("mine", key=OTHER_KEY, **{field: object_id}) for object_id in (theirs, theirs[:-4] + "ffff")
    ]
    bodies = [answer.body.replace(theirs[-4:].encode(), b"ffff") for answer in answers]
    assert [answer.status for answer in answers] == [400 if field == "previous_response_id" else 404] * 2
    assert json.loads(bodies[0])["error"]["message"] == json.loads(bodies[1])["error"]["message"]


async def test_unknown_response_is_asked_of_one_provider_only(accounts):
    answer = await respond("hello", previous_response_id="resp_unknown")
    assert (answer.status, answer.error["code"]) == (400, "previous_response_not_found")
    assert sum(len(upstream.requests) for upstream in accounts) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"previous_response_id": "resp_unknown"},
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "file-1"}]}]},
        {"input": [{"type": "item_reference", "id": "msg_1"}, {"role": "user", "content": "hello"}]},
        {"input": [{"type": "reasoning", "id": "rs_1", "summary": []}, {"role": "user", "content": "hello"}]},
        {"input": [{"type": "reasoning", "id": "rs_1", "content": [], "encrypted_content": None}, ITEM]},
        {"input": [{"type": "reasoning", "id": "rs_1", "encrypted_content": ""}, ITEM]},
        {"input": [SEALED, {"type": "reasoning", "id": "rs_2", "summary": []}, ITEM]},
        {"tools": [{"type": "file_search", "vector_store_ids": ["vs_1", "vs_2"]}]},
        {"tools": [{"type": "code_interpreter", "container": "cntr_1"}]},
        {"tools": [{"type": "code_interpreter", "container": {"type": "auto", "file_ids": ["file-1"]}}]},
        {"input": [{"type": "compaction", "encrypted_content": "of an unknown account"}]},
    ],
)
async def test_unknown_object_is_asked_of_the_bound_provider_only(accounts, gateway, fields):
    bound = (await respond("hello", headers=SESSION)).headers["x-session-provider"]
    upstream = next(each for each in accounts if each.name == bound)
    other = next(each for each in accounts if each.name != bound)
    other.requests.clear()
    assert (await respond("x", headers=SESSION)).headers["x-session-provider"] == bound
    upstream.kill()
    try:
        answers = [await respond(**{"given": "hello", **_given(fields)}, headers=SESSION) for _ in range(2)]
    finally:
        upstream.start()
    assert [answer.status for answer in answers] == [503, 503]
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers)
    assert other.requests == []


def _given(fields: dict) -> dict:
    return {"given" if name == "input" else name: value for name, value in fields.items()}


@pytest.mark.parametrize(
    "fields",
    [
        {"input": [{"role": "user", "content": 'a text with "file_id": "file-1"'}]},
        {"tools": [{"type": "function", "name": "f", "parameters": {"properties": {"file_id": {"type": "string"}}}}]},
        {"input": [SEALED, ITEM]},
    ],
)
async def test_request_without_objects_is_answered_by_another_provider(accounts, fields):
    bound = (await respond("hello", headers=SESSION)).headers["x-session-provider"]
    upstream = next(each for each in accounts if each.name == bound)
    upstream.kill()
    try:
        answer = await respond(**{"given": "hello", **_given(fields)}, headers=SESSION)
    finally:
        upstream.start()
    assert answer.status == 200
    assert answer.headers["x-session-provider"] != bound


@pytest.mark.parametrize(
    "item",
    [
        {"type": "reasoning", "id": "rs_1", "content": [{"type": "reasoning_text", "text": "of an open model"}]},
        {"type": "reasoning", "summary": []},
        {"type": "message", "id": "msg_1", "role": "assistant", "content": [], "phase": "reasoning"},
    ],
)
def test_item_with_its_own_content_refers_to_nothing(item):
    assert API.references(Body.parse(json.dumps({"input": [item, ITEM]}).encode())) == []


def test_reasoning_refers_to_nothing_when_no_provider_stores_it():
    item = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "thought"}]}
    body = {"input": [item, ITEM], "store": False}
    assert API.references(Body.parse(json.dumps(body).encode())) == []
    (reference,) = API.references(Body.parse(json.dumps({**body, "store": True}).encode()))
    assert reference.id == "rs_1"


async def test_unavailable_store_is_not_reported_as_a_missing_response(accounts, monkeypatch):
    first = await respond("hello")

    def fail(*arguments):
        raise ConnectionError

    monkeypatch.setattr(objects, "_read", fail)
    assert (await respond("and now?", previous_response_id=first.json["id"])).status == 200  # this process made it
    objects._remembered.clear()
    answer = await respond("and now?", previous_response_id=first.json["id"])
    assert (answer.status, answer.error["code"]) == (503, "store_unavailable")
    assert answer.headers["retry-after"] == "1"


@pytest.mark.parametrize(
    "item",
    [
        {"type": "compaction", "encrypted_content": "of an unknown account"},
        {"role": "user", "content": [{"type": "input_file", "file_id": "file-1"}]},
    ],
)
async def test_store_that_is_down_keeps_no_history_from_its_bound_provider(accounts, monkeypatch, item):
    bound = (await respond("hello", headers=SESSION)).headers["x-session-provider"]

    def fail(*arguments):
        raise ConnectionError

    monkeypatch.setattr(objects, "_read", fail)
    for upstream in accounts:
        upstream.requests.clear()
    await respond([item, {"role": "user", "content": "continue"}], headers=SESSION)
    assert [upstream.name for upstream in accounts if upstream.requests] == [bound]


async def test_answer_does_not_wait_for_a_store_that_does_not_answer(accounts, monkeypatch):
    monkeypatch.setattr(objects, "STORE_SECONDS", 0.05)
    monkeypatch.setattr(objects, "_write", lambda *_: time.sleep(0.5))
    assert (await respond("hello")).status == 200


@pytest.fixture
def together(accounts, monkeypatch) -> threading.Barrier:
    """The store answers only when it is asked for six objects at the same time; otherwise the barrier breaks."""
    barrier = threading.Barrier(6, timeout=3)

    def answer(*_: object) -> None:
        barrier.wait()

    monkeypatch.setattr(objects, "STORE_SECONDS", 10)
    monkeypatch.setattr(objects, "_write", answer)
    monkeypatch.setattr(objects, "_read", answer)
    return barrier


async def test_write_waits_for_all_objects_at_once(together):
    await objects.write([f"resp_{number}" for number in range(6)], objects.StoredObject("north", "ann"))
    assert not together.broken


async def test_locate_waits_for_all_objects_at_once(together):
    histories = [{"type": "compaction", "encrypted_content": str(number)} for number in range(6)]
    references = API.references(Body.parse(json.dumps({"input": histories}).encode()))
    assert await objects.locate(references, "ann") == objects.Placement(None, None)
    assert not together.broken


@pytest.mark.parametrize("value", ["text", 7, ["north"], {"provider": "north"}, {"provider": 3, "owner": "ann"}])
async def test_value_of_another_program_counts_as_unknown(accounts, value):
    cache.set("sentinel:object:resp_x", value)
    assert await objects.read("resp_x") is None


@pytest.mark.parametrize("value", [b"{", b"\xff", b"[" * 100_000, b"", {"a": "list"}])
async def test_value_that_is_not_json_counts_as_unknown(accounts, value):
    raw = cache.client.get_client()
    raw.rpush("sentinel:object:resp_x", *value) if isinstance(value, dict) else raw.set("sentinel:object:resp_x", value)
    assert await objects.read("resp_x") is None


async def test_response_of_a_provider_that_is_no_longer_configured_counts_as_unknown(accounts, gateway):
    only(gateway, accounts[0])
    first = await respond("hello")
    only(gateway, accounts[1])
    answer = await respond("and now?", previous_response_id=first.json["id"])
    assert (answer.status, answer.error["code"]) == (400, "previous_response_not_found")


async def compacted(upstream, gateway, **fields) -> list:
    """Return the history that an account has compacted."""
    only(gateway, upstream)
    answer = await ask({"model": MODEL, "input": "hello", **fields}, path=f"{RESPONSES}/compact", headers=SESSION)
    assert (answer.status, answer.json["object"]) == (200, "response.compaction")
    return answer.json["output"]


async def test_compacted_history_goes_to_its_account_only(accounts, gateway):
    north, south = accounts
    history = await compacted(south, gateway)
    only(gateway, north, south)
    for _ in range(6):
        answer = await respond([*history, {"role": "user", "content": "continue"}], store=False)
        assert (answer.status, said(answer)) == (200, f"south as {MODEL}")
    assert north.requests == []
    south.kill()
    try:
        answer = await respond([*history, {"role": "user", "content": "continue"}], store=False)
        assert (answer.status, answer.headers["retry-after"].isdigit()) == (503, True)
    finally:
        south.start()


async def test_history_that_is_compacted_within_a_stream_goes_to_its_account_only(only_north, gateway):
    item = {"type": "compaction", "id": "cmp_1", "encrypted_content": "sealed"}
    parts = [{"type": "response.output_item.done", "item": item}, {"type": "response.completed", "response": {}}]

    def behave(exchange):
        exchange.begin()
        for part in parts:
            exchange.chunk(f"event: {part['type']}\ndata: {json.dumps(part)}\n\n".encode())
        exchange.chunk(b"")

    responses_only(gateway)
    only_north.then(behave)
    body = {"model": "model-a", "input": "hello", "store": False, "stream": True}
    assert events(await ask(body, path=RESPONSES)) == parts
    (reference,) = API.references(Body.parse(json.dumps({"input": [item]}).encode()))
    stored = await objects.read(reference.id)
    assert stored is not None
    assert (stored.provider, stored.owner, reference.is_account_wide) == ("north", "ann", True)


async def test_compacted_history_is_served_by_another_provider_of_the_account(accounts, gateway):
    north, south = accounts
    history = await compacted(north, gateway)
    for item in history:
        item.pop("id", None)
    gateway.SENTINEL_PROVIDERS = (account(north, account="one"), account(south, account="one"))
    north.kill()
    try:
        answer = await respond([*history, {"role": "user", "content": "continue"}], headers=SESSION, store=False)
    finally:
        north.start()
    assert answer.error["code"] == "invalid_encrypted_content"  # two accounts, declared as one
    assert len(south.requests) == 1


async def test_response_in_the_background_is_sent_once(accounts, gateway):
    bound = (await respond("hello", headers=SESSION)).headers["x-session-provider"]
    upstream = next(each for each in accounts if each.name == bound)
    other = next(each for each in accounts if each.name != bound)
    upstream.script.append(0)  # the stream of its answer breaks off at once
    other.requests.clear()
    answer = await respond("x", headers=SESSION, background=True, stream=True)
    assert (answer.status, answer.error["code"]) == (502, "upstream_unreachable")
    assert other.requests == []
    upstream.kill()
    try:
        answer = await respond("x", headers=SESSION, background=True)
    finally:
        upstream.start()
    assert (answer.status, answer.json["status"]) == (200, "queued")  # it never reached the first


@pytest.mark.parametrize("is_repeatable", [True, False])
async def test_request_closes_its_connection_when_it_may_not_repeat(accounts, is_repeatable):
    assert (await respond("x", headers=SESSION, background=not is_repeatable)).status == 200
    (request,) = [request for upstream in accounts for request in upstream.requests]
    assert dict(request.headers).get("Connection") == (None if is_repeatable else "close")
