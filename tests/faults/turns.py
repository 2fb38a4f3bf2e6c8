"""Callers who take turns: every order in which the requests of some methods can reach the store, one after another."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from django.core.cache import caches
from greenlet import greenlet

from sessions_sticky import SessionError, SessionManager
from tests.sessions_sticky.calls import method_of

Choose = Callable[[int], int]
"""Chooses which of several callers may continue."""


def process() -> SessionManager:
    """Return a manager with a memory of its own, as each process has one."""
    return SessionManager(caches["default"])


class Caller:
    """One call of a method, in a greenlet, which pauses before each of its requests."""

    def __init__(self, manager: SessionManager, method: str, *args: Any, **kwargs: Any) -> None:
        self.result: Any = None
        self._call = lambda: method_of(manager, method)(*args, **kwargs)
        self._sends = {store: store.send for store in (manager._store.operators, manager._store)}
        self._greenlet = greenlet(self._run)

    def begin(self) -> bool:
        """Run until the first request; tell whether there is one."""
        for store, send in self._sends.items():
            store.send = partial(self._wait_and_send, send)
        return self._greenlet.switch()

    def go_on(self) -> bool:
        """Send a request and run until the next; tell whether there is one."""
        return self._greenlet.switch()

    def _wait_and_send(self, send: Callable[[Any], Any], request: Any) -> Any:
        self._greenlet.parent.switch(True)
        return send(request)

    def _run(self) -> bool:
        try:
            self.result = self._call()
        except SessionError as exc:
            self.result = exc
        finally:
            for store, send in self._sends.items():
                store.send = send
        return False


def take_turns(callers: list[Caller], choose: Choose) -> int:
    """Let callers, each on a manager of its own, run to their ends in one order; return the number of requests."""
    waiting = [caller for caller in callers if caller.begin()]
    requests = 0
    while waiting:
        caller = waiting[choose(len(waiting))]
        requests += 1
        if not caller.go_on():
            waiting.remove(caller)
    return requests


def every_order(run: Callable[[Choose], object]) -> int:
    """Call `run` once for each way in which `choose` can be answered; return how many there are."""
    first: list[int] = []
    number = 0
    while True:
        taken: list[tuple[int, int]] = []
        run(partial(_next, taken, first))
        number += 1
        while taken and taken[-1][0] == taken[-1][1] - 1:
            taken.pop()
        if not taken:
            return number
        first = [choice for choice, _ in taken]
        first[-1] += 1


def _next(taken: list[tuple[int, int]], first: list[int], options: int) -> int:
    choice = first[len(taken)] if len(taken) < len(first) else 0
    taken.append((choice, options))
    return choice
