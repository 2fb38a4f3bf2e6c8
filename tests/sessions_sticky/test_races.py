from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from threading import Barrier

import pytest

from sessions_sticky import Outcome, SessionConflict
from tests.conftest import SHARDED_STORES
from tests.sessions_sticky.calls import MOVE, PROPOSAL

RACERS = 8
on_real = pytest.mark.parametrize("store_name", SHARDED_STORES, indirect=True)
not_on_database = pytest.mark.parametrize("store_name", ["locmem", *SHARDED_STORES], indirect=True)


@pytest.fixture
def together():
    """Run calls at the same time, each in a thread; return what each returned or raised."""

    def run(calls):
        barrier = Barrier(len(calls))

        def start(call):
            barrier.wait()
            try:
                return call()
            except SessionConflict as conflict:
                return conflict

        return list(pool.map(start, calls))

    with ThreadPoolExecutor(RACERS) as pool:
        yield run


@not_on_database
def test_resolve_gives_all_racers_one_session_when_threads_race(manager, together):
    for number in range(30):
        proposals = [{"provider": f"p{n}", "model": "m", "owner": "o"} for n in range(RACERS)]
        answers = together([partial(manager.resolve, f"race-{number}", **each) for each in proposals])
        assert [outcome for _, outcome in answers].count(Outcome.CREATED) == 1
        assert {session for session, _ in answers} == {manager.get(f"race-{number}")}


@not_on_database
@pytest.mark.slow
async def test_aresolve_gives_all_racers_one_session_when_tasks_race(manager):
    for number in range(3):
        proposals = [{"provider": f"p{n}", "model": "m", "owner": "o"} for n in range(50)]
        answers = await asyncio.gather(*(manager.aresolve(f"race-{number}", **each) for each in proposals))
        assert [outcome for _, outcome in answers].count(Outcome.CREATED) == 1
        assert {session for session, _ in answers} == {await manager.aget(f"race-{number}")}


@on_real
def test_rebind_lets_one_win_and_raises_for_the_others_when_threads_race(manager, together):
    for _ in range(30):
        session = manager.create("conv-123", **PROPOSAL, replace=True)
        moves = [{**MOVE, "provider": f"p{n}"} for n in range(RACERS)]
        answers = together([partial(manager.rebind, session, **move) for move in moves])
        conflicts = [answer for answer in answers if isinstance(answer, SessionConflict)]
        (winner,) = [answer for answer in answers if not isinstance(answer, SessionConflict)]
        assert len(conflicts) == RACERS - 1
        assert {conflict.current for conflict in conflicts} == {winner} == {manager.get("conv-123")}


@on_real
async def test_arebind_lets_one_win_and_raises_for_the_others_when_tasks_race(manager):
    session = await manager.acreate("conv-123", **PROPOSAL)
    calls = [manager.arebind(session, **{**MOVE, "provider": f"p{n}"}) for n in range(50)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    (winner,) = [answer for answer in answers if not isinstance(answer, SessionConflict)]
    assert {answer.current for answer in answers if answer is not winner} == {winner}


@not_on_database
def test_session_stays_deleted_when_delete_races_touch(manager, together):
    for _ in range(30):
        manager.create("conv-123", **PROPOSAL)
        together([partial(manager.delete, "conv-123"), *[partial(manager.touch, "conv-123")] * (RACERS - 1)])
        assert manager.get("conv-123") is None


@on_real
def test_session_stays_deleted_when_delete_races_rebind(manager, together):
    def rebind_again_and_again(session):
        with suppress(SessionConflict):
            while True:
                session = manager.rebind(session, **MOVE)

    for _ in range(30):
        session = manager.create("conv-123", **PROPOSAL, replace=True)
        rebinders = [partial(rebind_again_and_again, session)] * 3
        together([partial(manager.delete, "conv-123"), *rebinders])
        assert manager.get("conv-123") is None


@on_real
def test_create_wins_as_a_whole_when_it_races_rebind(manager, together):
    for _ in range(30):
        session = manager.create("conv-123", **PROPOSAL, replace=True)
        created, rebound = together(
            [
                partial(manager.create, "conv-123", **PROPOSAL | {"owner": "user-789"}, replace=True),
                partial(manager.rebind, session, **MOVE),
            ]
        )
        assert manager.get("conv-123") == created
        assert isinstance(rebound, SessionConflict) or rebound.external_id == PROPOSAL["owner"]
