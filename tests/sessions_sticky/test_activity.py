"""The activity of the last minutes: turns and moves between providers."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest
from prometheus_client import generate_latest

from sessions_sticky import Attempt, MinuteTurns, SessionNotSupported, SessionStoreUnavailable, Turn, keys
from sessions_sticky.queries import bulk
from sessions_sticky.stores import usage
from tests.conftest import REDIS_STORES
from tests.sessions_sticky.calls import PROPOSAL
from tests.sessions_sticky.marks import on_portable, on_redis


def turn(outcome: str, provider: str, **fields) -> Turn:
    defaults = {"conversation_id": None, "at": 1, "model": "m", "bound_provider": "north"}
    return Turn(outcome=outcome, provider=provider, **{**defaults, **fields})


def test_activity_has_the_turns_by_outcome_and_provider(call, manager, store_name):
    if store_name not in REDIS_STORES:
        pytest.skip("sums need Redis")
    failed = (Attempt("north", 503),)
    for each in (turn("hit", "north"), turn("spilled", "south", attempts=failed), turn("spilled", "south")):
        call("record_turn", each)
    found = call("activity")
    sums: dict[tuple[str, str, str], int] = {}
    for each in found.turns:
        assert isinstance(each, MinuteTurns)
        assert 0 <= (datetime.now(UTC) - each.began_at).total_seconds() < 180
        sums[each[1:4]] = sums.get(each[1:4], 0) + each.turns
    assert sums == {("hit", "north", "north"): 1, ("spilled", "north", "south"): 2, ("failed", "north", "north"): 1}
    assert found.moves == []


@on_redis
def test_activity_has_moves_of_the_gateway_and_of_operators(call, manager):
    call("record_turn", turn("rebound", "south", reason="prompt cache expired"))
    bound = manager.create("conv-1", **PROPOSAL)
    manager.create("conv-2", **{**PROPOSAL, "provider": "azure"})
    operator = manager.acting_as("ann")
    operator.rebind(bound, provider="mistral", model="large", reason="a test")
    operator.all().rebind(to_provider="south", reason="drain")
    moves = sorted(each[1:] for each in call("activity").moves)
    assert moves == [
        ("a test", "operator", "openai", "mistral", 1),
        ("drain", "operator", "azure", "south", 1),
        ("drain", "operator", "mistral", "south", 1),
        ("prompt cache expired", "gateway", "north", "south", 1),
    ]


@on_redis
def test_activity_omits_older_minutes_and_invalid_fields(manager, raw):
    minute = int(time.time()) // 60
    fields = {
        f'["{minute - 4}","turns","hit","a","a"]': 5,
        f'["{minute - 6}","turns","hit","a","a"]': 7,
        f'["{minute}","turns","hit"]': 1,
        f'["{minute}","others","hit","a","a"]': 1,
        '["x","turns","hit","a","a"]': 1,
        f'["{"9" * 30}","turns","hit","a","a"]': 1,
        "[]": 1,
        "text": 1,
    }
    raw.hset(keys.usage("activity", minute // 60), mapping=fields)
    (found,) = manager.activity(6).turns  # of 6 minutes, should one begin now
    assert (found.outcome, found.turns) == ("hit", 5)
    assert manager.activity(6).moves == []


@pytest.mark.parametrize("minutes", [0, 1_441, True, "60"])
def test_activity_refuses_other_times(manager, minutes):
    with pytest.raises(ValueError, match="must be a whole number from 1 to 1440"):
        manager.activity(minutes)


@on_portable
@pytest.mark.parametrize("method", ["activity", "export_gauges"])
def test_activity_and_gauges_are_refused_when_the_cache_is_portable(manager, method):
    with pytest.raises(SessionNotSupported):
        getattr(manager, method)()


@on_portable
def test_operator_moves_nothing_when_the_cache_cannot_replace(manager):
    bound = manager.create("conv-1", **PROPOSAL)
    with pytest.raises(SessionNotSupported):
        manager.acting_as("ann").rebind(bound, provider="mistral", model="large", reason="a test")


@on_redis
def test_move_is_done_when_it_cannot_be_counted(manager, monkeypatch, caplog):
    def refuse(*args):
        raise SessionStoreUnavailable("gone in between")

    bound = manager.create("conv-1", **PROPOSAL)
    monkeypatch.setattr(usage, "add_commands", refuse)
    monkeypatch.setattr(bulk, "add_commands", refuse)
    moved = manager.acting_as("ann").rebind(bound, provider="mistral", model="large", reason="a test")
    assert manager.get("conv-1") == moved
    assert "move not counted: gone in between" in caplog.text
    assert manager.all().rebind(to_provider="south", reason="drain") == 1
    assert "moves not counted: gone in between" in caplog.text


@on_redis
def test_gauges_have_sessions_by_provider_and_memory(call, manager, raw, settings):
    settings.SESSIONS_STICKY = {"METRICS": True}
    manager.create("conv-1", **PROPOSAL)
    manager.create("conv-2", **{**PROPOSAL, "provider": "gauged"})
    call("export_gauges")
    exported = generate_latest().decode()
    assert 'sessions_sticky_sessions{provider="gauged"} 1.0' in exported
    assert 'sessions_sticky_sessions{provider="openai"} 1.0' in exported
    assert "sessions_sticky_store_memory_ratio 0.0" in exported
    manager.delete("conv-2")
    call("export_gauges")
    assert 'sessions_sticky_sessions{provider="gauged"} 0.0' in generate_latest().decode()


@on_redis
def test_gauges_are_not_set_when_metrics_are_off(manager, settings):
    settings.SESSIONS_STICKY = {"METRICS": False}
    manager.create("conv-1", **{**PROPOSAL, "provider": "unexported"})
    manager.export_gauges()
    assert "unexported" not in generate_latest().decode()
