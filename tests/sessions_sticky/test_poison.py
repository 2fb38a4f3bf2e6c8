"""Invalid values never break a chat and never count as a session."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from django.core.cache import caches

from sessions_sticky import Outcome, SessionConflict
from tests.conftest import PORTABLE_STORES, SHARDED_STORES
from tests.sessions_sticky.calls import MOVE, PROPOSAL, sample
from tests.sessions_sticky.marks import on_redis
from tests.sessions_sticky.test_session import UNREADABLE

KEY = "sentinel:session:conv-123"
on_valkey = pytest.mark.parametrize("store_name", ["valkey"], indirect=True)
POISON = {
    **{name: lambda raw, value=value: raw.set(KEY, value) for name, value in UNREADABLE.items()},
    "another id": lambda raw: raw.set(KEY, sample("conv-124").to_json()),
    "pickled session": lambda raw: raw.set(KEY, pickle.dumps(sample())),
    "list": lambda raw: raw.rpush(KEY, sample().to_json()),
    "hash": lambda raw: raw.hset(KEY, "id", "conv-123"),
    "sorted set": lambda raw: raw.zadd(KEY, {"conv-123": 1}),
    "stream": lambda raw: raw.xadd(KEY, {"id": "conv-123"}),
}
SOME = ("empty", "digits", "megabyte", "another id", "list")


def errors(caplog):
    return [record for record in caplog.records if record.levelname == "ERROR"]


@on_valkey
@pytest.mark.parametrize("poison", POISON)
def test_reading_gives_none_and_logs_an_error_when_the_value_is_unreadable(call, raw, caplog, poison):
    POISON[poison](raw)
    before = raw.type(KEY), raw.dump(KEY)
    assert call("get", "conv-123") is None
    (record,) = errors(caplog)
    assert (record.name, record.conversation_id) == ("sessions_sticky", "conv-123")
    assert len(record.getMessage()) < 500
    assert call("inspect", "conv-123") is None
    assert (raw.type(KEY), raw.dump(KEY)) == before


@on_valkey
@pytest.mark.parametrize("poison", POISON)
def test_resolve_puts_a_session_in_its_place_when_the_value_is_unreadable(call, raw, poison):
    POISON[poison](raw)
    session, outcome = call("resolve", "conv-123", **PROPOSAL)
    assert outcome is Outcome.CREATED
    assert raw.get(KEY) == session.to_json()
    assert 0 < raw.pttl(KEY) <= 86_400_000
    assert call("resolve", "conv-123", **PROPOSAL) == (session, Outcome.HIT)


@on_redis
@pytest.mark.parametrize("poison", SOME)
def test_every_method_has_an_answer_when_the_value_is_unreadable(call, raw, poison):
    POISON[poison](raw)
    assert call("get", "conv-123") is None
    with pytest.raises(SessionConflict) as caught:
        call("rebind", sample(), **MOVE)
    assert caught.value.current is None
    assert call("touch", "conv-123") is False
    assert call("delete", "conv-123") is True
    POISON[poison](raw)
    session, outcome = call("resolve", "conv-123", **PROPOSAL)
    assert (outcome, raw.get(KEY)) == (Outcome.CREATED, session.to_json())
    raw.delete(KEY)
    POISON[poison](raw)
    assert call("create", "conv-123", **PROPOSAL) == call("get", "conv-123")


@pytest.mark.parametrize("store_name", SHARDED_STORES, indirect=True)
@pytest.mark.parametrize("poison", SOME)
def test_resolve_gives_all_racers_one_session_when_they_heal_a_value_together(manager, raw, poison):
    racers = 8
    barrier = Barrier(racers)

    def race(provider):
        barrier.wait()
        return manager.resolve("conv-123", provider=provider, model="m", owner="o")

    with ThreadPoolExecutor(racers) as pool:
        for _ in range(5):
            raw.delete(KEY)
            POISON[poison](raw)
            answers = list(pool.map(race, [f"p{n}" for n in range(racers)]))
            assert [outcome for _, outcome in answers].count(Outcome.CREATED) == 1
            assert {session for session, _ in answers} == {manager.get("conv-123")}


@pytest.mark.parametrize("store_name", PORTABLE_STORES, indirect=True)
@pytest.mark.parametrize(
    "value",
    [
        *(7, "text", b"", b"{}", [], {"id": "conv-123"}, sample("conv-124").to_json(), ["conv-123"], 1.5, True),
        float("nan"),  # equals nothing
    ],
)
def test_session_is_healed_when_a_portable_cache_holds_something_else(call, caplog, value):
    caches["default"].set(KEY, value)
    assert call("get", "conv-123") is None
    assert len(errors(caplog)) == 1
    session, outcome = call("resolve", "conv-123", **PROPOSAL)
    assert outcome is Outcome.CREATED
    assert call("get", "conv-123") == session


@pytest.mark.parametrize("store_name", PORTABLE_STORES, indirect=True)
def test_session_of_the_first_stays_when_two_have_found_the_value_unreadable(manager):
    store, first = manager._store, sample(provider="first")
    caches["default"].set(KEY, b"{}")
    for proposal, found in ((first, None), (sample(provider="second"), first.to_json())):
        assert store.send(store.bind(proposal, b"{}", 60, reason="", actor="gateway")) == found
    assert manager.get("conv-123") == first
