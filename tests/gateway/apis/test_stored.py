"""Stored responses and conversations: which provider is asked, and what another owner sees."""

from __future__ import annotations

import asyncio

import pytest
from django.core.cache import cache

from sentinel_project.gateway.providers.config import ECHO
from sentinel_project.gateway.routing import objects
from tests.clients.account import new_id
from tests.clients.responses_api import BACKGROUND_SECONDS
from tests.gateway.asgi import OTHER_KEY, Call, ask
from tests.gateway.responses import RESPONSES, account, events, respond, responses_only, said

CONVERSATIONS = "/v1/conversations"


@pytest.fixture(autouse=True)
def _other_worker():
    """No process remembers anything: each request may be another worker's."""
    objects._remembered.clear()


async def get(path: str, method: str = "GET", **how) -> Call:
    return await ask(path=path, method=method, **how)


def asked(accounts) -> list[str]:
    return [upstream.name for upstream in accounts for _ in upstream.requests]


def forget(accounts) -> None:
    for upstream in accounts:
        upstream.requests.clear()


@pytest.fixture
async def made(accounts) -> Call:
    """A stored response, that no provider has been asked for yet."""
    answer = await respond("hello")
    forget(accounts)
    return answer


async def test_response_is_read_from_the_provider_that_has_it(accounts, made):
    for _ in range(4):
        answer = await get(f"{RESPONSES}/{made.json['id']}")
        assert (answer.status, answer.json) == (200, made.json)
        assert answer.headers["x-session-provider"] == made.headers["x-session-provider"]
    assert asked(accounts) == [made.headers["x-session-provider"]] * 4


async def test_response_is_read_as_a_stream_from_the_event_asked_for(accounts, made):
    path, query = f"{RESPONSES}/{made.json['id']}", "stream=true&starting_after=3&secret=1"
    found = events(await get(path, query=query))
    assert [event["sequence_number"] for event in found] == list(range(4, 4 + len(found)))
    assert found[-1]["type"] == "response.completed"
    (request,) = [request for upstream in accounts for request in upstream.requests]
    assert request.query == "stream=true&starting_after=3"


async def test_input_items_are_listed(accounts, made):
    answer = await get(f"{RESPONSES}/{made.json['id']}/input_items", query="order=asc")
    assert answer.json["data"][0]["content"][0]["text"] == "hello"


@pytest.mark.parametrize(
    "path", ["/{id}", "/{id}/input_items", f"/{new_id('resp')}"], ids=["response", "items", "unknown response"]
)
async def test_head_is_answered_like_get(accounts, made, path):
    path = RESPONSES + path.format(id=made.json["id"])
    wanted = await get(path)
    async with asyncio.timeout(5):
        answer = await get(path, "HEAD")
    assert (answer.status, answer.headers["content-length"]) == (wanted.status, wanted.headers["content-length"])


async def test_response_is_deleted_where_it_is(accounts, made):
    path = f"{RESPONSES}/{made.json['id']}"
    answer = await get(path, "DELETE")
    assert (answer.status, answer.json["deleted"]) == (200, True)
    assert (await get(path)).status == 404
    assert len(set(asked(accounts))) == 1


@pytest.mark.slow
async def test_response_in_the_background_is_polled_and_cancelled(accounts):
    first, second = await respond("a", background=True), await respond("b", background=True)
    assert (first.json["status"], second.json["status"]) == ("queued", "queued")
    answer = await get(f"{RESPONSES}/{second.json['id']}/cancel", "POST")
    assert (answer.status, answer.json["status"]) == (200, "cancelled")
    await asyncio.sleep(BACKGROUND_SECONDS)
    assert said(await get(f"{RESPONSES}/{first.json['id']}"))


@pytest.mark.parametrize(
    ("method", "suffix"), [("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/input_items")]
)
async def test_response_of_another_owner_is_not_found(accounts, made, method, suffix):
    answers = [
        await get(f"{RESPONSES}/{response_id}{suffix}", method, key=OTHER_KEY)
        for response_id in (made.json["id"], "resp_0")
    ]
    messages = [answer.error["message"].replace(made.json["id"], "resp_0") for answer in answers]
    assert [answer.status for answer in answers] == [404, 404]
    assert messages == ["Response with id 'resp_0' not found."] * 2 or suffix
    assert (await get(f"{RESPONSES}/{made.json['id']}")).status == 200


async def test_unknown_response_is_looked_for_at_each_provider_in_turn(accounts, made):
    cache.delete(f"sentinel:object:{made.json['id']}")
    objects._remembered.clear()
    assert (await get(f"{RESPONSES}/{made.json['id']}")).json == made.json
    forget(accounts)
    answer = await get(f"{RESPONSES}/resp_nowhere")
    assert (answer.status, answer.error["message"]) == (404, "Response with id 'resp_nowhere' not found.")
    assert sorted(asked(accounts)) == ["north", "south"]


async def test_unknown_response_is_not_missing_while_a_provider_cannot_be_asked(accounts):
    south = accounts[1]
    south.kill()
    try:
        answer = await get(f"{RESPONSES}/resp_somewhere")
    finally:
        south.start()
    assert (answer.status, answer.error["code"]) == (502, "upstream_unreachable")


@pytest.mark.parametrize(("method", "suffix"), [("DELETE", ""), ("POST", "/cancel")])
async def test_unknown_response_is_changed_at_one_provider_only(accounts, method, suffix):
    assert (await get(f"{RESPONSES}/resp_nowhere{suffix}", method)).status == 404
    assert len(asked(accounts)) == 1


