"""Processes that rebind the same session at the same time; a module of its own, for they import it by name."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

from django.conf import settings

from sessions_sticky import Session, SessionConflict, SessionManager
from tests.conftest import patient_config
from tests.programs import context

if TYPE_CHECKING:
    from multiprocessing.synchronize import Barrier

Round = tuple[Session, Session | None, bool]
"""What the session was, what it was then, and whether this process had moved it there."""
HISTORY_LENGTH = 100_000

_barrier: Barrier


def prepare(barrier: Barrier, url: str) -> None:
    """Initialize a process: Django on the store at `url`, and the barrier that all processes share."""
    global _barrier  # noqa: PLW0603
    _barrier = barrier
    settings.configure(
        CACHES={"default": patient_config(url)}, SESSIONS_STICKY={"HISTORY_LENGTH": HISTORY_LENGTH}, LOGGING_CONFIG=None
    )


def rebind(process: int, rounds: int) -> list[Round]:
    """Move `conv-1` once in each round, after all processes have read it and before any has moved it."""
    manager = SessionManager()
    results: list[Round] = []
    for number in range(rounds):
        _barrier.wait(30)
        before = manager.get("conv-1")
        assert before is not None
        _barrier.wait(30)
        try:
            move = {"provider": f"p{process}", "model": f"m{number % 50}", "reason": "race"}
            results.append((before, manager.rebind(before, **move), True))
        except SessionConflict as conflict:
            results.append((before, conflict.current, False))
    return results


def run(url: str, *, processes: int, rounds: int) -> list[tuple[Round, ...]]:
    """Let processes rebind on the store at `url`; return the result of each process for each round."""
    initargs = (context.Barrier(processes), url)
    with ProcessPoolExecutor(processes, mp_context=context, initializer=prepare, initargs=initargs) as pool:
        return list(zip(*pool.map(rebind, range(processes), [rounds] * processes), strict=True))
