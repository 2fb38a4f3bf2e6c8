"""A race of processes to bind conversations; a module of its own, for the processes import it by name."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from django.conf import settings

from sessions_sticky import SessionManager
from tests.conftest import patient_config
from tests.programs import context

if TYPE_CHECKING:
    from multiprocessing.synchronize import Barrier

THREADS = 8
_barrier: Barrier


def prepare(barrier: Barrier, url: str) -> None:
    """Initialize a process: Django on the store at `url`, and the barrier that all threads of all processes share."""
    global _barrier  # noqa: PLW0603
    _barrier = barrier
    settings.configure(CACHES={"default": patient_config(url)}, SESSIONS_STICKY={"ON_STORE_ERROR": "raise"})


def race(process: int, rounds: int) -> list[list[tuple[str, str]]]:
    """Propose a different provider in each thread and round; return for each thread `(provider, outcome)` a round."""
    manager = SessionManager()

    def run(thread: int) -> list[tuple[str, str]]:
        answers: list[tuple[str, str]] = []
        proposal: dict[str, Any] = {"provider": f"p{process}-{thread}", "model": "m", "owner": "o"}
        for number in range(rounds):
            _barrier.wait(30)
            session, outcome = manager.resolve(f"race-{number}", **proposal)
            answers.append((session.provider, outcome.value))
        return answers

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(run, range(THREADS)))


def run(url: str, *, processes: int, rounds: int) -> list[tuple[tuple[str, str], ...]]:
    """Let processes race on the store at `url`; return for each round the `(provider, outcome)` of all their threads.

    The conversation of a round is `race-{number}`.
    """
    initargs = (context.Barrier(processes * THREADS), url)
    with ProcessPoolExecutor(processes, mp_context=context, initializer=prepare, initargs=initargs) as pool:
        racers = [answers for each in pool.map(race, range(processes), [rounds] * processes) for answers in each]
    return list(zip(*racers, strict=True))
