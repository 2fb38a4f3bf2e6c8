"""Experiment 3: processes rebind the same session at the same time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from sessions_sticky.stores.history import MAX_EVENTS
from tests.conftest import REAL_STORES
from tests.faults import rebinder
from tests.faults.truth import check_chain, check_sound

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sessions_sticky import Event, SessionManager

PROCESSES, ROUNDS = 2, 9_999
"""With the creation, as many events as the stream keeps."""


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
    events = list(every_event(manager))
    assert [event.kind for event in events] == ["created", *["rebound"] * ROUNDS]
    assert check_chain(events) == (session.provider, session.model)
    assert [event.kind for event in manager.history("conv-1")][1:] == ["rebound"] * MAX_EVENTS
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


def every_event(manager: SessionManager) -> Iterator[Event]:
    """Yield the events of the stream, oldest first."""
    after = "0-0"
    while found := manager.recent(after=after, limit=1_000):
        yield from found
        after = found[-1].position
