"""Experiment 9: the store runs out of memory; who keeps an eye on it knows beforehand, and nothing fails in silence."""

from __future__ import annotations

import pytest
from prometheus_client import REGISTRY

from sessions_sticky import Outcome, SessionStoreUnavailable
from sessions_sticky.policy import RESTORED
from sessions_sticky.queries import doctor
from sessions_sticky.queries.server_info import Level
from tests.conftest import patient_config
from tests.faults.truth import check_expiries, stored
from tests.faults.turns import process
from tests.servers import start_server

LIMIT_BYTES = 8_000_000
BATCH, MAX_SESSIONS = 20, 20_000
BOUND = {"provider": "openai", "model": "m" * 2_000, "owner": "user-456"}
OTHER = {**BOUND, "provider": "anthropic"}


@pytest.fixture
def start(program, settings):
    """Start the server with a limit and a policy; return its client."""
    settings.SESSIONS_STICKY = {"METRICS": True}
    running = []

    def start(policy):
        running.append(start_server(program, "--maxmemory", str(LIMIT_BYTES), "--maxmemory-policy", policy))
        settings.CACHES = {"default": patient_config(running[0].url)}
        return running[0].client()

    yield start
    for server in running:
        server.kill()


def warnings():
    """Return what doctor warns of, but for what all servers of the tests have."""
    found = {finding.subject: finding for finding in doctor.examine() if finding.level is not Level.OK}
    return {subject: finding for subject, finding in found.items() if subject not in ("persistence", "latency")}


def counted(error):
    return REGISTRY.get_sample_value("sessions_sticky_store_errors_total", {"error": error}) or 0


def share(client):
    return f"{client.info('memory')['used_memory'] / LIMIT_BYTES:.0%}"


def fill_up(manager, client):
    """Create sessions until one is refused; return how full it was when doctor first warned, and the sessions."""
    warned, made = None, []
    while True:
        try:
            made.append(manager.create(f"conv-{len(made)}", **BOUND))
        except SessionStoreUnavailable as exc:
            assert "maxmemory" in str(exc)  # noqa: PT017 - of many calls, one raises
            return warned, made
        if warned is None and len(made) % BATCH == 0 and "memory" in warnings():
            warned = share(client)


def test_callers_get_errors_and_sessions_are_kept_when_memory_is_full(start, request, experiment):
    with start("noeviction") as client:
        manager, refused_before = process(), counted("OutOfMemoryError")
        assert not warnings()
        warned, made = fill_up(manager, client)
        assert warned, "doctor did not warn before the first error"
        client.config_set("maxmemory", LIMIT_BYTES * 9 // 10)  # otherwise a freed buffer makes room for another one
        assert "maxmemory" in warnings()["memory"].message
        assert manager.resolve("conv-new", **BOUND).outcome is Outcome.DEGRADED
        refused = counted("OutOfMemoryError") - refused_before
        assert refused == 2
        assert manager.resolve("conv-0", **OTHER) == (made[0], Outcome.HIT)
        assert stored(client) == {session.id: session for session in made}
        assert check_expiries(client, manager.ttl_seconds) == manager.all().count() == len(made)
        assert manager.delete("conv-1")
        report(
            experiment,
            request,
            "noeviction",
            {
                "doctor warns at": warned,
                "then": "SessionStoreUnavailable, DEGRADED from resolve, both in sessions_sticky_store_errors_total",
                "sessions lost": f"0 of {len(made)}",
            },
        )


def test_doctor_warns_and_nothing_moves_when_sessions_are_evicted(start, request, experiment):
    with start("volatile-lru") as client:
        manager = process()
        assert list(warnings()) == ["eviction"]
        made, evicted = [], 0
        while evicted < BATCH:
            made.append(manager.create(f"conv-{len(made)}", **BOUND))
            evicted = client.info("stats")["evicted_keys"]
            assert len(made) < MAX_SESSIONS
        assert {*warnings()} >= {"eviction", "memory"}
        client.config_set("maxmemory", 0)  # otherwise reading them evicts more
        left = stored(client)
        lost = [session for session in made if session.id not in left]
        assert lost
        for session in lost:
            assert manager.resolve(session.id, **OTHER).session == session  # this process remembers
            assert manager.history(session.id)[-1].reason == RESTORED
        check_expiries(client, manager.ttl_seconds)
        report(
            experiment,
            request,
            "volatile-lru",
            {
                "doctor warns": "of the policy, from the start; of memory, at 80%",
                "sessions evicted silently": f"{len(lost)} of {len(made)}",
                "then": f"restored, in the history as {RESTORED!r}; 0 moved",
            },
        )


def report(experiment, request, policy, figures):
    experiment(
        9,
        f"Memory: {policy}",
        setup=f"one {request.node.callspec.params['program']}, maxmemory {LIMIT_BYTES:,} bytes",
        fault="sessions are created until memory is full",
        figures=figures,
    )
