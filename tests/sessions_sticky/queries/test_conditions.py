"""Filters by the last move, and moves back."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest

from sessions_sticky import InvalidSession, SessionManager, SessionNotSupported, keys
from sessions_sticky.queries import index_reader
from sessions_sticky.queries.bulk import Move
from sessions_sticky.queries.filters import Filters
from sessions_sticky.stores.redis import REPLACE
from tests.sessions_sticky.indexed import on_real, on_valkey


@pytest.fixture
def moved(manager: SessionManager) -> SessionManager:
    """On south: `home` was always there, `away` came from north, `back` returned there, `far` came from east."""
    for name, provider in (("home", "south"), ("away", "north"), ("back", "south"), ("far", "east"), ("new", "north")):
        manager.create(name, provider, f"model-{name}", "ann")
    move(manager, "away", "south", "planned")
    move(manager, "back", "north", "planned")
    move(manager, "back", "south", "planned")
    move(manager, "far", "south", "provider was lost")
    return manager


def move(manager: SessionManager, name: str, provider: str, reason: str, model: str | None = None) -> None:
    session = manager.get(name)
    assert session is not None
    manager.rebind(session, provider=provider, model=model or session.model, reason=reason)


def found(query) -> list[str]:
    return sorted(entry.session.id for entry in query)


def where(manager: SessionManager) -> dict[str, str]:
    return {entry.session.id: entry.session.provider for entry in manager.all()}


@on_real
def test_moved_from_matches_the_last_move(moved):
    assert found(moved.filter(moved_from="north")) == ["away", "back"]
    assert found(moved.filter(moved_from="south")) == []
    assert found(moved.filter(moved_from="east", provider="south")) == ["far"]
    assert moved.filter(moved_from="north").count() == 2


@on_valkey
@pytest.mark.parametrize("as_datetime", [False, True])
def test_moved_since_matches_the_time_of_the_last_move(moved, raw, as_datetime):
    time.sleep(0.01)
    since = datetime.now(UTC)
    time.sleep(0.01)
    move(moved, "away", "west", "again")
    assert found(moved.filter(moved_since=since if as_datetime else since.timestamp())) == ["away"]
    assert found(moved.filter(moved_since=0)) == ["away", "back", "far"]
    assert found(moved.filter(moved_since=time.time() + 60)) == []


@on_valkey
def test_move_of_a_former_binding_does_not_count(moved, raw):
    moved.delete("away")
    moved.create("away", "south", "model-away", "ann")
    assert found(moved.filter(moved_from="north")) == ["back"]


@on_valkey
def test_move_counts_after_the_session_was_restored(moved, raw):
    raw.delete(keys.session("away"))
    moved.resolve("away", provider="west", model="other", owner="ann")
    assert moved.get("away").provider == "south"
    assert found(moved.filter(moved_from="north")) == ["away", "back"]


@on_valkey
def test_move_is_not_known_when_the_history_is_damaged_or_of_another_binding(moved, raw):
    for entry in (b"", b"x", b"1 {", b'1 {"kind":"moved"}', b"\xff {}"):
        raw.rpush(keys.history_of("home"), entry)
    raw.rpush(keys.history_of("away"), b'1700000000000 {"kind":"rebound","provider":"elsewhere","from_provider":"x"}')
    raw.set(keys.history_of("far"), "of another type")
    assert found(moved.filter(moved_since=0)) == ["back"]


@on_valkey
def test_moves_are_not_supported_without_a_history(moved, settings):
    settings.SESSIONS_STICKY = {"HISTORY_LENGTH": 0}
    with pytest.raises(SessionNotSupported, match="HISTORY_LENGTH"):
        moved.filter(moved_from="north").count()
    with pytest.raises(SessionNotSupported, match="HISTORY_LENGTH"):
        moved.filter(provider="south").move_back(reason="back")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"moved_from": 5}, "moved_from must be a string, not 5"),
        ({"operation": b"x"}, "operation must be a string"),
        ({"moved_since": "1h"}, "moved_since must be a time or a number of seconds"),
        ({"moved_since": datetime(2026, 1, 1)}, "moved_since must have a time zone"),
    ],
)
def test_filter_refuses_invalid_conditions(fields, message):
    with pytest.raises(ValueError, match=message):
        SessionManager().filter(**fields)


@on_valkey
def test_page_names_the_condition_that_it_cannot_filter_by(moved):
    with pytest.raises(ValueError, match="Pages cannot be filtered by moved_from, moved_since: iterate"):
        moved.filter(moved_since=0, moved_from="north").page()


@on_real
def test_move_back_returns_exactly_what_was_moved(moved):
    assert moved.filter(moved_from="north", provider="south").move_back(reason="north is back") == 2
    assert where(moved) == {"home": "south", "away": "north", "back": "north", "far": "south", "new": "north"}
    last = moved.history("away")[-1]
    assert (last.from_provider, last.provider, last.reason) == ("south", "north", "north is back")


@on_valkey
def test_move_back_moves_each_session_once_when_it_still_matches(moved, raw, monkeypatch):
    monkeypatch.setattr(index_reader, "BATCH_SIZE", 1)
    assert moved.filter(moved_since=0).move_back(reason="undo") == 3
    assert where(moved) == {"home": "south", "away": "north", "back": "north", "far": "east", "new": "north"}


@on_valkey
async def test_move_back_returns_to_the_former_model_and_leaves_the_others(moved, raw):
    move(moved, "new", "south", "planned", "another model")
    assert await moved.filter(provider="south").amove_back(reason="undo") == 4
    assert moved.get("new").model == "model-new"
    assert where(moved)["home"] == "south"


@on_valkey
def test_move_back_leaves_sessions_of_providers_that_are_gone(moved, settings):
    settings.SESSIONS_STICKY = {"PROVIDERS": ["south", "east"]}
    assert moved.filter(moved_since=0).move_back(reason="undo") == 1
    assert where(moved)["far"] == "east"


@on_valkey
def test_move_back_leaves_a_session_that_another_process_moves_at_the_same_time(moved, monkeypatch):
    other, store = SessionManager(), moved._store.operators
    send, left = store.send, [1]

    def send_after(request):
        scripts = {getattr(each, "script", None) for each in getattr(request, "commands", ())}
        if left[0] and REPLACE in scripts:
            left[0] = 0
            move(other, "away", "west", "by hand")
        return send(request)

    monkeypatch.setattr(store, "send", send_after)
    assert moved.filter(moved_from="north").move_back(reason="undo") == 1
    assert where(moved)["away"] == "west"


@pytest.mark.parametrize(
    ("to", "message"), [(Move(None, "m", "r"), "takes no model"), (Move(None, None, " "), "reason")]
)
def test_move_back_refuses_a_model_and_a_blank_reason(to, message):
    with pytest.raises(InvalidSession, match=message):
        to.check()


def test_rebind_refuses_a_target_that_is_none():
    with pytest.raises(InvalidSession, match="to_provider"):
        SessionManager().filter(provider="a").rebind(to_provider=None, reason="r")


@on_valkey
def test_rebind_moves_the_coldest_sessions_first(manager, raw, monkeypatch):
    monkeypatch.setattr(index_reader, "BATCH_SIZE", 1)
    for n in range(6):
        manager.create(f"conv-{n}", "north", "m", "ann")
        if n % 2:
            raw.expire(keys.session(f"conv-{n}"), manager.ttl_seconds - 1_000)
    order: list[str] = []

    def stop(done: int, expected: int) -> None:
        order[:] = [name for name, provider in where(manager).items() if provider == "south"]
        if len(order) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        manager.filter(provider="north").rebind(to_provider="south", reason="drain", progress=stop)
    assert sorted(order) == ["conv-1", "conv-3", "conv-5"]
    assert manager.filter(provider="north").rebind(to_provider="south", reason="drain") == 3


def test_conditions_return_only_the_fields_that_are_set():
    assert Filters("a", idle_for=5.0, operation="x").conditions == {"idle_for": 5.0, "operation": "x"}
    narrowed = Filters(moved_from="a").narrowed({"idle_for": timedelta(minutes=1)})
    assert narrowed == Filters(moved_from="a", idle_for=60)
