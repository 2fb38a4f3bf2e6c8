"""Conversations with thinking that go from one account to another and back, byte for byte."""

from __future__ import annotations

import json
import time

import pytest

from sentinel_project.gateway.apis.body import Body
from sentinel_project.gateway.apis.messages import COUNT_TOKENS, MESSAGES
from sentinel_project.gateway.errors import ApiError
from sentinel_project.gateway.providers.failures import Cools
from sentinel_project.gateway.providers.slots import Failure
from sentinel_project.gateway.routing import process
from tests.clients.http_api import ApiError as Refusal
from tests.clients.upstream import Upstream
from tests.gateway.apis.conftest import entry
from tests.gateway.apis.test_messages import COUNT, MODEL, PATH, assert_error, say, text

WORDING = "messages.1.content.0: Invalid `signature` in `thinking` block"
HEAD = b'{"model":"claude-opus-4-6","max_tokens":2000,"thinking":{"type":"adaptive"},"messages":'
USER = b'{ "role": "user","content":"gr\xc3\xbc\\u00df \\"thinking\\"" }'
FREE = b'{"role":"assistant" , "content":[ {"type":"text","text":"free"} ],"x":1.0}'


def asked(*messages: bytes, head: bytes = HEAD) -> bytes:
    return head + b"[" + b" ,\n".join(messages) + b"]}"


def assistant(*blocks: bytes) -> bytes:
    return b'{"content": [' + b", ".join(blocks) + b'],"role":"assistant"}'


def block(value: dict) -> bytes:
    return json.dumps(value).encode()


async def turn(*messages: bytes, stream: bool = False, path: str = PATH):
    head = HEAD.replace(b'"messages"', b'"stream":true,"messages"') if stream else HEAD
    return await say(asked(*messages, head=head), path=path)


def blocks(answer) -> list[dict]:
    content = answer.json["content"]
    assert [each["type"] for each in content] == ["thinking", "text"]
    return [block(each) for each in content]


@pytest.mark.parametrize("stream", [False, True])
async def test_conversation_continues_when_it_moves_to_another_account_and_back(both, east: Upstream, west, stream):
    of_east = blocks(await turn(USER))
    east.fail_turns(Refusal(529, "Overloaded", headers={"retry-after": "60"}))
    moved = await turn(USER, assistant(*of_east), USER)
    assert (text(moved), moved.headers["x-session-repaired"]) == (f"west as {MODEL}", "thinking")
    refused, repaired = west.requests
    assert refused.body == east.requests[1].body == asked(USER, assistant(*of_east), USER)
    assert repaired.body == asked(USER, assistant(of_east[1]), USER)
    of_west = blocks(moved)

    process.health.answered("east", MODEL, process.health.now())
    history = (USER, assistant(*of_east), USER, assistant(*of_west), USER)
    back = await turn(*history, stream=stream)
    assert (text(back), back.headers["x-session-repaired"]) == (f"east as {MODEL}", "thinking")
    head = east.requests[-1].body[: east.requests[-1].body.index(b"[")]
    expected = asked(USER, assistant(of_east[1]), USER, assistant(of_west[1]), USER, head=head)
    assert east.requests[-1].body == expected
    assert [east.requests[-2].path, east.requests[-1].path] == [PATH, PATH]


async def test_thinking_stays_when_its_own_account_answers(both, east: Upstream):
    of_east = blocks(await turn(USER))
    answer = await turn(USER, assistant(*of_east), FREE, USER)
    assert "x-session-repaired" not in answer.headers
    assert east.requests[-1].body == asked(USER, assistant(*of_east), FREE, USER)
    assert len(east.requests) == 2


async def test_count_tokens_is_repaired_too(both, east: Upstream, west: Upstream):
    of_east = blocks(await turn(USER))
    process.health.failed("east", MODEL, Failure(Cools.MODEL, retry_after=60))
    answer = await turn(USER, assistant(*of_east), USER, path=COUNT)
    assert answer.json["input_tokens"] > 0
    assert (answer.headers["x-session-repaired"], answer.headers["x-session-provider"]) == ("thinking", "west")


async def test_provider_is_asked_only_once_more_when_it_refuses_the_repaired_request(both, east: Upstream):
    both.SENTINEL_PROVIDERS = (entry(east),)
    east.script.extend([Refusal(400, WORDING), Refusal(400, "Expected `thinking`, but found `tool_use`")])
    answer = await turn(USER, assistant(block({"type": "thinking", "thinking": "", "signature": "x"}), b"{}"), USER)
    assert "Expected" in assert_error(answer, 400, "invalid_request_error")
    assert len(east.requests) == 2


async def test_error_is_the_clients_when_there_is_no_thinking_to_remove(both, east: Upstream, west: Upstream):
    east.fail_turns(Refusal(400, WORDING))
    answer = await turn(USER, FREE, USER)
    assert assert_error(answer, 400, "invalid_request_error") == WORDING
    assert (len(east.requests), len(west.requests)) == (1, 0)


