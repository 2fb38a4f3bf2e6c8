"""What other programs see in Redis, and what they may do there."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings

from sessions_sticky import Outcome, Session, SessionManager, sessions
from tests.conftest import REAL_STORES, REDIS_STORES
from tests.sessions_sticky.calls import METHODS, MOVE, OTHER, PROPOSAL, arguments, sample
from tests.sessions_sticky.test_keys import ALLOWED
from tests.sessions_sticky.test_session import EXAMPLE, NAME, TEXT

KEY = "sentinel:session:conv-123"
TTL_SECONDS = 60
FOREIGN = [
    EXAMPLE,
    json.dumps(dict(reversed(json.loads(EXAMPLE).items()))).encode(),
    json.dumps({"version": 2, **json.loads(EXAMPLE), "tags": [{"id": "other"}]}, indent=2).encode(),
]
"""The example as other programs may write it."""


@pytest.fixture(params=REDIS_STORES)
def store_name(request):
    return request.param


@pytest.fixture(autouse=True)
def ttl(settings):
    settings.SESSION_TTL_SECONDS = TTL_SECONDS


@pytest.mark.parametrize("method", ["create", "resolve"])
def test_binding_writes_the_specified_key_and_bytes(call, raw, method):
    call(method, "conv-123", **PROPOSAL)
    session = call("get", "conv-123")
    assert [*raw.scan_iter("sentinel:session:*")] == [KEY.encode()]
    assert raw.get(KEY) == EXAMPLE.replace(b"1700000000", b"%d" % session.created_at)


@pytest.mark.parametrize("written", FOREIGN)
def test_session_of_another_program_is_read_resolved_and_rebound(call, raw, written):
    raw.set(KEY, written, ex=TTL_SECONDS)
    assert call("get", "conv-123") == sample()
    assert call("resolve", "conv-123", **OTHER) == (sample(), Outcome.HIT)
    assert raw.get(KEY) == written
    moved = call("rebind", sample(), **MOVE)
    assert raw.get(KEY) == moved.to_json()


@pytest.mark.parametrize("method", ["resolve", "touch", "rebind", "create"])
@pytest.mark.parametrize("written", FOREIGN[:2])
def test_key_without_ttl_gets_one_when_used(call, raw, method, written):
    raw.set(KEY, written)
    args, kwargs = arguments(method, sample())
    call(method, *args, **kwargs)
    assert 0 < raw.pttl(KEY) <= TTL_SECONDS * 1000


@pytest.mark.parametrize("method", [method for method in METHODS if method != "delete"])
@pytest.mark.parametrize("left_ms", [30_000, TTL_SECONDS * 1000])
def test_ttl_is_never_beyond_the_setting_whatever_is_called(call, raw, method, left_ms):
    raw.set(KEY, EXAMPLE, px=left_ms)
    args, kwargs = arguments(method, sample())
    call(method, *args, **kwargs)
    assert 0 < raw.pttl(KEY) <= TTL_SECONDS * 1000


@pytest.mark.parametrize("method", ["resolve", "touch", "create", "rebind"])
def test_ttl_comes_down_to_the_setting_when_another_program_gave_more(call, raw, method):
    raw.set(KEY, EXAMPLE, ex=TTL_SECONDS * 10)
    args, kwargs = arguments(method, sample())
    call(method, *args, **kwargs)
    assert 0 < raw.pttl(KEY) <= TTL_SECONDS * 1000


@pytest.mark.parametrize("method", ["resolve", "touch", "create"])
def test_ttl_goes_back_to_full_when_the_session_is_used(call, raw, method):
    raw.set(KEY, EXAMPLE, px=9_000)
    args, kwargs = arguments(method, sample())
    call(method, *args, **kwargs)
    assert raw.pttl(KEY) > (TTL_SECONDS - 5) * 1000


@pytest.mark.parametrize("method", ["get", "inspect", "rebind"])
def test_ttl_stays_when_the_session_is_read_or_moved(call, raw, method):
    raw.set(KEY, EXAMPLE, px=9_000)
    args, kwargs = arguments(method, sample())
    call(method, *args, **kwargs)
    assert 4_000 < raw.pttl(KEY) <= 9_000


@pytest.mark.parametrize("method", ["get", "inspect"])
def test_reading_leaves_a_key_without_ttl_as_it_is(call, raw, method):
    raw.set(KEY, EXAMPLE)
    assert call(method, "conv-123") is not None
    assert raw.pttl(KEY) == -1


def test_inspect_returns_no_expiry_when_the_key_has_no_ttl(call, raw):
    raw.set(KEY, EXAMPLE)
    assert call("inspect", "conv-123").expires_in is None


def test_inspect_rounds_up_so_that_a_live_session_never_has_0_left(call, raw):
    raw.set(KEY, EXAMPLE, px=900)
    assert call("inspect", "conv-123").expires_in == 1


def test_resolve_creates_when_the_ttl_has_passed(call, raw):
    raw.set(KEY, EXAMPLE, px=1)
    while raw.exists(KEY):
        pass
    assert call("resolve", "conv-123", **OTHER).outcome is Outcome.CREATED


def test_ttl_follows_the_setting_at_once_unless_the_manager_has_its_own(raw, settings):
    own = SessionManager(ttl_seconds=9)
    for seconds in (7, 33):
        settings.SESSION_TTL_SECONDS = seconds
        sessions.create("conv-123", **PROPOSAL, replace=True)
        assert (seconds - 5) * 1000 < raw.pttl(KEY) <= seconds * 1000
    own.touch("conv-123")
    assert 4_000 < raw.pttl(KEY) <= 9_000


# Only real servers: 100 examples on fakeredis show nothing more.
@pytest.mark.slow
@pytest.mark.parametrize("store_name", REAL_STORES[:1], indirect=True)
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(ALLOWED, NAME, NAME, TEXT)
def test_resolve_stores_what_was_proposed_whatever_is_in_it(
    store_name, manager, conversation_id, provider, model, owner
):
    manager.delete(conversation_id)
    session, outcome = manager.resolve(conversation_id, provider=provider, model=model, owner=owner)
    assert (outcome, session) == (Outcome.CREATED, Session(conversation_id, provider, model, owner, session.created_at))
    assert manager.resolve(conversation_id, provider="p", model="m", owner=owner) == (session, Outcome.HIT)
