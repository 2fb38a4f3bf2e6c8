"""Experiment 2: a delete races what others do with the session, in every order in which requests can meet."""

from __future__ import annotations

import pytest

from sessions_sticky import Outcome, Session, SessionConflict
from sessions_sticky.stores.redis import RedisStore
from tests.conftest import REAL_STORES
from tests.faults.truth import check_chain, check_sound
from tests.faults.turns import Caller, every_order, process, take_turns

on_real = pytest.mark.parametrize("store_name", REAL_STORES, indirect=True)
BOUND = {"provider": "openai", "model": "gpt-4", "owner": "user-456"}
OTHER = {"provider": "anthropic", "model": "claude", "owner": "user-456"}
MOVE = {"provider": "mistral", "model": "large", "reason": "race"}
MOVE_ALL = {"to_provider": "mistral", "provider": "openai", "reason": "race"}

OTHERS = {
    "touch": lambda session: ("touch", [session.id], {}),
    "resolve": lambda session: ("resolve", [session.id], OTHER),
    "rebind": lambda session: ("rebind", [session], MOVE),
    "create": lambda session: ("create", [session.id], {**OTHER, "replace": True}),
    "delete": lambda session: ("delete", [session.id], {}),
    "page": lambda session: ("page", [], {}),
    "rebind_all": lambda session: ("rebind_all", [], MOVE_ALL),
    "delete_all": lambda session: ("delete_all", [], {}),
    "reindex": lambda session: ("reindex", [], {}),
}
"""What may meet a delete. The proposals differ from the session, so that one that comes back is recognised."""
BINDS = ("resolve", "create")
CROWD = ("touch", "resolve", "rebind")


@pytest.fixture(autouse=True)
def shared_connections(monkeypatch):
    """Let the managers of all orders, of which each stands for a process, use the same connections: they take turns."""
    connect, servers = RedisStore._connect, {}

    def connect_once(store, reply_seconds):
        if reply_seconds not in servers:
            servers[reply_seconds] = connect(store, reply_seconds)
        return servers[reply_seconds]

    monkeypatch.setattr(RedisStore, "_connect", connect_once)


class Race:
    """A delete and some other calls, each in its own process that has seen the session, or has not."""

    def __init__(self, raw, others: tuple[str, ...], *, seen: bool) -> None:
        self.raw, self.others, self.seen = raw, others, seen
        self.requests = 0

    def run(self, choose) -> None:
        self.raw.flushdb()
        session = process().create("conv-1", **BOUND)
        managers = [process() for _ in self.others]
        for manager in managers if self.seen else []:
            manager.resolve("conv-1", **BOUND)
        calls = [OTHERS[name](session) for name in self.others]
        callers = [Caller(m, name, *args, **kwargs) for m, (name, args, kwargs) in zip(managers, calls, strict=True)]
        delete = Caller(process(), "delete", "conv-1")
        self.requests += take_turns([delete, *callers], choose)
        self.check(session, delete.result, dict(zip(self.others, (c.result for c in callers), strict=True)))

    def check(self, session: Session, deleted: object, results: dict[str, object]) -> None:
        manager = process()
        left = manager.get("conv-1")
        if left is not None:
            assert left != session, "the deleted session came back"
            assert set(BINDS) & {*self.others}, "bound without a binding call"
            assert left.provider in ("anthropic", "mistral")
        check_sound(manager, self.raw)
        end = check_chain(manager.history("conv-1"))
        assert end == (left and (left.provider, left.model))
        assert deleted is True or "delete" in results or "delete_all" in results
        self.check_results(session, results)

    @staticmethod
    def check_results(session: Session, results: dict[str, object]) -> None:
        for name, result in results.items():
            if name == "resolve":
                assert result.outcome is (Outcome.HIT if result.session == session else result.outcome)
                assert result.outcome in (Outcome.HIT, Outcome.CREATED)
            elif name == "rebind":
                assert isinstance(result, (Session, SessionConflict))
            else:
                assert not isinstance(result, Exception), result


@on_real
@pytest.mark.parametrize("seen", [False, True], ids=["unseen", "seen"])
def test_session_stays_deleted_in_every_order_when_a_call_races_a_delete(manager, raw, store_name, experiment, seen):
    orders = requests = 0
    for name in OTHERS:
        race = Race(raw, (name,), seen=seen)
        orders += every_order(race.run)
        requests += race.requests
    report(experiment, store_name, seen, " or ".join(OTHERS), orders, requests)


@on_real
@pytest.mark.parametrize("seen", [False, True], ids=["unseen", "seen"])
def test_session_stays_deleted_in_every_order_when_many_calls_race_a_delete(manager, raw, store_name, experiment, seen):
    race = Race(raw, CROWD, seen=seen)
    orders = every_order(race.run)
    report(experiment, store_name, seen, " and ".join(CROWD), orders, race.requests)


def report(experiment, store_name: str, seen: bool, what: str, orders: int, requests: int) -> None:
    processes = "processes that remember the session" if seen else "processes that have never seen the session"
    experiment(
        2,
        f"Delete against {what}",
        setup=f"one {store_name}, {processes}",
        fault="a barrier before each request: every order in which the requests can reach the store",
        figures={
            "orders": f"{orders}",
            "requests": f"{requests}",
            "deleted sessions that came back, whole or half": "0",
        },
    )