THINKING = b'{"type": "thinking" ,"thinking":"x [,] \\" }","signature":"s"}'
REDACTED = b'{"data":"d","type":"redacted_thinking"}'
TEXT = b'{"type":"text","text":"{\\"type\\":\\"thinking\\"}"}'
TOOL = b'{"type":"tool_use","id":"t","name":"thinking","input":{"type":"thinking"}}'


def repaired(*messages: bytes, message: str = WORDING, status: int = 400, api=MESSAGES) -> bytes | None:
    repair = api.repair(Body.parse(asked(*messages)), ApiError(status, message))
    return None if repair is None else repair.body.encode()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([THINKING, TEXT], [TEXT]),
        ([REDACTED, TEXT], [TEXT]),
        ([THINKING, REDACTED, TEXT, TOOL], [TEXT, TOOL]),
        ([TEXT, THINKING, TOOL], [TEXT, TOOL]),
        ([TEXT, TOOL, THINKING], [TEXT, TOOL]),
        ([b'"thinking"', b"null", THINKING, b'{"type":5}'], [b'"thinking"', b"null", b'{"type":5}']),
        ([b'{"type":["thinking"]}', THINKING, b'["thinking"]'], [b'{"type":["thinking"]}', b'["thinking"]']),
    ],
)
@pytest.mark.parametrize("api", [MESSAGES, COUNT_TOKENS])
def test_repair_removes_exactly_the_thinking_blocks(before, after, api):
    kept = (USER, FREE, b"5", b'"thinking"', b'{"content":"thinking"}', b"null", b'{"content":7}', b'{"content":[]}')
    assert repaired(*kept, assistant(*before), USER, api=api) == asked(*kept, assistant(*after), USER)


@pytest.mark.parametrize("only", [[THINKING], [REDACTED, THINKING]])
def test_repair_removes_a_message_when_nothing_is_left_of_it(only):
    """Anthropic refuses empty messages, and joins two messages of one role that follow each other."""
    assert repaired(USER, assistant(*only), USER, FREE) == asked(USER, USER, FREE)
    assert repaired(USER, assistant(*only)) == asked(USER)


@pytest.mark.parametrize(
    "message",
    [
        WORDING,
        "messages.3.content.0: Invalid signature in thinking block",
        "messages.1.content.1: Invalid `data` in `redacted_thinking` block",
        "Provider says: ***.***.content.0: Invalid `signature` in `thinking` block (request id: 2026)",
        "messages.1.content.0: Invalid `signature` in `thinking` block. The block is bound to another conversation.",
        "messages.1.content.0.thinking.signature: Field required",
        "The encrypted content vxIy...KwWQ could not be verified. Reason: Encrypted content could not be decrypted.",
    ],
)
def test_repair_knows_every_wording_of_an_invalid_signature(message):
    assert repaired(USER, assistant(THINKING, TEXT), message=message) == asked(USER, assistant(TEXT))


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "messages.1.content.0.type: Expected `thinking` or `redacted_thinking`, but found `text`"),
        (400, "max_tokens must be greater than thinking.budget_tokens"),
        (400, "Invalid signature"),
        (401, WORDING),
        (500, WORDING),
    ],
)
def test_repair_changes_nothing_when_the_error_is_about_something_else(status, message):
    assert repaired(USER, assistant(THINKING, TEXT), message=message, status=status) is None


@pytest.mark.parametrize("messages", [(USER,), (USER, FREE), (assistant(THINKING),)])
def test_repair_changes_nothing_when_no_message_would_be_left_or_changed(messages):
    assert repaired(*messages) is None


HOSTILE = {
    "messages": lambda: b",".join(170_000 * [assistant(THINKING)]),
    "items": lambda: assistant(THINKING) + 9_000_000 * b",5",
    "blocks": lambda: assistant(THINKING, b"5" + 9_000_000 * b",5"),
    "fields": lambda: assistant(THINKING)[:-1] + b"".join(b',"%d":0' % number for number in range(1_000_000)) + b"}",
}
"""Made by their tests: each worker imports this module, and they take half a second and 80 MB."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", HOSTILE)
def test_repair_takes_no_time_when_the_messages_are_hostile(kind):
    body = Body.parse(asked(USER, HOSTILE[kind]()))
    began = time.process_time()
    assert MESSAGES.repair(body, ApiError(400, WORDING)) is None
    assert time.process_time() - began < 0.5


def test_repair_takes_little_time_when_a_conversation_is_long():
    history = 2000 * (USER, assistant(THINKING, TEXT))
    began = time.process_time()
    assert repaired(*history) == asked(*2000 * (USER, assistant(TEXT)))
    assert time.process_time() - began < 0.5
