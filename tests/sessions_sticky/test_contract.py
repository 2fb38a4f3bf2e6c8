"""What the manager promises on every cache, sync and async."""

from __future__ import annotations

import time
from enum import Enum

import pytest
from django.utils.safestring import SafeString

from sessions_sticky import (
    InvalidConversationId,
    InvalidSession,
    Outcome,
    SessionConflict,
    SessionManager,
    SessionNotSupported,
    SessionOwnerMismatch,
    Turn,
)
from tests.conftest import PORTABLE_STORES, REDIS_STORES
from tests.sessions_sticky.calls import METHODS, MOVE, OTHER, PROPOSAL, arguments, sample
from tests.sessions_sticky.marks import on_comparing, on_expiry, on_portable, on_redis

HOSTILE_IDS = [
    "a:b/c.d{e}*?[]\\",
    "../../etc/passwd",
    "*",
    "with spaces  and 'quotes\"",
    "%2F%00",
    "é日本",
    "\u202eright to left \u05d0",
    "😀" * 256,
    "x" * 256,
]
INVALID_IDS = ["", "x" * 257, "a\nb", "a\x00b", "\x7f", "\x85", "\ud800", None, 7, b"conv-123"]


def test_resolve_creates_when_there_is_none(call):
    before = int(time.time())
    session, outcome = call("resolve", "conv-123", **PROPOSAL)
    assert outcome is Outcome.CREATED
    assert session == sample(created_at=session.created_at)
    assert before <= session.created_at <= time.time()
    assert call("get", "conv-123") == session


class OfEnum(str, Enum):  # noqa: UP042  # formatted as its name, not its value
    PROVIDER, MODEL, OWNER, OTHER = "openai", "gpt-4", "user-456", "azure"


@pytest.mark.parametrize("kind", [OfEnum, SafeString])
def test_resolve_returns_and_stores_plain_text_when_given_a_subclass(call, kind):
    proposal = {"provider": kind("openai"), "model": kind("gpt-4"), "owner": kind("user-456")}
    for outcome in (Outcome.CREATED, Outcome.HIT):
        session = call("resolve", "conv-123", **proposal).session
        assert session == sample(created_at=session.created_at), outcome
        assert {type(text) for text in (session.provider, session.model, session.owner)} == {str}, outcome


@on_redis
@pytest.mark.parametrize("kind", [OfEnum, SafeString])
def test_rebind_and_filters_take_text_of_a_subclass(call, manager, kind):
    created = call("create", "conv-123", kind("openai"), kind("gpt-4"), kind("user-456"))
    moved = call("rebind", created, provider=kind("azure"), model=kind("gpt-4"), reason="test")
    assert (type(moved.provider), moved) == (str, call("get", "conv-123"))
    wanted = {"provider": kind("azure"), "owner": kind("user-456")}
    assert manager.filter(**wanted).count() == manager.filter(owner=kind("user-456")).count() == 1


@on_redis
@pytest.mark.parametrize("kind", [OfEnum, SafeString])
def test_methods_for_many_sessions_take_text_of_a_subclass(call, manager, kind):
    for number in range(3):
        manager.create(f"conv-{number}", "openai", "gpt-4", "user-456")
    mine = manager.filter(owner=kind("user-456"))
    cursor = mine.page(limit=1).next_cursor
    assert len(mine.page(limit=5, cursor=cursor).entries) == 2
    cursor = manager.search(kind("user-456"), limit=1).next_cursor
    assert len(manager.search("user-456", cursor=cursor).entries) == 2
    moved = mine.filter(provider=kind("openai")).rebind(to_provider=kind("azure"), reason=kind("user-456"))
    (event,) = manager.recent(limit=1)
    assert (moved, event.sessions, event.from_provider, event.provider) == (3, 3, "openai", "azure")
    turn = Turn(
        conversation_id="conv-1", at=1.7e9, provider=kind("azure"), model=kind("gpt-4"), outcome="hit", owner=""
    )
    assert call("record_turn", turn)
    assert [each.provider for each in manager.trail("conv-1").turns] == ["azure"]
    assert mine.filter(provider=kind("azure")).delete() == 3


def test_resolve_hits_and_keeps_the_first_binding_when_another_is_proposed(call):
    first = call("resolve", "conv-123", **PROPOSAL).session
    assert call("resolve", "conv-123", **OTHER) == (first, Outcome.HIT)
    assert call("get", "conv-123") == first


def test_resolve_raises_and_changes_nothing_when_another_owns_it(call):
    first = call("resolve", "conv-123", **PROPOSAL).session
    with pytest.raises(SessionOwnerMismatch):
        call("resolve", "conv-123", **{**PROPOSAL, "owner": "user-789"})
    assert call("get", "conv-123") == first


