"""A request that continues the conversation of an earlier one, which an object of its answer stands for."""

from __future__ import annotations

import pytest

from sessions_sticky.identity import Identity, continued
from tests.sessions_sticky.identity.requests import CHAT, identity

SOURCE = "body.previous_response_id"
OBSERVED = [
    {"x-session-id": "ses_1"},
    {"x-session-id": "a:b@c"},
    {"x-claude-code-session-id": "s", "x-claude-code-agent-id": "a"},
    {"x-session-id": "a\nb"},
    {"x-session-id": "x" * 240},
]


@pytest.mark.parametrize("headers", OBSERVED)
@pytest.mark.parametrize("model", ["gpt-5", "gpt-5-mini"])
def test_continued_is_the_session_of_the_earlier_request_and_model(headers, model):
    earlier, same = identity(headers), identity(headers, model=model)
    found = continued(str(earlier.ranking_id), source=SOURCE, model=model)
    assert found == Identity(same.session_id, SOURCE, False, earlier.ranking_id, None, True)


def test_continued_binds_what_was_only_ranked_by_its_content():
    earlier = identity({}, {"messages": CHAT["messages"][:2]})
    found = continued(str(earlier.ranking_id), source=SOURCE, model="gpt-5")
    assert (found.session_id, found.binds) == (earlier.session_id, True)


@pytest.mark.parametrize("scope", ["shared", "owner"])
def test_continued_keeps_the_model_of_a_named_conversation(scope):
    earlier = identity({}, {"conversation_id": "conv-1"}, scope=scope)
    found = continued(str(earlier.ranking_id), source=SOURCE, model="gpt-5-mini")
    assert (found.session_id, found.pins_model) == (earlier.session_id, True)