async def test_known_response_is_answered_503_until_its_provider_is_back(accounts, made):
    upstream = next(each for each in accounts if each.name == made.headers["x-session-provider"])
    path = f"{RESPONSES}/{made.json['id']}"
    upstream.kill()
    try:
        answer = await get(path)
    finally:
        upstream.start()
    assert (answer.status, answer.error["code"]) == (503, "no_provider")
    assert int(answer.headers["retry-after"]) >= 1
    assert (await get(path)).status == 200


async def test_failed_response_is_read_as_it_is(only_north, gateway):
    responses_only(gateway)
    failed = b'{"id":"resp_1","object":"response","status":"failed","error":{"code":"server_error","message":"no"}}'
    only_north.then(lambda exchange: exchange.send(200, failed))
    answer = await get(f"{RESPONSES}/resp_1")
    assert (answer.status, answer.body) == (200, failed)


@pytest.mark.parametrize("last", ["response.failed", "error"])
async def test_stream_of_a_failed_response_is_read_as_it_is(only_north, gateway, last):
    responses_only(gateway)
    parts = [b'event: response.created\ndata: {"type":"response.created","response":{}}\n\n']
    parts.append(b'event: %b\ndata: {"type":"%b","response":{"error":{"message":"no"}}}\n\n' % (2 * (last.encode(),)))

    def behave(exchange):
        exchange.begin()
        for part in parts:
            exchange.chunk(part)
        exchange.chunk(b"")

    only_north.then(behave)
    answer = await get(f"{RESPONSES}/resp_1", query="stream=true")
    assert (answer.status, answer.body) == (200, b"".join(parts))


async def test_conversation_stays_at_the_provider_that_made_it(accounts):
    made = await ask({"metadata": {"topic": "test"}}, path=CONVERSATIONS)
    assert (made.status, made.json["object"]) == (200, "conversation")
    provider, path = made.headers["x-session-provider"], f"{CONVERSATIONS}/{made.json['id']}"
    outcomes = []
    for number in range(6):
        conversation = made.json["id"] if number % 2 else {"id": made.json["id"]}
        answer = await respond(f"turn {number}", conversation=conversation)
        assert (answer.status, answer.headers["x-session-provider"]) == (200, provider)
        assert answer.headers["x-session-source"] == "body.conversation"
        outcomes.append(answer.headers["x-session-outcome"])
    assert outcomes == ["created", *["hit"] * 5]
    added = await ask({"items": [{"role": "user", "content": "added"}]}, path=f"{path}/items")
    assert added.status == 200
    items = (await get(f"{path}/items", query="order=asc&limit=100")).json["data"]
    assert len(items) == 13
    assert (await get(path)).json["metadata"] == {"topic": "test"}
    assert (await get(path, key=OTHER_KEY)).status == 404
    assert (await get(path, "DELETE")).json["deleted"] is True


async def test_conversation_is_made_by_another_provider_when_one_is_down(accounts):
    accounts[0].kill()
    try:
        answers = [await ask({}, path=CONVERSATIONS) for _ in range(4)]
    finally:
        accounts[0].start()
    assert [answer.headers["x-session-provider"] for answer in answers] == ["south"] * 4


@pytest.mark.parametrize(
    "path",
    ["/v1/responses/..", "/v1/responses/%2e%2e", "/v1/responses/a/b", "/v1/responses/a b", "/v1/conversations/a/x"],
)
async def test_path_outside_the_api_is_unknown(accounts, path):
    answer = await get(path)
    assert (answer.status, answer.error["code"]) == (404, "unknown_url")
    assert asked(accounts) == []


@pytest.mark.parametrize(("path", "allowed"), [("/v1/responses/resp_1", "GET, DELETE"), (CONVERSATIONS, "POST")])
async def test_method_that_is_not_allowed_is_refused(accounts, path, allowed):
    answer = await get(path, "PUT")
    assert (answer.status, answer.headers["allow"]) == (405, allowed)


async def test_stored_paths_need_a_key(accounts):
    assert (await get(f"{RESPONSES}/{new_id('resp')}", key=None)).status == 401


async def test_stored_paths_are_unknown_when_no_provider_speaks_the_api(accounts, gateway):
    gateway.SENTINEL_PROVIDERS = (account(accounts[0], apis=("chat",)),)
    answer = await get(f"{RESPONSES}/resp_1")
    assert (answer.status, answer.error["code"]) == (404, "unknown_url")


@pytest.mark.parametrize(("path", "method"), [(f"{RESPONSES}/resp_1", "GET"), (CONVERSATIONS, "POST")])
async def test_echo_stores_nothing(gateway, path, method):
    gateway.SENTINEL_PROVIDERS = ECHO
    answer = await get(path, method)
    assert answer.status == 404
    assert "store no responses" in answer.error["message"]


async def test_prompt_that_is_stored_upstream_needs_no_model(accounts):
    answer = await ask({"prompt": {"id": "pmpt_1"}}, path=RESPONSES)
    assert (answer.status, answer.error["param"]) == (400, "model")  # the upstream's own: it has no prompts
    assert len(asked(accounts)) == 1
    (request,) = [request for upstream in accounts for request in upstream.requests]
    assert request.body == b'{"prompt": {"id": "pmpt_1"}}'
