from __future__ import annotations

import logging

import pytest

from sessions_sticky import (
    InvalidSession,
    SessionConflict,
    SessionError,
    SessionManager,
    SessionOwnerMismatch,
)
from tests.conftest import REDIS_STORES, patient_config
from tests.servers import VALKEY, start_server
from tests.sessions_sticky.calls import METHODS, MOVE, PROPOSAL, arguments, sample
from tests.sessions_sticky.test_exports import run_python

KEY = "sentinel:session:conv-123"
OWNER = "user-secret"
OWNED = {**PROPOSAL, "owner": OWNER}
on_redis = pytest.mark.parametrize("store_name", REDIS_STORES[1:2], indirect=True)


@pytest.fixture(autouse=True)
def everything(caplog):
    caplog.set_level(logging.DEBUG, "sessions_sticky")


def logged(caplog):
    """Return (level, message) of each record of the library; all carry the conversation id."""
    records = [record for record in caplog.records if record.name == "sessions_sticky"]
    assert {record.conversation_id for record in records} <= {"conv-123"}
    caplog.clear()
    return [(record.levelname, record.getMessage()) for record in records]


def test_each_event_is_logged_at_debug_with_the_conversation_id(call, caplog):
    events = []
    for method in ("touch", "delete", "resolve", "resolve", "touch", "create", "delete"):
        args, kwargs = arguments(method, sample())
        call(method, *args, **kwargs)
        events += logged(caplog)
    expected = ["miss", "miss", "miss", "created", "hit", "touched", "created", "deleted"]
    assert events == [("DEBUG", f"{event} 'conv-123'") for event in expected]


@on_redis
def test_rebind_is_logged_at_info_with_both_ends_and_reason(call, caplog):
    session = call("create", "conv-123", **PROPOSAL)
    logged(caplog)
    call("rebind", session, **MOVE)
    message = "rebound 'conv-123' from 'openai', model 'gpt-4', to 'mistral', model 'large': 'a test'"
    assert logged(caplog) == [("INFO", message)]


def assert_no_owner(caplog, *raised):
    loud = [record for record in caplog.records if record.levelno > logging.DEBUG]
    formatter = logging.Formatter()
    assert not [text for text in map(formatter.format, loud) if OWNER in text]
    assert not [error for error in raised if OWNER in str(error)]


@on_redis
def test_owner_is_in_no_record_above_debug_whatever_fails(call, raw, caplog):
    session = call("create", "conv-123", **OWNED)
    raised = []
    for error, method, arguments_ in [
        (SessionOwnerMismatch, "resolve", {**PROPOSAL, "owner": f"{OWNER}-2"}),
        (InvalidSession, "create", {**OWNED, "model": "\ud800"}),
        (InvalidSession, "create", {**OWNED, "owner": f"{OWNER}\ud800"}),
        (InvalidSession, "resolve", {**OWNED, "provider": None}),
    ]:
        conversation_id = "conv-123" if error is SessionOwnerMismatch else "conv-124"
        with pytest.raises(error) as caught:
            call(method, conversation_id, **arguments_)
        raised.append(caught.value)
    call("rebind", session, **MOVE)
    with pytest.raises(SessionConflict) as caught:
        call("rebind", session, **MOVE)
    raised.append(caught.value)
    for poison in (
        b"{" + OWNER.encode(),
        sample("conv-9", **OWNED).to_json(),
        OWNER.encode(),
        b'{"id":"' + OWNER.encode(),
    ):
        raw.set(KEY, poison)
        call("get", "conv-123")
        call("resolve", "conv-123", **OWNED)
    assert [record for record in caplog.records if record.levelname == "ERROR"]
    assert_no_owner(caplog, *raised)


@pytest.mark.parametrize("policy", ["degrade", "raise"])
def test_owner_is_in_no_record_or_error_when_the_server_repeats_the_arguments(settings, caplog, policy):
    # A Redis that does not know a command says it back with its arguments; so do managed ones and proxies.
    renamed = [part for name in ("SET", "EVALSHA", "EVAL") for part in ("--rename-command", name, "")]
    settings.SESSIONS_STICKY = {"ON_STORE_ERROR": policy}
    with start_server(VALKEY, *renamed) as server:
        settings.CACHES = {"default": patient_config(server.url)}
        manager, raised = SessionManager(), []
        for method in METHODS:
            args, kwargs = arguments(method, sample("c", owner=OWNER))
            try:
                getattr(manager, method)(*args, **kwargs)
            except SessionError as error:
                raised.append(error)
    assert len(raised) >= 2  # create and rebind at least
    assert_no_owner(caplog, *raised)


@pytest.mark.slow
def test_library_configures_no_handler_and_no_level():
    ran = run_python(
        """
import logging
from django.conf import settings
settings.configure(CACHES={"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}},
                   INSTALLED_APPS=["sessions_sticky"], LOGGING_CONFIG=None)
import django
django.setup()
from sessions_sticky import sessions
sessions.resolve("c", provider="p", model="m", owner="o")
logger = logging.getLogger("sessions_sticky")
print(logger.handlers, logger.level, logger.propagate, logging.getLogger().handlers)
"""
    )
    assert (ran.stdout, ran.stderr) == ("[] 0 True []\n", "")
