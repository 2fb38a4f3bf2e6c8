"""The client's id, read back from a session id."""

from __future__ import annotations

import hashlib

import pytest

from sessions_sticky.identity.stored import StoredId, read_session_id
from tests.sessions_sticky.identity.requests import BODIES, identity


@pytest.mark.parametrize("model", ["gpt-5", "claude-4@20260101", "a:b"])
@pytest.mark.parametrize("client_id", ["ses_1", "me@home", "a:b@c", "content", "0123456789ab:x@y"])
def test_read_session_id_returns_what_identify_was_given(client_id, model):
    made = identity({"x-session-id": client_id}, {}, model=model).session_id
    assert read_session_id(made, model=model) == StoredId("observed", client_id, model)


def test_read_session_id_returns_the_agent_with_the_session_of_a_subagent():
    made = identity({"x-claude-code-session-id": "s", "x-claude-code-agent-id": "a"}, {}).session_id
    assert read_session_id(made) == StoredId("observed", "s:a", "gpt-5")


def test_read_session_id_returns_the_requested_model_after_a_move_to_another():
    made = identity({"x-session-id": "me@home"}, {}).session_id
    assert read_session_id(made, model="other") == StoredId("observed", "me@home", "gpt-5")


@pytest.mark.parametrize("client_id", ["x" * 300, "a\nb"])
def test_read_session_id_returns_the_hash_of_an_id_that_is_not_stored(client_id):
    made = identity({"x-session-id": client_id}, {}).session_id
    assert read_session_id(made).client_id == hashlib.sha256(client_id.encode()).hexdigest()


@pytest.mark.parametrize("api", BODIES)
def test_read_session_id_returns_no_id_for_content(api):
    assert read_session_id(identity({}, BODIES[api], api=api).session_id) == StoredId("content", None, "gpt-5")


@pytest.mark.parametrize("session_id", ["conv-1", "a@b", "0123456789AB:x@y", f"{'a' * 32}:conv-1", ""])
def test_read_session_id_returns_a_named_id_as_it_is(session_id):
    assert read_session_id(session_id) == StoredId("named", session_id, None)


def test_read_session_id_removes_the_owner_when_ids_are_scoped_by_owner():
    made = identity({}, {"conversation_id": "conv-1"}, scope="owner").session_id
    assert made != "conv-1"
    assert read_session_id(made, scope="owner") == StoredId("named", "conv-1", None)
    assert read_session_id("conv-1", scope="owner") == StoredId("named", "conv-1", None)


def test_read_session_id_returns_the_whole_text_when_it_has_no_model():
    assert read_session_id("0123456789ab:ses_1") == StoredId("observed", "ses_1", None)
