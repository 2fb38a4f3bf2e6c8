"""Experiment 4: the store does not answer, or not to the end, whatever it was asked."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import product

import pytest

from sessions_sticky import Outcome, SessionConflict, SessionStoreUnavailable, cache_config
from sessions_sticky.connections.cache_config import SOCKET_TIMEOUT_SECONDS
from sessions_sticky.stores import redis as redis_store
from tests.conftest import REAL_STORES, patient_config
from tests.faults import methods
from tests.faults.truth import check_sound, stored
from tests.faults.turns import process
from tests.gateway.proxy import Proxy
from tests.servers import VALKEY, free_port, start_server

BOUND_SECONDS = 3 * SOCKET_TIMEOUT_SECONDS
"""Connecting, asking, and the pauses of a busy machine."""
CALLS = [*product(methods.EVERY_METHOD, methods.MODES)]
AT_ONCE = 6
PAUSE_MS = 60_000
"""Longer than the test: a server that pauses all its clients hears no UNPAUSE either."""


@pytest.fixture(params=REAL_STORES)
def server(request):
    program = VALKEY if request.param == "valkey" else request.getfixturevalue("redis_program")
    with start_server(program, tcp=True) as server:
        server.kind = request.param
        yield server


@pytest.fixture
def proxy(server, settings):
    with CuttingProxy(server.port) as proxy:
        settings.CACHES = {"default": cache_config(proxy.url)}
        yield proxy


class CuttingProxy(Proxy):
    """Breaks off a reply after `spared` others, and all that come then, or `cuts` of them."""

    spared = cuts = 0

    def _cuts(self) -> bool:
        self.spared -= 1
        if self.spared >= 0 or self.cuts == 0:
            return False
        self.cuts -= 1
        return True


@contextmanager
def closed_port(server, proxy):
    proxy.target = free_port()
    proxy.cut_all()
    yield


@contextmanager
def stalled(server, proxy):
    server.stop()
    yield
    server.cont()


@contextmanager
def paused(server, proxy):
    with server.client() as client:
        client.client_pause(PAUSE_MS, all=True)
    yield


@contextmanager
def cut(server, proxy):
    proxy.spared, proxy.cuts = 0, 10**9
    yield
    proxy.cuts = 0


FAULTS = {
    "closed port": closed_port,
    "SIGSTOP": stalled,
    "CLIENT PAUSE": paused,
    "replies cut in half": cut,
}


@pytest.fixture(autouse=True)
def same_timeout(monkeypatch):
    """Operators' methods, which wait for five seconds, wait as long as the others: the bound is one for all."""
    monkeypatch.setattr(redis_store, "OPERATOR_REPLY_SECONDS", SOCKET_TIMEOUT_SECONDS)


def test_experiments_have_every_public_method():
    assert methods.unlisted() == set()


@pytest.mark.parametrize("fault", FAULTS)
def test_every_method_gives_a_typed_answer_in_time_when_the_store_does_not(server, proxy, settings, experiment, fault):
    session = process().create("conv-1", **methods.BOUND)
    managers = {call: process() for call in CALLS}
    for manager in managers.values():
        manager.resolve("conv-1", **methods.BOUND)
    slowest = 0.0

    def ask(call):
        started = time.monotonic()
        return methods.invoke(managers[call], call[1], call[0], session), time.monotonic() - started

    def ask_alone(call):
        """Return the shortest of some calls: a slow method is slow each time, a busy machine is not."""
        times = []
        for _ in range(5):
            managers[call] = process()
            times.append(ask(call)[1])
        return min(times)

    with FAULTS[fault](server, proxy):
        for policy in ("degrade", "raise"):
            settings.SESSIONS_STICKY = {"ON_STORE_ERROR": policy}
            with ThreadPoolExecutor(AT_ONCE) as pool:
                answers = list(pool.map(ask, CALLS))
            for call, (answer, seconds) in zip(CALLS, answers, strict=True):
                method = call[0]
                slowest = max(slowest, seconds if seconds < BOUND_SECONDS else ask_alone(call))
                if method == "resolve" and policy == "degrade":
                    assert answer == (session, Outcome.DEGRADED)
                else:
                    assert type(answer) is SessionStoreUnavailable, (method, answer)
            managers = {call: process() for call in CALLS}  # whose breakers are closed
    assert slowest < BOUND_SECONDS
    experiment(
        4,
        f"Store down: {fault}",
        setup=f"one {server.kind}, {len(methods.EVERY_METHOD)} methods, sync and async, each in its own process",
        fault=fault,
        figures={
            "answers": f"{2 * len(CALLS)}, each the typed error or, from resolve, DEGRADED with the session last seen",
            "slowest": f"{slowest * 1000:.0f} ms",
        },
    )


