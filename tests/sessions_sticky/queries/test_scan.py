"""Scans of the index while sessions are created, used, moved and deleted: hypothesis looks for one that is missed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from random import Random
from threading import Event

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sessions_sticky import SessionConflict, SessionManager, keys
from sessions_sticky.queries import index_reader
from tests.conftest import begin_empty
from tests.sessions_sticky.calls import method_of
from tests.sessions_sticky.indexed import fill, forget_refreshes, on_real

SESSIONS = 10
PLACES = st.integers(0, SESSIONS - 1)
STEPS = st.lists(
    st.one_of(
        st.just(("scan",)),
        st.tuples(st.sampled_from(["touch", "touch briefly", "resolve", "delete", "recreate", "move away"]), PLACES),
        st.tuples(st.just("create"), st.integers(0, 4)),
        st.just(("other scan",)),
    ),
    max_size=25,
)
FILTERS = st.sampled_from([{}, {"provider": "p"}, {"provider": "p", "external_id": "o"}, {"external_id": "o"}])


class World:
    """Ten sessions of provider p and owner o, a scan of them, and changes between its batches."""

    def __init__(self, manager: SessionManager, raw, filters: dict[str, str]) -> None:
        begin_empty(raw)
        self.manager, self.brief, self.met = manager, SessionManager(ttl_seconds=3_600), []
        self.lived = {f"s{n}" for n in range(SESSIONS)}
        for n in range(SESSIONS):
            manager.create(f"s{n}", "p", "mno"[n % 3], "o")
        self.scan = method_of(manager, "scan")(**filters)

    def happen(self, what: str, place: int = 0) -> None:
        manager, conversation_id = self.manager, f"s{place}"
        forget_refreshes(manager)
        if what == "scan":
            self.met += [entry.session.id for entry in islice(self.scan, 2)]
        elif what == "touch":
            manager.touch(conversation_id)
        elif what == "touch briefly":
            self.brief.touch(conversation_id)
        elif what == "resolve":
            if conversation_id in self.lived:
                manager.resolve(conversation_id, provider="p", model="m", owner="o")
        elif what == "delete":
            manager.delete(conversation_id)
            self.lived.discard(conversation_id)
        elif what == "recreate":
            manager.delete(conversation_id)
            manager.create(conversation_id, "p", "m", "o")
            self.lived.discard(conversation_id)
        elif what == "move away":
            if session := manager.get(conversation_id):
                manager.rebind(session, provider="q", model="m", reason="a test")
                self.lived.discard(conversation_id)
        elif what == "create":
            manager.create(f"new-{place}", "p", "m", "o", replace=True)
        elif what == "other scan":
            next(iter(manager.all()), None)

    def finish(self) -> None:
        self.met += [entry.session.id for entry in self.scan]
        assert len(self.met) == len(set(self.met))
        assert self.lived <= set(self.met)


SEARCHES = [("valkey", 40), pytest.param("valkey", 500, marks=pytest.mark.slow), ("redis", 200), ("cluster", 200)]
"""The search is long on one store; the commands of the others are the same."""


@pytest.mark.parametrize(("store_name", "examples"), SEARCHES, indirect=["store_name"])
def test_scan_yields_each_session_that_exists_throughout_once(manager, raw, examples, monkeypatch):
    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(steps=STEPS, filters=FILTERS, size=st.sampled_from([1, 3, 500]))
    def run(steps, filters, size):
        monkeypatch.setattr(index_reader, "BATCH_SIZE", size)
        world = World(manager, raw, filters)
        for step in [("scan",), *steps]:
            world.happen(*step)
        world.finish()

    run()


@on_real
@pytest.mark.parametrize("scans", [3, pytest.param(40, marks=pytest.mark.slow)])
@pytest.mark.parametrize("filters", [{}, {"external_id": "o1"}])
def test_scan_yields_each_session_once_while_threads_change_them(manager, scans, filters, monkeypatch):
    """More sessions than Redis keeps in one listpack, so that its hash tables are scanned in steps."""
    monkeypatch.setattr(index_reader, "BATCH_SIZE", 20)
    kept = [manager.create(f"kept-{n}", "p", f"m{n % 4}", f"o{n % 2}").id for n in range(300)]
    expected = [conversation_id for n, conversation_id in enumerate(kept) if not filters or n % 2]
    over = Event()

    def work(seed):
        random, mine = Random(seed), SessionManager()
        while not over.is_set():
            n = random.randrange(len(kept))
            what = random.randrange(4)
            if what == 0:
                forget_refreshes(mine)
                mine.touch(kept[n])
            elif what == 1 and (session := mine.get(kept[n])):
                with suppress(SessionConflict):
                    mine.rebind(session, provider="p", model=f"m{random.randrange(6)}", reason="a test")
            elif what == 2:
                mine.create(f"passing-{n}", "p", "m1", f"o{n % 2}", replace=True)
            else:
                mine.delete(f"passing-{n}")

    with ThreadPoolExecutor(3) as pool:
        workers = [pool.submit(work, seed) for seed in range(3)]
        try:
            for _ in range(scans):
                met = [entry.session.id for entry in method_of(manager, "scan")(**filters)]
                assert sorted(each for each in met if each.startswith("kept")) == sorted(expected)
        finally:
            over.set()
        for worker in workers:
            worker.result()


@on_real
def test_rebind_all_moves_a_session_that_changed_its_route_during_a_pass(manager, monkeypatch):
    """It moves from a route that is not scanned yet to one that is: the next pass finds it."""
    monkeypatch.setattr(index_reader, "BATCH_SIZE", 1)
    made = [manager.create(f"conv-{n}", "openai", f"model-{n}", "user-1") for n in range(6)]

    def shuffle(done, expected):
        for session in made:
            if (current := manager.get(session.id)) and current.provider == "openai":
                with suppress(SessionConflict):
                    manager.rebind(current, provider="openai", model=f"model-{9 * (done % 2)}", reason="a test")

    assert manager.filter(provider="openai").rebind(to_provider="mistral", reason="drain", progress=shuffle) == 6
    assert {manager.get(session.id).provider for session in made} == {"mistral"}


@on_real
def test_scan_yields_nothing_when_there_is_no_session(manager):
    assert list(manager.all()) == list(manager.filter(provider="openai", owner="missing")) == []
    fill(manager, 1)
    assert [entry.session.id for entry in manager.filter(provider="openai", owner="user-456")] == ["conv-0"]


@on_real
def test_scan_yields_a_session_once_when_it_has_an_entry_in_a_wrong_place(manager, raw):
    fill(manager, 2)
    raw.zadd(keys.index_routes(), {keys.route_name("openai", "gpt-5"): 4e9})
    raw.zadd(keys.route("openai", "gpt-5"), {"conv-0": 4e9})
    assert sorted(entry.session.id for entry in manager.filter(provider="openai")) == ["conv-0", "conv-1"]
    assert not raw.exists(keys.route("openai", "gpt-5"))
