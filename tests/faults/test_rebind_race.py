"""Experiment 3: processes rebind the same session at the same time."""

from __future__ import annotations

import time

import pytest

from tests.conftest import REAL_STORES
from tests.faults import rebinder
from tests.faults.truth import check_chain, check_sound

PROCESSES, ROUNDS = 2, 10_000


@pytest.mark.parametrize("store_name", REAL_STORES, indirect=True)
def test_rebind_lets_one_win_and_loses_nothing_when_processes_race(manager, raw, request, store_name, experiment):
    session = manager.create("conv-1", "openai", "gpt-4", "user-456")
    started = time.monotonic()
    rounds = rebinder.run(request.getfixturevalue(f"{store_name}_url"), processes=PROCESSES, rounds=ROUNDS)
    for results in rounds:
        before, after, won = zip(*results, strict=True)
        assert set(before) == {session}
        assert won.count(True) == 1
        (session,) = set(after)  # all processes get the winner's session
    assert manager.get("conv-1") == session
    events = manager.history("conv-1")
    assert [event.kind for event in events] == ["created", *["rebound"] * ROUNDS]
    assert check_chain(events) == (session.provider, session.model)
    check_sound(manager, raw)
    experiment(
        3,
        "Rebind against rebind",
        setup=f"{PROCESSES} processes, one {store_name}",
        fault=f"a barrier between read and write: all move the session that they all have read, {ROUNDS:,} rounds",
        figures={
            "rounds with one winner, reported to all others": f"{ROUNDS:,} of {ROUNDS:,}",
            "gaps in the history": "0",
            "seconds": f"{time.monotonic() - started:.0f}",
        },
    )
