from __future__ import annotations

import pickle

import pytest
from redis.exceptions import OutOfMemoryError

from sessions_sticky import (
    InvalidConversationId,
    InvalidSession,
    SessionConflict,
    SessionError,
    SessionNotSupported,
    SessionOwnerMismatch,
    SessionStoreUnavailable,
)
from tests.sessions_sticky.calls import sample

OWNER = "user-456"
ERRORS = [
    InvalidConversationId("has no characters"),
    InvalidSession("Not a session: no reason"),
    SessionNotSupported("LocMemCache cannot"),
    SessionStoreUnavailable("did not answer"),
    SessionOwnerMismatch("conv-123"),
    SessionConflict("conv-123", None),
    SessionConflict("conv-123", sample(owner=OWNER)),
]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_error_is_the_same_when_pickled_and_unpickled(error):
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_error_is_a_session_error_and_leaves_the_owner_out(error):
    assert isinstance(error, SessionError)
    assert str(error)
    assert OWNER not in str(error)


@pytest.mark.parametrize("error_class", [InvalidConversationId, InvalidSession])
def test_invalid_value_is_a_value_error(error_class):
    assert issubclass(error_class, ValueError)


def test_conflict_message_names_the_current_binding():
    conflict = SessionConflict("conv-123", sample())
    assert conflict.current == sample()
    assert str(conflict) == "Conversation 'conv-123' is now bound to 'openai', model 'gpt-4'"
    assert str(SessionConflict("conv-123", None)) == "Conversation 'conv-123' is no longer bound"


def test_mismatch_names_the_conversation():
    assert str(SessionOwnerMismatch("conv-123")) == "Conversation 'conv-123' belongs to another owner"


def test_full_store_is_named_without_the_script_of_redis():
    cause = OutOfMemoryError(
        "command not allowed when used memory > 'maxmemory'. script: 6a3d6258, on @user_script:182."
    )
    error = SessionStoreUnavailable.because(cause)
    assert str(error) == "Redis is full (used memory > maxmemory) and refuses writes; nothing was changed"
    assert not error.is_full  # until it is raised from its cause
    error.__cause__ = cause
    assert error.is_full
