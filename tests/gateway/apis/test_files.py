"""Files and containers exist at one provider: requests that refer to them go to no other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.gateway.asgi import CHAT, Call, ask, outcome_of
from tests.gateway.conftest import provider
from tests.gateway.upstreams import Exchange, fails

if TYPE_CHECKING:
    from pytest_django import Settings

    from tests.gateway.upstreams import Upstream

MESSAGES = "/v1/messages"
OPENAI = {"type": "file", "file": {"file_id": "file-1"}}
ANTHROPIC = {"type": "document", "source": {"type": "file", "file_id": "file_011CNha8iCJcU1wXNR6q4V8w"}}
UPLOAD = {"type": "container_upload", "file_id": "file_011CNha8iCJcU1wXNR6q4V8w"}
TOOL_USE = {"type": "tool_use", "id": "t", "name": "open", "input": {"file_id": "7"}}
AT_ONE_PROVIDER = [
    (CHAT, OPENAI, {}),
    (MESSAGES, ANTHROPIC, {}),
    (MESSAGES, UPLOAD, {}),
    (MESSAGES, {"type": "text", "text": "continue"}, {"container": "container_1"}),
    (MESSAGES, {"type": "text", "text": "continue"}, {"container": {"id": "container_1", "skills": []}}),
]
ANYWHERE = [
    (CHAT, {"type": "text", "text": '"file_id": "file-1"'}, {}),
    (CHAT, {"type": "file", "file": {"file_data": "data:application/pdf;base64,AAAA"}}, {"container": "ignored"}),
    (MESSAGES, {"type": "text", "text": '"file_id": "file_011CNha8iCJcU1wXNR6q4V8w"'}, {}),
    (MESSAGES, TOOL_USE, {}),
    (MESSAGES, {"type": "text", "text": "continue"}, {"container": {"skills": [{"skill_id": "pptx"}]}}),
    (MESSAGES, {"type": "text", "text": "continue"}, {"container": None}),
]


@pytest.fixture
def two(gateway: Settings, north: Upstream, south: Upstream) -> list[Upstream]:
    gateway.SENTINEL_PROVIDERS = tuple(provider(each, apis=("chat", "messages")) for each in (north, south))
    return [north, south]


async def send(path: str, part: dict[str, Any], fields: dict[str, Any]) -> Call:
    message = {"role": "user", "content": [part]}
    return await ask({"model": "model-a", "messages": [message], "conversation_id": "conv", **fields}, path=path)


@pytest.mark.parametrize(("path", "part", "fields"), AT_ONE_PROVIDER)
async def test_request_with_a_file_or_container_is_asked_of_its_provider_only(
    two: list[Upstream], path: str, part: dict[str, Any], fields: dict[str, Any]
) -> None:
    bound = outcome_of(await send(path, {"type": "text", "text": "hello"}, {}))[2]
    home, other = sorted(two, key=lambda each: each.name != bound)
    home.then(fails(500), Exchange.cut, Exchange.cut)
    assert [(await send(path, part, fields)).status for _ in range(2)] == [500, 502]
    assert other.exchanges == []
    assert outcome_of(await send(path, part, fields)) == (200, "hit", bound)


@pytest.mark.parametrize(("path", "part", "fields"), ANYWHERE)
async def test_request_without_a_file_or_container_is_answered_by_another_provider(
    two: list[Upstream], path: str, part: dict[str, Any], fields: dict[str, Any]
) -> None:
    bound = outcome_of(await send(path, {"type": "text", "text": "hello"}, {}))[2]
    home, other = sorted(two, key=lambda each: each.name != bound)
    home.then(fails(500))
    assert outcome_of(await send(path, part, fields)) == (200, "spilled", other.name)
