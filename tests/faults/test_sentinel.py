"""Experiments 5 and 6: Redis Sentinel under load, and what its failovers lose."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from asgiref.sync import async_to_sync
from pytest_django import Settings

from sessions_sticky import Outcome, SessionManager, cache_config, keys
from tests.conftest import patient_config
from tests.faults.outage import Outage
from tests.faults.pressure import KNOWN, bind_known, pressure
from tests.gateway.faulty import CONVERSATIONS, NAMES, RATE, Ground, bind, degraded, start_workers, suffer
from tests.gateway.load import failed, moved
from tests.gateway.upstream_process import UpstreamProcess
from tests.sentinels import Sentinels
from tests.servers import Server
from tests.waiting import wait_until

Experiment = Callable[..., None]
SETUP = "primary, 2 replicas, 3 Sentinels ({program}; silent for 1 s is down)"
PROPOSAL = {"provider": "p", "model": "m", "owner": "o"}
OTHER = {"provider": "other", "model": "n", "owner": "o"}
LATE = [f"late-{number}" for number in range(100)]
CHATS = "2 processes, each with 6 chats and 2 operators, half of them async"


@pytest.fixture
def setup(request: pytest.FixtureRequest) -> str:
    return SETUP.format(program=request.node.callspec.params["program"])


@pytest.fixture
def sentinels(program: str, settings: Settings) -> Iterator[Sentinels]:
    """A Sentinel of one's own, which is the default cache."""
    with Sentinels(program) as sentinels:
        settings.CACHES = {"default": patient_config(sentinels.url)}
        yield sentinels


def suffer_promotion(
    sentinels: Sentinels, fault: Callable[[Server], object], after: Callable[[Server], object]
) -> tuple[Outage, float]:
    """Let a fault meet the primary under load; return what was noticed, and the seconds until the promotion."""
    bind_known()
    with pressure(sentinels.url) as finish:
        time.sleep(1)
        former, began = sentinels.primary, time.monotonic()
        fault(former)
        sentinels.wait_for_promotion(former)
        promoted = time.monotonic() - began
        after(former)
        time.sleep(2.5)
        outage = Outage(finish(), began)
    outage.check()
    return outage, promoted


def test_conversations_stay_when_the_primary_is_killed(
    sentinels: Sentinels, setup: str, experiment: Experiment
) -> None:
    def kill(former: Server) -> None:
        former.kill()
        sentinels.watchers[0].kill()  # often on the same machine; and the one that clients ask first

    outage, promoted = suffer_promotion(sentinels, kill, lambda former: None)
    assert outage.seconds > 0.5  # there was a fault
    check_listing()
    experiment(
        5,
        "Sentinel: primary killed, the manager under load",
        setup=f"{setup}; {CHATS}",
        fault="kill -9 of the primary and of the Sentinel that the URL names first",
        figures={"promotion": f"{promoted:.1f} s", **outage.figures()},
    )


def test_conversations_stay_when_the_primary_stalls_and_comes_back(
    sentinels: Sentinels, setup: str, experiment: Experiment
) -> None:
    """It still thinks that it is the primary, and it has open connections: what is written there is lost."""
    outage, promoted = suffer_promotion(sentinels, Server.stop, Server.cont)
    check_listing()
    experiment(
        5,
        "Sentinel: primary stalled and back, the manager under load",
        setup=f"{setup}; {CHATS}",
        fault="SIGSTOP of the primary, SIGCONT once a replica is promoted",
        figures={"promotion": f"{promoted:.1f} s", **outage.figures()},
    )


def check_listing() -> None:
    """Assert that after a reindex the listing is what is stored."""
    manager = SessionManager()
    total = manager.reindex()
    assert manager.all().count() == total >= len(KNOWN)
    assert sum(manager.filter(provider=f"p{number}").count() for number in range(3)) == len(KNOWN)


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize("program", ["valkey"], indirect=True)
def test_bindings_are_restored_when_a_failover_loses_acknowledged_writes(
    sentinels: Sentinels, setup: str, way: str, experiment: Experiment
) -> None:
    manager = SessionManager()
    resolve = manager.resolve if way == "sync" else async_to_sync(manager.aresolve)
    former = cut_off(sentinels, manager)
    bound = [resolve(each, **PROPOSAL).session for each in LATE]
    bound[:20] = [manager.rebind(session, provider="moved", model="n", reason="a test") for session in bound[:20]]
    stored, usable_seconds = fail_over(sentinels, manager, former)
    answers = [resolve(each, **OTHER) for each in LATE]
    assert stored == 0
    assert Outcome.DEGRADED not in {outcome for _, outcome in answers}
    assert [session for session, _ in answers] == bound == [manager.get(each) for each in LATE]
    experiment(
        6,
        f"Sentinel: acknowledged writes lost, {way}",
        setup=setup,
        fault="links of the replicas cut, 100 conversations bound and 20 of them rebound, primary killed",
        figures={
            "acknowledged and lost": f"{100 - stored} of 100",
            "restored byte by byte": "100 of 100",
            "conversations moved": "0",
            "usable after": f"{usable_seconds:.1f} s",
        },
    )


