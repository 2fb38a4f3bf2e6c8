"""Counts and statistics: after every change of the manager and after expiry."""

from __future__ import annotations

import time
from collections import Counter

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from sessions_sticky import Session, SessionConflict, SessionManager, keys
from sessions_sticky.queries.index_reader import IndexReader, Row
from sessions_sticky.stores import index
from tests.conftest import begin_empty
from tests.sessions_sticky.calls import PROPOSAL, method_of, sample
from tests.sessions_sticky.indexed import (
    check,
    entries,
    fill,
    forget_refreshes,
    index_keys,
    on_real,
)
from tests.sessions_sticky.marks import on_redis
from tests.waiting import wait_until


@on_redis
def test_stats_return_sessions_and_creations_of_each_route(call, manager):
    fill(manager, 3)
    fill(manager, 2, provider="mistral", model='m:"1"')
    manager.create("conv-9", "openai", "gpt-5", "user-456")
    manager.rebind(manager.get("conv-9"), provider="xai", model="grok", reason="a test")
    manager.delete("conv-2")
    stats = call("stats")
    assert stats.sessions == 3
    assert [tuple(row) for row in stats.routes] == [
        ("mistral", 'm:"1"', 2, 2, 2),
        ("openai", "gpt-4", 0, 3, 3),
        ("openai", "gpt-5", 0, 1, 1),
        ("xai", "grok", 1, 0, 0),
    ]


