"""Where the turns of real clients land, over two workers and two upstreams."""

from __future__ import annotations

import time
import uuid

import pytest

from tests.clients.clients import ClientError, Codex
from tests.clients.conftest import Connect
from tests.clients.gateway import Gateway
from tests.clients.matrix import ALL, CARRYING, CLAUDE_CODE, CODEX, OPENCODE, STORED, Kind
from tests.clients.upstream import Upstream
from tests.waiting import wait_until

all_clients = pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
carrying_clients = pytest.mark.parametrize("kind", CARRYING, ids=lambda kind: kind.name)
stored_clients = pytest.mark.parametrize("kind", STORED, ids=lambda kind: kind.name)


def prompt() -> str:
    """Return the first turn of a new conversation, so that each test's are spread over the upstreams."""
    return f"Who are you? {uuid.uuid4()}"


def upstream_of(answer: str, upstreams: dict[str, Upstream]) -> Upstream:
    """Return who answered."""
    return upstreams[answer.partition(" ")[0]]


MAX_TURNS = 12


@all_clients
def test_later_turns_land_where_the_first_did_also_when_redis_is_killed(
    kind: Kind, connect: Connect, gateway: Gateway, upstreams: dict[str, Upstream]
) -> None:
    began, client, first = time.time(), connect(kind), prompt()
    answers = [client.say(first)]
    gateway.switch()
    if kind.source is not None:  # where stored objects are is in Redis only
        gateway.redis.kill()
        answers.append(client.say("and without Redis?"))  # the other worker knows nothing of the first turn
        gateway.restore()
        gateway.switch()
    for text in ("and now?", "and then?"):
        answers.append(client.say(text))
        gateway.switch()
    assert len(set(answers)) == 1, answers
    last = upstream_of(answers[0], upstreams).turns()[-1]
    assert (first.encode() in last.body) is kind.carries_history
    assert b"and then?" in last.body
    if kind.source is not None:
        wait_until(lambda: len(gateway.turns(began)) >= len(answers))  # a stream's line is written after its last byte
        while "hit" not in [turn["outcome"] for turn in gateway.turns(began)]:
            assert len(answers) < MAX_TURNS, gateway.turns(began)
            answers.append(client.say("and again?"))  # a worker asks a store that was down once a second
            gateway.switch()
        assert len(set(answers)) == 1, answers
        assert {turn["source"] for turn in gateway.turns(began)} == {kind.source}


@carrying_clients
def test_no_turn_fails_when_its_provider_is_killed_and_comes_back(
    kind: Kind, connect: Connect, gateway: Gateway, upstreams: dict[str, Upstream]
) -> None:
    client = connect(kind)
    first = client.say(prompt())
    lost = upstream_of(first, upstreams)
    lost.kill()
    gateway.switch()
    second = client.say("and now?")
    assert upstream_of(second, upstreams) is not lost
    gateway.restore()
    third = client.say("and then?")
    last = upstream_of(third, upstreams).turns()[-1]
    assert b"and now?" in last.body


@stored_clients
def test_stored_turn_fails_as_unavailable_until_its_provider_is_back(
    kind: Kind, connect: Connect, gateway: Gateway, upstreams: dict[str, Upstream]
) -> None:
    client = connect(kind)
    first = client.say(prompt())
    # The Agents SDK keeps its conversation at one provider, and has its turns answered by any.
    keepers = [each for each in upstreams.values() if any("/conversations" in sent.path for sent in each.requests)]
    (keepers or [upstream_of(first, upstreams)])[0].kill()
    gateway.switch()
    with pytest.raises(ClientError) as caught:
        client.say("and now?")
    assert caught.value.status == 503
    assert "InternalServerError" in caught.value.types
    gateway.restore()
    assert client.say("and now?") == first


def test_opencode_gets_title_and_chat_from_different_models(connect: Connect, upstreams: dict[str, Upstream]) -> None:
    assert connect(OPENCODE).say(prompt()).endswith("as gpt-5.2")
    asked = {request.json["model"] for upstream in upstreams.values() for request in upstream.turns()}
    assert asked == {"gpt-5.2", "gpt-5-mini"}


def test_codex_uses_http_after_one_try_when_it_supports_websockets(connect: Connect) -> None:
    client = connect(CODEX, supports_websockets="true")
    assert isinstance(client, Codex)
    assert client.say(prompt()).endswith("as gpt-5.2")
    assert client.stderr.count("failed to connect to Responses WebSocket") == 1  # seven at a server that answers 405
    assert "Reconnecting" not in client.stderr


@pytest.mark.parametrize("key_variable", ["ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"])
def test_claude_code_is_served_with_the_providers_key_in_place_of_its_own(
    key_variable: str, connect: Connect, gateway: Gateway, upstreams: dict[str, Upstream]
) -> None:
    answer = connect(CLAUDE_CODE, key_variable=key_variable).say(prompt())
    upstream = upstream_of(answer, upstreams)
    request = upstream.turns()[-1]
    assert request.query == "beta=true"
    assert request.header("anthropic-beta")
    sent = b"\n".join(value.encode() for _, value in request.headers) + request.body
    assert upstream.api_key.encode() in sent
    assert gateway.key.encode() not in sent