@pytest.mark.parametrize("program", ["valkey"], indirect=True)
def test_no_write_is_acknowledged_and_lost_when_the_primary_wants_a_replica(
    program: str, settings: Settings, setup: str, experiment: Experiment
) -> None:
    with Sentinels(program, "--min-replicas-to-write", "1", "--min-replicas-max-lag", "10") as sentinels:
        settings.CACHES = {"default": cache_config(sentinels.url)}
        manager = SessionManager()
        former = cut_off(sentinels, manager)
        answers = [manager.resolve(each, **PROPOSAL) for each in LATE]
        assert {outcome for _, outcome in answers} == {Outcome.DEGRADED}
        stored, usable_seconds = fail_over(sentinels, manager, former)
        wait_until(lambda: manager.resolve("before", **OTHER).outcome is Outcome.HIT)
        after = [manager.resolve(each, **OTHER) for each in LATE]
        assert stored == 0
        assert {session.provider for session, _ in after} == {OTHER["provider"]}  # proposals are not restored
        assert {outcome for _, outcome in after} == {Outcome.CREATED}
    experiment(
        6,
        "Sentinel: a primary without replicas takes no writes",
        setup=f"{setup}, min-replicas-to-write 1",
        fault="links of the replicas cut, 100 conversations begun, primary killed",
        figures={
            "acknowledged and lost": "0 of 100",
            "answered from memory, then stored as answered": f"{len(after)} of 100",
            "conversations moved": "0",
            "usable after": f"{usable_seconds:.1f} s",
        },
    )


def cut_off(sentinels: Sentinels, manager: SessionManager) -> Server:
    """Cut the primary's links to the replicas, which have the conversation `before`; return the primary."""
    manager.resolve("before", **PROPOSAL)
    for replica in sentinels.replicas:
        with replica.client() as client:
            wait_until(partial(client.exists, keys.session("before")))
    sentinels.cut_replicas()
    return sentinels.primary


def fail_over(sentinels: Sentinels, manager: SessionManager, former: Server) -> tuple[int, float]:
    """Kill the primary and resume the replicas; return how many of `LATE` the next one has.

    And after how many seconds it took writes of the manager.
    """
    began = time.monotonic()
    former.kill()
    sentinels.resume_replicas()
    with sentinels.wait_for_promotion(former).client() as client:
        stored = client.exists(*map(keys.session, LATE))
    wait_until(lambda: manager.resolve("before", **OTHER).outcome is Outcome.HIT)
    return stored, time.monotonic() - began


async def test_gateway_answers_every_chat_when_the_primary_is_killed(tmp_path: Path, experiment: Experiment) -> None:
    with (
        Sentinels() as sentinels,
        UpstreamProcess(*NAMES) as upstreams,
        start_workers(tmp_path, sentinels.url, upstreams) as workers,
    ):
        before = await asyncio.to_thread(bind, workers, [f"conv-{number}" for number in range(CONVERSATIONS)])
        former = sentinels.primary
        replies = await suffer(
            Ground(workers, sentinels, before),
            "Sentinel",
            former.kill,
            lambda: sentinels.wait_for_promotion(former),
            seconds=6,
        )
    experiment(
        5,
        "Sentinel: primary killed, the gateway under load",
        setup=f"{SETUP.format(program='valkey')}; 2 workers, {CONVERSATIONS} conversations, {RATE} chats a second",
        fault="kill -9 of the primary",
        figures={
            "recovery": f"{degraded(replies) / RATE:.1f} s",
            "chats": f"{len(replies)}",
            "failed": f"{len(failed(replies))}",
            "conversations moved": f"{len(moved(replies, before))}",
            "longest chat": f"{max(reply.seconds for reply in replies) * 1000:.0f} ms",
        },
    )