def ask_cut(server, proxy, method, mode, spared, cuts):
    """Call a method on a store whose replies are cut; return the session as it was, the answer and what is left."""
    with server.client() as client:
        client.flushdb()
        manager = process()
        session = manager.create("conv-1", **methods.BOUND)
        proxy.spared, proxy.cuts = spared, cuts
        answer = methods.invoke(manager, mode, method, session)
        was_cut, proxy.cuts = proxy.cuts < cuts, 0
        # `create` tidies up the places of the session it has replaced in a second request.
        check_sound(process(), client, reindexed=method == "create")
        return session, answer, was_cut, stored(client).get("conv-1")


def check_cut_answer(method, session, answer, left):
    """Assert that what was answered is so, or that the store is said to be unavailable."""
    if isinstance(answer, SessionStoreUnavailable):
        return
    if method == "resolve":
        assert answer.session == session
        assert answer.outcome in (Outcome.DEGRADED, Outcome.HIT)
    elif method in ("create", "rebind", "rebind_all", "delete", "delete_all"):
        result = answer.current if isinstance(answer, SessionConflict) else answer
        assert result in changed_answers(method, left)
        assert left != session
    elif method == "delete_unchanged":
        assert answer is None or (isinstance(answer, SessionConflict) and answer.current is None)
        assert left is None
    else:
        found = {"get": session, "get_raw": session.to_json(), "touch": True, "count": 1, "reindex": 1}
        assert not isinstance(answer, Exception), answer
        assert answer == found[method] if method in found else answer


def changed_answers(method, left):
    """Return the answers that are allowed after a change that was made.

    redis-py sends a request once more when the connection is lost: after it was carried out, as here, the second finds
    nothing left to do: `rebind` raises a conflict with its own target.
    """
    if method in ("create", "rebind"):
        return [left]
    return [True, False] if method == "delete" else [1, 0]


@pytest.mark.parametrize("cuts", [1, 10**9], ids=["one", "all"])
def test_every_method_gives_a_typed_or_true_answer_when_any_reply_is_cut(
    server, proxy, settings, monkeypatch, experiment, cuts
):
    settings.CACHES = {"default": patient_config(proxy.url)}
    monkeypatch.setattr(redis_store, "OPERATOR_REPLY_SECONDS", 10)
    asked = refused = 0
    for method, mode in CALLS:
        for spared in range(50):
            session, answer, was_cut, left = ask_cut(server, proxy, method, mode, spared, cuts)
            asked += 1
            refused += isinstance(answer, SessionStoreUnavailable)
            check_cut_answer(method, session, answer, left)
            if not was_cut:
                break
        else:
            pytest.fail(f"{method} never ends")
    experiment(
        4,
        f"A reply cut in half: {'one' if cuts == 1 else 'and all that follow'}",
        setup=f"one {server.kind} behind a proxy, {len(methods.EVERY_METHOD)} methods, sync and async",
        fault="each reply that a method waits for is cut in turn",
        figures={
            "calls": f"{asked}",
            "typed errors": f"{refused}",
            "others": f"{asked - refused}, with the right answer or DEGRADED",
        },
    )
