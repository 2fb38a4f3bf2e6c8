"""Experiment 8: every session key has an expiry within the idle time, after every method and after kills."""

from __future__ import annotations

import os
import signal
import time
from itertools import product
from random import Random

import pytest

from tests.conftest import REAL_STORES
from tests.faults import methods
from tests.faults.truth import check_expiries, check_sound
from tests.faults.turns import process
from tests.faults.victims import Victims
from tests.waiting import wait_until

on_real = pytest.mark.parametrize("store_name", REAL_STORES, indirect=True)
TTL_SECONDS = 60
SESSION = "sentinel:session:conv-1"
KILLS, LONGEST_LIFE_SECONDS = 100, 0.05
LEFT_BY = {
    "this app": lambda raw: None,
    "another program, without an expiry": lambda raw: raw.persist(SESSION),
    "another program, with one too far": lambda raw: raw.expire(SESSION, 10 * TTL_SECONDS),
}
WRITERS = ("create", "touch", "resolve", "rebind", "rebind_all")


@on_real
def test_session_keys_expire_within_the_idle_time_after_every_method(manager, raw, settings, store_name, experiment):
    settings.SESSION_TTL_SECONDS = TTL_SECONDS
    calls, looked_at = [*product(methods.EVERY_METHOD, methods.MODES, LEFT_BY)], 0
    for method, mode, left_by in calls:
        raw.flushdb()
        process().create("conv-0", **methods.BOUND)
        session = process().create("conv-1", **methods.BOUND)
        LEFT_BY[left_by](raw)
        answer = methods.invoke(process(), mode, method, session)
        assert not isinstance(answer, Exception), answer
        if left_by != "this app" and method not in WRITERS:
            raw.expire(SESSION, TTL_SECONDS)  # who only looks changes nothing
        looked_at += check_expiries(raw, TTL_SECONDS)
    experiment(
        8,
        "Expiry after every method",
        setup=f"one {store_name}; {len(methods.EVERY_METHOD)} methods, sync and async",
        fault=f"the session was left by {'; by '.join(LEFT_BY)}",
        figures={
            "calls": f"{len(calls)}",
            "session keys checked": f"{looked_at}",
            "not within the idle time": "0",
        },
    )


@on_real
def test_session_keys_expire_within_the_idle_time_when_clients_are_killed(
    manager, raw, request, store_name, experiment
):
    random, looked_at = Random(8), 0
    with Victims(request.getfixturevalue(f"{store_name}_url")) as victims:
        check_sound(manager, raw, reindexed=True)  # which opens the connections of this process
        own = len(raw.client_list())
        for number in range(KILLS):
            victim = victims.start(number)
            time.sleep(random.uniform(0, LONGEST_LIFE_SECONDS))
            os.kill(victim, signal.SIGKILL)
            looked_at += check_expiries(raw, manager.ttl_seconds)
            wait_until_gone(raw, own)
            check_sound(manager, raw, reindexed=True)
    assert manager.recent(limit=1_000)[-1].position  # they did change something
    assert looked_at > KILLS
    experiment(
        8,
        "Expiry after kill -9",
        setup=f"one {store_name}; a process that calls methods at random, sync and async",
        fault=f"kill -9 of the process at {KILLS} random moments",
        figures={"session keys checked": f"{looked_at}", "without an expiry, or reported wrongly": "0"},
    )


def wait_until_gone(raw, own: int) -> None:
    """Wait until the server has noticed: what it had got of the last request, it may still carry out."""
    wait_until(lambda: len(raw.client_list()) <= own)
