"""Experiment 1: many processes bind the same conversation at the same time."""

from __future__ import annotations

import time

import pytest

from tests.conftest import REAL_STORES
from tests.faults import racer

PROCESSES, ROUNDS = 8, 200
SEVERAL = {"sentinel": "a Sentinel's primary and 2 replicas", "cluster": "a Cluster of 3 primaries and 3 replicas"}


@pytest.mark.parametrize("store_name", [*REAL_STORES, *SEVERAL], indirect=True)
def test_resolve_gives_all_racers_one_session_when_processes_race(manager, request, store_name, experiment):
    started = time.monotonic()
    rounds = racer.run(request.getfixturevalue(f"{store_name}_url"), processes=PROCESSES, rounds=ROUNDS)
    created = 0
    for number, answers in enumerate(rounds):
        assert len(answers) == PROCESSES * racer.THREADS
        winner = manager.get(f"race-{number}").provider
        assert set(answers) == {(winner, "created"), (winner, "hit")}
        assert answers.count((winner, "created")) == 1
        created += 1
    assert created == manager.all().count() == ROUNDS
    experiment(
        1,
        "Create race",
        setup=f"{PROCESSES} processes x {racer.THREADS} threads, {SEVERAL.get(store_name, f'one {store_name}')}",
        fault=f"all resolve the same new conversation at once, each with its own proposal, {ROUNDS} rounds",
        figures={
            "rounds with one winner whose session all got": f"{created} of {ROUNDS}",
            "seconds": f"{time.monotonic() - started:.0f}",
        },
    )