@on_real
def test_stats_forget_creations_when_an_hour_or_a_day_has_passed(call, manager, raw):
    now = int(time.time())
    for age, number in ((0, 1), (59 * 60, 10), (61 * 60, 100), (22 * 3600, 1000), (25 * 3600, 10_000)):
        for period, seconds in (("minute", 60), ("hour", 3600)):
            raw.hincrby(keys.created(period, (now - age) // seconds), keys.route_name("openai", "gpt-4"), number)
    ((*_, in_hour, in_day),) = call("stats").routes
    assert (in_hour, in_day) == (11, 1111)
    raw.hset(keys.created("minute", now // 60), mapping={"junk": 5, "[1]": 7})
    raw.hset(keys.created("hour", now // 3600), keys.route_name("openai", "gpt-4"), "many")
    ((*_, in_hour, in_day),) = call("stats").routes
    assert in_hour == 11
    assert in_day in (1100, 1110)  # as many as are not in this hour


@on_real
def test_creation_counters_expire(manager, raw):
    fill(manager, 1)
    counters = {key: raw.ttl(key) for key in raw.scan_iter("sentinel:created:*")}
    assert sorted(ttl // 3600 for ttl in counters.values()) in ([1, 25], [2, 26])


@pytest.mark.slow
@on_real
def test_count_is_right_when_a_session_was_read_in_its_last_millisecond(manager):
    session = SessionManager(ttl_seconds=1).create("brief", **PROPOSAL)
    reader = IndexReader(manager._store, manager.ttl_seconds)
    manager._store.send(reader.refresh(Row(session, session.to_json(), left_ms=0)))
    wait_until(lambda: manager.all().count() == 0, seconds=10)


@pytest.mark.slow
@on_real
def test_count_is_right_when_sessions_expired_without_a_process(manager, raw):
    """Without `reindex`, and though their entries are still there."""
    fill(manager, 3)
    now = time.time()
    pipeline = raw.pipeline(transaction=False)
    for key in entries(raw):
        if key != keys.index_routes():
            pipeline.zadd(key, {f"gone-{n}": now - n / 500 for n in range(10_000)})
    pipeline.zadd(keys.index_routes(), {keys.route_name("gone", "gone"): now - 1})
    pipeline.execute()
    assert (
        manager.all().count()
        == manager.filter(provider="openai").count()
        == manager.filter(owner="user-456").count()
        == 3
    )
    stats = manager.stats()
    assert (stats.sessions, [row.sessions for row in stats.routes]) == (3, [3])


@pytest.mark.slow
@on_real
def test_count_is_right_when_sessions_expire(manager, raw):
    brief = SessionManager(ttl_seconds=1)
    for number in range(20):
        brief.create(f"brief-{number}", **PROPOSAL)
    fill(manager, 2)
    assert manager.all().count() == 22
    wait_until(lambda: manager.all().count() == 2)  # entries may last a little longer than their sessions
    assert not raw.exists(keys.session("brief-19"))
    wait_until(lambda: manager.filter(provider="openai").count() == manager.stats().sessions == 2)
    assert len(entries(raw)[keys.index_all()]) == 2


@on_real
def test_count_is_right_when_many_sessions_are_used_but_their_entries_are_overdue(call, raw, manager, monkeypatch):
    """With an idle time below a minute all entries may lag behind so far."""
    monkeypatch.setattr(index, "MAX_DUE", 10)
    fill(manager, 35)
    for key in entries(raw):
        if key != keys.index_routes():
            raw.zadd(key, {f"conv-{n}": time.time() - n for n in range(0, 35)})
    raw.delete(keys.session("conv-3"))
    assert call("count", provider="openai") == 34
    assert call("count") == call("count", external_id="user-456") == call("stats").sessions == 34


@on_real
def test_count_and_page_include_a_session_until_its_entry_is_refreshed(manager, raw, monkeypatch):
    monkeypatch.setattr(index, "LAG_SECONDS", 60)
    fill(manager, 1)
    for key in entries(raw):
        for member in raw.zrange(key, 0, -1):
            raw.zadd(key, {member: time.time() - 59})
    manager.create("other", **PROPOSAL)  # trims what is surely dead
    assert manager.all().count() == 2
    assert len(manager.all().page().entries) == 2


@on_real
def test_index_drops_what_is_surely_dead_when_another_entry_comes(manager, raw):
    fill(manager, 1)
    for key in entries(raw):
        raw.zadd(key, {f"gone-{n}": time.time() - 61 for n in range(50)})
    manager.create("other", **PROPOSAL)
    check(raw, [manager.get("conv-0"), manager.get("other")])


@on_real
def test_route_stays_listed_as_long_as_any_of_its_sessions(call, manager, raw):
    """Though the last to be entered there expires long before the others."""
    session = SessionManager(ttl_seconds=100).create("brief", "mistral", "large", "user-456")
    fill(manager, 1)
    call("rebind", session, provider="openai", model="gpt-4", reason="a test")
    SessionManager(ttl_seconds=100).create("brief-2", **PROPOSAL)
    score = raw.zscore(keys.index_routes(), keys.route_name("openai", "gpt-4"))
    assert score >= raw.zscore(keys.index_all(), "conv-0")


# The model: what a plain dictionary of sessions says, after any sequence of operations.

NAMES = st.sampled_from(["a", 'b:"{}', "\U0001f600"])
IDS = st.sampled_from(["one", "two:{}", "*", "\U0001f600", "ab"])


class Counts(RuleBasedStateMachine):
    raw = None

    @initialize()
    def begin(self) -> None:
        from django.core.cache import cache

        self.raw = cache.client.get_client()
        begin_empty(self.raw)
        self.managers = [SessionManager(), SessionManager(ttl_seconds=3_600)]
        self.model: dict[str, Session] = {}
        self.created: Counter[tuple[str, str]] = Counter()
        self.minute = time.time() // 60

    def teardown(self) -> None:
        if self.raw is not None:
            self.raw.flushdb()

    @rule(id=IDS, provider=NAMES, model=NAMES, owner=NAMES, which=st.sampled_from([0, 1]))
    def create(self, id, provider, model, owner, which):
        self.model[id] = self.managers[which].create(id, provider, model, owner, replace=True)
        self.created[provider, model] += 1

    @rule(id=IDS, provider=NAMES, model=NAMES, which=st.sampled_from([0, 1]))
    def resolve(self, id, provider, model, which):
        owner = self.model[id].external_id if id in self.model else "a"
        session, outcome = self.managers[which].resolve(id, provider=provider, model=model, owner=owner)
        assert (outcome == "hit") == (id in self.model)
        if id not in self.model:
            self.created[provider, model] += 1
        self.model[id] = session

    @rule(id=IDS, which=st.sampled_from([0, 1]))
    def touch(self, id, which):
        forget_refreshes(self.managers[0])
        assert self.managers[which].touch(id) == (id in self.model)

    @rule(id=IDS, provider=NAMES, model=NAMES)
    def rebind(self, id, provider, model):
        known = self.model.get(id, sample(id))
        try:
            self.model[id] = self.managers[0].rebind(known, provider=provider, model=model, reason="a test")
        except SessionConflict:
            assert id not in self.model

    @rule(id=IDS)
    def delete(self, id):
        assert self.managers[0].delete(id) == (self.model.pop(id, None) is not None)

    @rule(id=IDS)
    def expire(self, id):
        """As after an idle time: the key is gone, its entries are due."""
        if session := self.model.pop(id, None):
            self.raw.delete(keys.session(id))
            self.managers[0]._store.last_seen.forget(id)
            for place in (
                keys.index_all(),
                keys.owner(session.external_id),
                keys.route(session.provider, session.model),
            ):
                self.raw.zadd(place, {id: time.time() - 1})

    @rule(provider=NAMES, to=NAMES, model=st.none() | NAMES)
    def rebind_all(self, provider, to, model):
        moved = 0
        for id, session in self.model.items():
            target = Session(id, to, model or session.model, session.external_id, session.created_at)
            if session.provider == provider and target != session:
                self.model[id] = target
                moved += 1
        assert (
            self.managers[0].filter(provider=provider).rebind(to_provider=to, to_model=model, reason="a test") == moved
        )

    @rule(owner=NAMES)
    def delete_all(self, owner):
        gone = [id for id, session in self.model.items() if session.external_id == owner]
        assert self.managers[0].filter(owner=owner).delete() == len(gone)
        for id in gone:
            del self.model[id]

    @rule()
    def reindex(self):
        assert self.managers[0].reindex() == len(self.model)

    @invariant()
    def counts_are_those_of_the_model(self):
        if self.raw is None:
            return
        manager = self.managers[0]
        routes = Counter((session.provider, session.model) for session in self.model.values())
        stats = manager.stats()
        assert stats.sessions == manager.all().count() == len(self.model)
        by_route = {(row.provider, row.model): row for row in stats.routes}
        assert {route: row.sessions for route, row in by_route.items() if row.sessions} == dict(routes)
        if time.time() // 60 < self.minute + 50:
            assert {route: row.created_last_hour for route, row in by_route.items() if row.created_last_hour} == dict(
                self.created
            )
        for name, value in (("provider", "a"), ("model", "a"), ("external_id", "a")):
            meant = [session for session in self.model.values() if getattr(session, name) == value]
            assert method_of(manager, "count")(**{name: value}) == len(meant)
            assert {entry.session for entry in method_of(manager, "page")(**{name: value}).entries} == set(meant)
        both = {"provider": "a", "external_id": "a"}
        assert method_of(manager, "count")(**both) == sum(
            s.provider == "a" and s.external_id == "a" for s in self.model.values()
        )
        for key in index_keys(self.raw):
            assert 0 < self.raw.pttl(key) <= (86_400 + 2 * 60) * 1000


SEARCHES = [("valkey", 5), pytest.param("valkey", 150, marks=pytest.mark.slow), ("redis", 25), ("cluster", 25)]
"""The search is long on one store; the scripts of the others are the same."""


@pytest.mark.parametrize(("store_name", "examples"), SEARCHES, indirect=["store_name"])
def test_counts_are_right_after_any_sequence_of_operations(manager, examples):
    run_state_machine_as_test(
        Counts,
        settings=settings(
            max_examples=examples,
            stateful_step_count=20,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