def test_resolve_creates_when_it_was_deleted(call):
    call("resolve", "conv-123", **PROPOSAL)
    call("delete", "conv-123")
    assert call("resolve", "conv-123", **OTHER).outcome is Outcome.CREATED
    assert call("get", "conv-123").provider == OTHER["provider"]


def test_reading_returns_none_when_there_is_none(call):
    assert call("get", "conv-123") is None
    assert call("inspect", "conv-123") is None


def test_create_replaces_what_there_is_when_asked_to(call):
    call("create", "conv-123", **PROPOSAL)
    second = call("create", "conv-123", **{**OTHER, "owner": "user-789"}, replace=True)
    assert second.external_id == "user-789"
    assert call("get", "conv-123") == second


def test_create_conflicts_and_changes_nothing_when_there_is_a_session(call):
    first = call("create", "conv-123", **PROPOSAL)
    with pytest.raises(SessionConflict) as caught:
        call("create", "conv-123", **{**OTHER, "owner": "user-789"})
    assert caught.value.current == first
    assert call("get", "conv-123") == first


@pytest.mark.parametrize("blank", ["", " ", "\t\n", "\u3000"])
@pytest.mark.parametrize("name", ["provider", "model"])
@pytest.mark.parametrize("method", ["create", "resolve"])
def test_binding_refuses_a_blank_name(call, method, name, blank):
    with pytest.raises(InvalidSession, match=f"{name} must be a non-blank string"):
        call(method, "conv-123", **{**PROPOSAL, name: blank})
    assert call("get", "conv-123") is None


@pytest.mark.parametrize("value", [None, 5, b"user"])
def test_resolve_refuses_an_owner_of_a_wrong_type_when_the_session_is_there(call, value):
    call("create", "conv-123", **PROPOSAL)
    with pytest.raises(InvalidSession, match="owner must be a string"):
        call("resolve", "conv-123", **{**PROPOSAL, "owner": value})


def test_touch_returns_whether_there_was_a_session(call):
    assert call("touch", "conv-123") is False
    session = call("create", "conv-123", **PROPOSAL)
    assert call("touch", "conv-123") is True
    assert call("get", "conv-123") == session


def test_delete_returns_whether_there_was_a_session(call):
    assert call("delete", "conv-123") is False
    call("create", "conv-123", **PROPOSAL)
    assert call("delete", "conv-123") is True
    assert call("delete", "conv-123") is False
    assert call("get", "conv-123") is None


def test_touch_revives_nothing_when_it_was_deleted(call):
    call("create", "conv-123", **PROPOSAL)
    call("delete", "conv-123")
    assert call("touch", "conv-123") is False
    assert call("get", "conv-123") is None


@on_expiry
def test_inspect_returns_the_time_left(call, settings):
    settings.SESSION_TTL_SECONDS = 60
    session = call("create", "conv-123", **PROPOSAL)
    entry = call("inspect", "conv-123")
    assert entry.session == session
    assert 55 < entry.expires_in <= 60


@on_portable
def test_inspect_returns_no_expiry_when_the_cache_has_none(call):
    session = call("create", "conv-123", **PROPOSAL)
    entry = call("inspect", "conv-123")
    assert (entry.session, entry.expires_in) == (session, None)


@on_comparing
def test_rebind_keeps_id_owner_and_birth_when_it_moves(call):
    call("create", "conv-123", **PROPOSAL)
    session = call("get", "conv-123")
    moved = call("rebind", session, **MOVE)
    assert moved == sample(provider=MOVE["provider"], model=MOVE["model"], created_at=session.created_at)
    assert call("get", "conv-123") == moved
    assert call("resolve", "conv-123", **PROPOSAL) == (moved, Outcome.HIT)


@on_comparing
@pytest.mark.parametrize("now", [None, sample(provider="elsewhere"), sample(owner="user-789"), sample(created_at=1)])
def test_rebind_raises_with_what_it_found_when_the_binding_is_another(call, plant, now):
    if now:
        plant("sentinel:session:conv-123", now.to_json())
    with pytest.raises(SessionConflict) as caught:
        call("rebind", sample(), **MOVE)
    assert caught.value.current == now
    assert call("get", "conv-123") == now


@on_comparing
@pytest.mark.parametrize("session", ["conv-123", None, {"id": "conv-123"}])
@pytest.mark.parametrize(("method", "fields"), [("rebind", MOVE), ("delete_unchanged", {})])
def test_session_of_another_type_is_refused_with_what_is_allowed(call, session, method, fields):
    call("create", "conv-123", **PROPOSAL)
    with pytest.raises(InvalidSession, match=r"session must be a Session, .*, not "):
        call(method, session, **fields)
    assert call("get", "conv-123").provider == PROPOSAL["provider"]


