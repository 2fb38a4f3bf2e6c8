"""Experiment 7: Redis Cluster under load, a primary killed and slots moved."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from asgiref.sync import async_to_sync
from pytest_django import Settings

from sessions_sticky import SessionManager, keys
from tests.clusters import Cluster, Node
from tests.conftest import patient_config
from tests.faults.outage import Outage
from tests.faults.pressure import KNOWN, bind_known, pressure

Experiment = Callable[..., None]
Fault = Callable[[Cluster], None]
SETUP = "3 primaries with a replica each ({program}; silent for 1 s is down); {chats}"
CHATS = "2 processes, each with 6 chats and 2 operators, half of them async"


@pytest.fixture
def options() -> tuple[str, ...]:
    """Further arguments of the nodes."""
    return ()


@pytest.fixture
def cluster(program: str, options: tuple[str, ...], settings: Settings) -> Iterator[Cluster]:
    """A Cluster of one's own, which is the default cache."""
    with Cluster(program, *options) as cluster:
        settings.CACHES = {"default": patient_config(cluster.url)}
        yield cluster


@pytest.fixture
def setup(request: pytest.FixtureRequest, options: tuple[str, ...]) -> str:
    """What the report says of it."""
    name = " ".join([request.node.callspec.params["program"], *options])
    return SETUP.format(program=name, chats=CHATS)


def suffer(cluster: Cluster, fault: Fault) -> Outage:
    """Let something happen to a cluster under load; return what was noticed."""
    bind_known()
    with pressure(cluster.url) as finish:
        time.sleep(1)
        began = time.monotonic()
        fault(cluster)
        time.sleep(2.5)
        outage = Outage(finish(), began)
    outage.check()
    return outage


def check_listing() -> dict[str, str]:
    """Assert that after a reindex the listing is what is stored; return the figures, with those before it."""
    manager = SessionManager()
    before = manager.all().count()
    stored = manager.reindex()
    assert manager.all().count() == stored >= len(KNOWN)
    assert len(walk(manager)) == stored
    assert sum(manager.filter(provider=f"p{number}").count() for number in range(3)) == len(KNOWN)
    return {"listed before and after reindex": f"{before} and {stored} of {stored}"}


def walk(manager: SessionManager) -> set[str]:
    """Return the ids on all pages."""
    found: set[str] = set()
    cursor = None
    while True:
        page = manager.all().page(limit=1_000, cursor=cursor)
        found |= {entry.session.id for entry in page.entries}
        if (cursor := page.next_cursor) is None:
            return found


def with_the_index(cluster: Cluster) -> Node:
    return cluster.owner(keys.index_all())


def without_the_index(cluster: Cluster) -> Node:
    index = with_the_index(cluster)
    return next(node for node in cluster.primaries() if node is not index)


@pytest.mark.parametrize("which", [with_the_index, without_the_index])
def test_conversations_stay_when_a_primary_is_killed(
    cluster: Cluster, setup: str, experiment: Experiment, which: Callable[[Cluster], Node]
) -> None:
    check_failover(cluster, which, Node.kill, setup, experiment, fault="kill -9 of")


@pytest.mark.parametrize("program", ["valkey"], indirect=True)
@pytest.mark.parametrize("options", [("--cluster-require-full-coverage", "no")])
def test_conversations_stay_when_the_others_continue_without_a_primary(
    cluster: Cluster, setup: str, experiment: Experiment
) -> None:
    outage = check_failover(cluster, without_the_index, Node.kill, setup, experiment, fault="kill -9 of")
    assert outage.during("hit", "created") > outage.during("degraded")  # a third of the slots was gone


@pytest.mark.parametrize("program", ["valkey"], indirect=True)
def test_conversations_stay_when_a_primary_stalls_and_comes_back(
    cluster: Cluster, setup: str, experiment: Experiment
) -> None:
    check_failover(cluster, with_the_index, Node.stop, setup, experiment, fault="SIGSTOP, then SIGCONT, of")


def check_failover(
    cluster: Cluster,
    which: Callable[[Cluster], Node],
    harm: Callable[[Node], None],
    setup: str,
    experiment: Experiment,
    *,
    fault: str,
) -> Outage:
    """Harm a primary under load until its replica has taken over; return what was noticed."""

    def fail_over(cluster: Cluster) -> None:
        harmed = which(cluster)
        harm(harmed)
        cluster.wait_for_failover(harmed)
        if harm is Node.stop:
            harmed.cont()

    outage = suffer(cluster, fail_over)
    assert outage.seconds > 0.5  # there was a fault
    experiment(
        7,
        f"Cluster: primary {which.__name__.replace('_', ' ')} lost",
        setup=setup,
        fault=f"{fault} the primary",
        figures={**outage.figures(), **check_listing()},
    )
    return outage


def test_chats_continue_when_slots_are_moved(cluster: Cluster, setup: str, experiment: Experiment) -> None:
    """Half moved, a slot answers with ASK, and with TRYAGAIN to requests for keys of both halves."""

    manager = SessionManager()

    def look(conversation_id: str) -> None:
        for _ in range(5):
            for get in (manager.get, async_to_sync(manager.aget)):
                session = get(conversation_id)
                assert session is not None
                assert session.provider == KNOWN[conversation_id]

    def move(cluster: Cluster) -> None:
        cluster.move_slot(keys.index_all(), pause=lambda: time.sleep(0.01))
        for conversation_id in list(KNOWN)[:10]:
            cluster.move_slot(keys.session(conversation_id), pause=partial(look, conversation_id))
        cluster.move_slot(keys.index_all(), pause=lambda: time.sleep(0.01))

    outage = suffer(cluster, move)
    assert not [line for line in outage.logged if "degraded" in line and "moving" in line]
    experiment(
        7,
        "Cluster: slots moved",
        setup=setup,
        fault="the slot of the index moved twice with 10 ms between keys, and 10 slots of sessions",
        figures={**outage.figures(), **check_listing()},
    )
