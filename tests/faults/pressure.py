"""Processes that use the manager, sync and async, during a fault of the store, and report the results.

A module of its own, for the processes import it by name.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

from django.conf import settings

from sessions_sticky import SessionConflict, SessionManager, SessionStoreUnavailable, cache_config
from sessions_sticky.session import Outcome
from tests.programs import context
from tests.sessions_sticky.calls import method_of
from tests.waiting import wait_until

if TYPE_CHECKING:
    from multiprocessing.synchronize import Event

PROCESSES = 2
WAYS = 3
"""Threads, and as many tasks, that chat in each process; there is an operator of each kind besides."""
PAUSE_SECONDS = 0.03
KNOWN = {f"conv-{number}": f"p{number % 3}" for number in range(300)}
"""Conversations that all processes have seen, and the providers they are bound to."""
START_SECONDS = 30.0
SETTLED = 10
"""Each way continues until so many good answers in a row; an operator asks for eight things in turn."""

Call = tuple[str, tuple[Any, ...], dict[str, Any]]
Script = Generator[Call, Any, None]
_ready: list[Event]
_stop: Event


class CallResult(NamedTuple):
    """One answer; `at` is by `time.monotonic()`, which all processes of a machine share.

    `what` is the outcome of a `resolve`, else `answered`; or `unavailable` or `conflict`; or `lost`: a write that was
    acknowledged, and that the same caller did not see when it read.
    """

    at: float
    seconds: float
    method: str
    what: str

    @property
    def is_good(self) -> bool:
        return self.what in ("hit", "created", "answered")


@dataclass
class Report:
    """What one process has seen.

    `bound` are its own conversations, and where each may be; `moved` what went elsewhere; `undone` when those rebinds
    were acknowledged that the store has forgotten, `rebound` when each was; `logged` warnings, and errors raised.
    """

    calls: list[CallResult] = field(default_factory=list)
    bound: dict[str, set[str]] = field(default_factory=dict)
    rebound: dict[str, float] = field(default_factory=dict)
    moved: list[str] = field(default_factory=list)
    undone: list[float] = field(default_factory=list)
    logged: Counter[str] = field(default_factory=Counter)

    def note(self, at: float, method: str, answer: Any) -> bool:
        """Keep an answer, or the error that came instead; return whether it is good."""
        what = str(getattr(answer, "outcome", "answered"))
        if isinstance(answer, SessionConflict):  # impossible: each conversation has one caller
            what = "conflict" if answer.current else "lost"
        elif isinstance(answer, Exception):
            what = "unavailable"
            self.logged[f"raised {answer}"] += 1
        result = CallResult(at, time.monotonic() - at, method, what)
        self.calls.append(result)
        return result.is_good


def bind_known() -> None:
    """Bind the known conversations in the store of this process."""
    manager = SessionManager()
    for conversation_id, provider in KNOWN.items():
        manager.create(conversation_id, provider, "m", "o", replace=True)


@contextmanager
def pressure(url: str) -> Iterator[Callable[[], list[Report]]]:
    """Use the store at `url`, where `bind_known` has been, until the function that this gives is called."""
    ready, stop = [context.Event() for _ in range(PROCESSES)], context.Event()
    with ProcessPoolExecutor(PROCESSES, context, _prepare, (url, ready, stop)) as pool:
        try:
            futures = [pool.submit(_use, number) for number in range(PROCESSES)]
            assert all(each.wait(START_SECONDS) or [future.result(0) for future in futures] for each in ready)

            def finish() -> list[Report]:
                stop.set()
                return [future.result(60) for future in futures]

            yield finish
        finally:
            stop.set()


def _prepare(url: str, ready: list[Event], stop: Event) -> None:
    global _ready, _stop
    _ready, _stop = ready, stop
    settings.configure(CACHES={"default": cache_config(url)})


def _use(process: int) -> Report:
    report, manager = Report(), SessionManager()
    _listen(report)
    elsewhere = {"provider": f"intruder-{process}", "model": "m", "owner": "o"}
    for conversation_id in KNOWN:
        wait_until(lambda id=conversation_id: manager.resolve(id, **elsewhere).outcome is Outcome.HIT)
    scripts = [make(f"{process}-{way}", elsewhere, report) for way in range(WAYS) for make in (_chat, _begin)]
    threads = [*scripts[::2], _operate(report)]
    tasks = [*scripts[1::2], _operate(report)]
    _ready[process].set()
    with ThreadPoolExecutor() as pool:
        running = [pool.submit(_drive, manager, script, report) for script in threads]
        asyncio.run(_adrive_all(manager, tasks, report))
        for each in running:
            each.result()
    _check(manager, elsewhere, report)
    return report


def _chat(name: str, elsewhere: dict[str, Any], report: Report) -> Script:
    """Ask for the known conversations, each time with another provider; now and then begin one."""
    random, begun = Random(name), _begin(f"chat-{name}", elsewhere, report)
    begin = next(begun)
    while True:
        conversation_id = random.choice(list(KNOWN))
        answer = yield "resolve", (conversation_id,), elsewhere
        if not isinstance(answer, Exception) and answer.session.provider != KNOWN[conversation_id]:
            report.moved.append(f"{conversation_id} to {answer.session.provider}, {answer.outcome}")
        begin = begun.send((yield begin))


def _begin(name: str, elsewhere: dict[str, Any], report: Report) -> Script:
    """Begin conversations, look at them, move them, look again: every look sees what was done before."""
    number = 0
    while True:
        number += 1
        id, here, there = f"{name}-{number}", f"here-{name}", f"there-{name}"
        begun = yield "resolve", (id,), {**elsewhere, "provider": here}
        if begun.outcome is not Outcome.CREATED:
            continue  # only proposed, which is never restored: nothing to see, and nothing to move
        report.bound[id] = {here}
        seen = yield "get", (id,), {}
        _compare(report, seen, begun.session)
        if seen != begun.session:
            continue
        report.bound[id] = {here, there}  # whatever the answer is, or if none comes
        moved = yield "rebind", (seen,), {"provider": there, "model": "m", "reason": "a fault"}
        if isinstance(moved, Exception):
            continue
        report.bound[id], report.rebound[id] = {there}, time.monotonic()
        _compare(report, (yield "get", (id,), {}), moved)


def _operate(report: Report) -> Script:
    """Look at what operators look at."""
    while True:
        cursor = None
        for _ in range(5):
            page = yield "page", (), {"limit": 20, "provider": "p1", "cursor": cursor}
            cursor = None if isinstance(page, Exception) else page.next_cursor
        yield "count", (), {}
        yield "stats", (), {}
        yield "history", ("conv-1",), {}


def _compare(report: Report, seen: Any, written: Any) -> None:
    if not isinstance(seen, Exception) and seen != written:
        report.calls.append(CallResult(time.monotonic(), 0.0, "get", "lost"))


def _drive(manager: SessionManager, script: Script, report: Report) -> None:
    method, args, kwargs = next(script)
    good = 0
    while good < SETTLED or not _stop.is_set():
        at, answer = time.monotonic(), None
        try:
            answer = method_of(manager, method)(*args, **kwargs)
        except (SessionStoreUnavailable, SessionConflict) as exc:
            answer = exc
        good = good + 1 if report.note(at, method, answer) else 0
        method, args, kwargs = script.send(answer)
        time.sleep(PAUSE_SECONDS)


async def _adrive(manager: SessionManager, script: Script, report: Report) -> None:
    method, args, kwargs = next(script)
    good = 0
    while good < SETTLED or not _stop.is_set():
        at, answer = time.monotonic(), None
        try:
            answer = await method_of(manager, f"a{method}")(*args, **kwargs)
        except (SessionStoreUnavailable, SessionConflict) as exc:
            answer = exc
        good = good + 1 if report.note(at, f"a{method}", answer) else 0
        method, args, kwargs = script.send(answer)
        await asyncio.sleep(PAUSE_SECONDS)


async def _adrive_all(manager: SessionManager, scripts: list[Script], report: Report) -> None:
    async with asyncio.TaskGroup() as group:
        for script in scripts:
            group.create_task(_adrive(manager, script, report))


def _check(manager: SessionManager, elsewhere: dict[str, Any], report: Report) -> None:
    """Resolve all conversations again, which restores sessions that the store lost."""
    for conversation_id, allowed in {**{each: {provider} for each, provider in KNOWN.items()}, **report.bound}.items():
        session, outcome = manager.resolve(conversation_id, **elsewhere)
        if session.provider.startswith("here-") and conversation_id in report.rebound:
            report.undone.append(report.rebound[conversation_id])
        elif session.provider not in allowed:
            report.moved.append(f"{conversation_id} to {session.provider}, {outcome}, in the end")


def _listen(report: Report) -> None:
    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            report.logged[f"{record.levelname} {record.getMessage()}"] += 1

    logging.getLogger("sessions_sticky").addHandler(Listener(logging.WARNING))