@pytest.mark.parametrize("is_bound", [False, True])
@pytest.mark.parametrize("wrong", [{"provider": None}, {"model": None}, {"provider": 5}, {"model": b"m"}])
def test_resolve_refuses_a_name_that_is_not_a_string_also_on_a_hit(call, is_bound, wrong):
    if is_bound:
        call("create", "conv-123", **PROPOSAL)
    with pytest.raises(InvalidSession, match=f"{next(iter(wrong))} must be a non-blank string"):
        call("resolve", "conv-123", **{**PROPOSAL, **wrong})


@on_comparing
@pytest.mark.parametrize("wrong", [{"provider": None}, {"model": 5}, {"reason": None}])
def test_rebind_refuses_values_that_are_not_strings(call, wrong):
    session = call("create", "conv-123", **PROPOSAL)
    with pytest.raises(InvalidSession, match=f"{next(iter(wrong))} must be a non-blank string"):
        call("rebind", session, **{**MOVE, **wrong})
    assert call("get", "conv-123") == session


@on_portable
def test_rebind_raises_and_changes_nothing_when_the_cache_cannot(call):
    session = call("create", "conv-123", **PROPOSAL)
    with pytest.raises(SessionNotSupported, match="cannot replace a binding atomically"):
        call("rebind", session, **MOVE)
    assert call("get", "conv-123") == session


@pytest.mark.parametrize("conversation_id", HOSTILE_IDS, ids=range(len(HOSTILE_IDS)))
@pytest.mark.slow
def test_every_method_works_whatever_is_in_the_id(call, store_name, conversation_id, recwarn):
    neighbour = call("create", "neighbour", **PROPOSAL)
    session = call("resolve", conversation_id, **PROPOSAL).session
    assert session.id == conversation_id
    assert call("get", conversation_id) == call("inspect", conversation_id).session == session
    assert call("touch", conversation_id)
    if store_name in REDIS_STORES:
        assert call("rebind", session, **MOVE).id == conversation_id
    assert call("delete", conversation_id)
    assert call("get", conversation_id) is None
    assert call("get", "neighbour") == neighbour
    assert not recwarn.list


def test_similar_ids_are_distinguished(call):
    near = ["x" * 255, "x" * 256, " x", "x", "x ", "X", "é", "e\u0301", "sha256:x"]
    made = [call("create", conversation_id, **PROPOSAL) for conversation_id in near]
    assert [call("get", conversation_id) for conversation_id in near] == made


@pytest.mark.parametrize("method", METHODS)
def test_every_method_raises_when_the_id_is_invalid(call, method):
    for conversation_id in INVALID_IDS:
        args, kwargs = arguments(method, sample(conversation_id))
        with pytest.raises(InvalidConversationId):
            call(method, *args, **kwargs)


@on_redis
def test_nothing_is_written_when_the_id_is_invalid(call, raw):
    for method in METHODS:
        for conversation_id in INVALID_IDS:
            args, kwargs = arguments(method, sample(conversation_id))
            with pytest.raises(InvalidConversationId):
                call(method, *args, **kwargs)
    assert [*raw.scan_iter()] == []


@pytest.mark.parametrize("method", ["create", "resolve"])
@pytest.mark.parametrize("value", [None, 7, b"bytes", "\ud800"])
@pytest.mark.parametrize("field", ["provider", "model", "owner"])
def test_binding_raises_and_writes_nothing_when_a_field_does_not_fit(call, method, field, value):
    with pytest.raises(InvalidSession):
        call(method, "conv-123", **{**PROPOSAL, field: value})
    assert call("get", "conv-123") is None


@pytest.mark.slow
@pytest.mark.parametrize("store_name", [*PORTABLE_STORES, "valkey", "cluster"], indirect=True)
def test_session_outlives_its_ttl_when_used_and_is_gone_when_not_touched(store_name, manager):
    manager = SessionManager(ttl_seconds=2)
    session = manager.create("conv-123", **PROPOSAL)
    started = time.monotonic()
    while time.monotonic() < started + 2.8:
        time.sleep(0.35)
        assert manager.touch("conv-123")
        time.sleep(0.35)
        assert manager.resolve("conv-123", **OTHER) == (session, Outcome.HIT)
    last_used = time.monotonic()
    while manager.get("conv-123"):
        assert time.monotonic() < last_used + 2.5
        time.sleep(0.05)
    assert manager.touch("conv-123") is False
