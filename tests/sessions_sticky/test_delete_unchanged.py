from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.core.cache import cache

from sessions_sticky import InvalidConversationId, SessionConflict, SessionManager, keys, session_deleted
from tests.sessions_sticky.calls import PROPOSAL, sample
from tests.sessions_sticky.indexed import ids, on_valkey
from tests.sessions_sticky.marks import on_comparing, on_redis

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis

    Call = Callable[..., Any]
    Plant = Callable[[str, bytes], None]


@on_redis
@pytest.mark.parametrize("value", [b'{"id" : 1}', b"\xff\x00", b""])
def test_get_raw_returns_the_bytes(call: Call, manager: SessionManager, raw: redis.Redis, value: bytes) -> None:
    raw.set(keys.session("conv-1"), value, ex=100)
    assert call("get_raw", "conv-1") == value
    assert 0 < raw.pttl(keys.session("conv-1")) <= 100_000


def test_get_raw_returns_none_when_there_is_no_session(call: Call, manager: SessionManager) -> None:
    assert call("get_raw", "conv-1") is None


def test_delete_unchanged_unbinds_when_the_session_is_as_it_was_seen(call: Call, manager: SessionManager) -> None:
    session = manager.create("conv-1", **PROPOSAL)
    call("delete_unchanged", session)
    assert manager.get("conv-1") is None
    assert manager._store.last_seen.recall("conv-1", 0) is None
    assert cache.get(keys.deleted("conv-1"), default=b"") is not None


def test_delete_unchanged_conflicts_when_the_session_is_another_by_now(call: Call, manager: SessionManager) -> None:
    seen = manager.create("conv-1", **PROPOSAL)
    current = manager.create("conv-1", **{**PROPOSAL, "provider": "mistral"}, replace=True)
    with pytest.raises(SessionConflict) as caught:
        call("delete_unchanged", seen)
    assert caught.value.current == current
    assert manager.get("conv-1") == current


def test_delete_unchanged_conflicts_when_the_session_is_gone(call: Call, manager: SessionManager) -> None:
    with pytest.raises(SessionConflict) as caught:
        call("delete_unchanged", sample("conv-1"))
    assert caught.value.current is None


def test_delete_unchanged_refuses_an_impossible_id(call: Call, manager: SessionManager) -> None:
    with pytest.raises(InvalidConversationId):
        call("get_raw", "")
    with pytest.raises(InvalidConversationId):
        call("delete_unchanged", sample(""))


def test_delete_unchanged_deletes_the_same_session_in_another_encoding(
    call: Call, manager: SessionManager, plant: Plant
) -> None:
    seen = sample("conv-1")
    plant(keys.session("conv-1"), b" " + seen.to_json().replace(b'","', b'" , "'))
    call("delete_unchanged", seen)
    assert manager.get_raw("conv-1") is None


@on_redis
def test_delete_unchanged_marks_a_session_in_another_encoding_as_deleted(
    call: Call, raw: redis.Redis, plant: Plant
) -> None:
    plant(keys.session("conv-1"), b" " + sample("conv-1").to_json())
    call("delete_unchanged", sample("conv-1"))
    assert raw.exists(keys.deleted("conv-1"))


@on_comparing
@pytest.mark.parametrize("same", [False, True])
def test_delete_unchanged_never_removes_what_was_bound_between_looking_and_removing(
    call: Call, manager: SessionManager, plant: Plant, monkeypatch: pytest.MonkeyPatch, same: bool
) -> None:
    seen = manager.create("conv-1", **PROPOSAL)
    store, bound = manager._store, []
    remove = store.remove

    def race(*args: Any, **kwargs: Any) -> Any:
        request = remove(*args, **kwargs)
        if not bound:  # after the look, before the compare-and-set
            bound.append(sample("conv-1", created_at=seen.created_at, provider="openai" if same else "mistral"))
            plant(keys.session("conv-1"), bound[0].to_json().replace(b":", b": ", 1))
        return request

    monkeypatch.setattr(store, "remove", race, raising=False)
    if same:
        call("delete_unchanged", seen)
        assert manager.get("conv-1") is None
        return
    with pytest.raises(SessionConflict) as caught:
        call("delete_unchanged", seen)
    assert caught.value.current == bound[0] == manager.get("conv-1")


@on_valkey
def test_delete_unchanged_is_in_the_index_the_history_and_the_signals_when_done(
    call: Call, manager: SessionManager
) -> None:
    heard: list[dict[str, Any]] = []

    def hear(**arguments: Any) -> None:
        heard.append(arguments)

    session = manager.create("conv-1", **PROPOSAL)
    session_deleted.connect(hear)
    try:
        manager.acting_as("ada").delete_unchanged(session)
    finally:
        session_deleted.disconnect(hear)
    assert [(each["conversation_id"], each["session"], each["actor"]) for each in heard] == [("conv-1", session, "ada")]
    assert ids([entry.session for entry in manager.all().page().entries]) == []
    assert [(event.kind, event.actor) for event in manager.history("conv-1")][-1] == ("deleted", "ada")
    assert manager.resolve("conv-1", **{**PROPOSAL, "provider": "mistral"}).session.provider == "mistral"
