from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.core.cache import cache, caches
from redis.connection import Connection

from sessions_sticky import Outcome, SessionManager, SessionStoreUnavailable, cache_config, keys
from sessions_sticky.connections import breaker
from sessions_sticky.connections.cluster import slot_map
from sessions_sticky.connections.commands import AllPrimaries, Batch, Command
from tests.access import Access
from tests.clusters import CALM_MS, Cluster, Node
from tests.conftest import STALL_SECONDS, patient_config
from tests.servers import VALKEY, free_port
from tests.sessions_sticky.calls import PROPOSAL
from tests.waiting import stopwatch, wait_until

pytestmark = pytest.mark.slow
IDS = [f"conv-{i}" for i in range(60)]


@pytest.fixture
def cluster(settings) -> Iterator[Cluster]:
    """A separate cluster for faults, which does not recover."""
    with Cluster(timeout_ms=CALM_MS) as servers:
        settings.CACHES = {"default": patient_config(servers.url, STALL_SECONDS)}
        yield servers


async def test_aresolve_answers_all_when_many_call_at_once_at_the_start(cluster_url, settings):
    settings.CACHES = {"default": patient_config(cluster_url)}
    found = await asyncio.gather(*(SessionManager().aresolve(id, **PROPOSAL) for id in IDS))
    assert Outcome.DEGRADED not in {outcome for _, outcome in found}


def test_resolve_answers_all_when_many_threads_call_at_once_at_the_start(cluster_url, settings):
    settings.CACHES = {"default": patient_config(cluster_url)}
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda id: SessionManager().resolve(id, **PROPOSAL), IDS))
    assert Outcome.DEGRADED not in {outcome for _, outcome in found}


def test_only_the_sessions_of_a_stalled_server_wait_and_only_one_of_them(cluster: Cluster, monkeypatch):
    monkeypatch.setattr(breaker, "RETRY_SECONDS", 60)  # or a slow machine asks once more
    manager = SessionManager()
    for id in IDS:
        manager.resolve(id, **PROPOSAL)
    stalled = cluster.owner(keys.session(IDS[0]))
    theirs = {id for id in IDS if cluster.owner(keys.session(id)) is stalled}
    stalled.stop()
    took = stopwatch()
    outcomes = {id: manager.resolve(id, **PROPOSAL).outcome for id in IDS}
    assert {id for id, outcome in outcomes.items() if outcome is Outcome.DEGRADED} == theirs
    assert len(theirs) > 5
    assert took() < 2 * STALL_SECONDS


def test_batch_raises_unavailable_but_runs_on_the_other_servers_when_one_is_down(cluster: Cluster):
    manager = SessionManager()
    manager.resolve(IDS[0], **PROPOSAL)
    gone = cluster.owner(keys.session(IDS[0]))
    written = [id for id in IDS[1:] if cluster.owner(keys.session(id)) is not gone]
    gone.kill()
    batch = Batch([Command(("SET", keys.session(id), b"{}", "EX", 60)) for id in IDS])
    with pytest.raises(SessionStoreUnavailable):
        manager._store.send(batch)
    assert all(manager._store.send(Command(("GET", keys.session(id)))) == b"{}" for id in written)


@pytest.mark.parametrize("delete", [lambda other: other.delete("conv-0"), lambda other: other.all().delete()])
def test_session_stays_deleted_when_another_process_remembers_it(cluster_url, settings, delete):
    settings.CACHES = {"default": patient_config(cluster_url)}
    cache.client.get_client().flushdb(target_nodes="primaries")
    remembering, other = SessionManager(caches["default"]), SessionManager(caches["default"])
    remembering.resolve("conv-0", **PROPOSAL)
    assert delete(other)
    again = remembering.resolve("conv-0", **{**PROPOSAL, "provider": "another"})
    assert (again.session.provider, again.outcome) == ("another", Outcome.CREATED)


def test_everywhere_asks_each_primary_once(cluster_url, settings):
    settings.CACHES = {"default": patient_config(cluster_url)}
    store = SessionManager()._store
    store.send(Command(("GET", "warm")))
    ports = [reply.split(b"tcp_port:")[1].split()[0] for reply in store.send(AllPrimaries(Command(("INFO",))))]
    assert len(set(ports)) == 3


@pytest.mark.parametrize("way", ["sync", "async"])
async def test_unavailable_is_said_when_no_server_has_ever_answered(settings, way):
    settings.CACHES = {"default": cache_config("redis+cluster://127.0.0.1:1,127.0.0.1:2")}
    with pytest.raises(SessionStoreUnavailable):
        await SessionManager().aget("a") if way == "async" else SessionManager().get("a")


def test_reindex_begins_again_when_the_primaries_have_changed_under_way(cluster: Cluster):
    manager = SessionManager()
    for id in IDS:
        manager.resolve(id, **PROPOSAL)

    def change(done: int, expected: int) -> None:
        manager._store.operators._servers._slots.primaries.append(("new", 1))

    with pytest.raises(SessionStoreUnavailable, match="start again"):
        manager.reindex(progress=change)
    assert manager.all().count() == len(IDS)


def test_binding_succeeds_with_a_warning_when_the_server_of_the_index_is_gone(cluster: Cluster, caplog):
    manager = SessionManager()
    manager.resolve("first", **PROPOSAL)
    gone = cluster.owner(keys.index_all())
    elsewhere = next(id for id in IDS if cluster.owner(keys.session(id)) is not gone)
    gone.kill()
    assert manager.resolve(elsewhere, **PROPOSAL).outcome is Outcome.CREATED
    assert manager.get(elsewhere) is not None
    assert "index and history not updated after a change" in caplog.text


def test_page_reports_unavailable_when_a_server_of_its_sessions_is_gone(cluster: Cluster):
    manager = SessionManager()
    index = cluster.owner(keys.index_all())
    elsewhere = next(id for id in IDS if cluster.owner(keys.session(id)) is not index)
    manager.resolve(elsewhere, **PROPOSAL)
    cluster.owner(keys.session(elsewhere)).kill()
    with pytest.raises(SessionStoreUnavailable):
        manager.all().page()


@pytest.mark.parametrize("step", ["send_packed_command", "read_response"])
def test_next_caller_gets_its_own_answer_when_one_is_interrupted(cluster_url, settings, monkeypatch, step):
    settings.CACHES = {"default": patient_config(cluster_url)}
    manager = SessionManager()
    for id in IDS:
        manager.create(id, **PROPOSAL, replace=True)
    with monkeypatch.context() as patched:
        patched.setattr(Connection, step, interrupt)
        with pytest.raises(KeyboardInterrupt):
            manager.get(IDS[0])
    assert [manager.get(id).id for id in IDS] == IDS
    assert not any(node._pool._in_use_connections for node in manager._store._servers._nodes.values())
    hang_up(manager._store)


def hang_up(store):
    """Close its connections; otherwise a garbage collection finds open sockets and warns, which is an error."""
    for node in store._servers._nodes.values():
        node._pool.disconnect()


def interrupt(*args, **kwargs):
    raise KeyboardInterrupt


def test_no_connection_is_left_in_use_when_a_batch_is_interrupted(cluster: Cluster, monkeypatch):
    store = SessionManager()._store
    batch = Batch([Command(("GET", keys.session(id))) for id in IDS])
    store.send(batch)
    first = cluster.owner(keys.session(IDS[0]))
    next(node for node in cluster.primaries() if node is not first).kill()  # an error instead of a connection
    with monkeypatch.context() as patched:
        patched.setattr(Connection, "read_response", interrupt)
        with pytest.raises(KeyboardInterrupt):
            store.send(batch)
    assert not any(node._pool._in_use_connections for node in store._servers._nodes.values())
    hang_up(store)


def test_cache_api_has_one_client_for_all_threads(cluster_url, settings):
    settings.CACHES = {"default": patient_config(cluster_url)}
    cache.set("a key", {"any": 1}, 60)
    with ThreadPoolExecutor(4) as threads:
        clients = set(threads.map(lambda _: id(cache.client.get_client()), range(8)))
    assert len(clients) == 1
    assert cache.get("a key") == {"any": 1}
    cache.client.connection_factory.disconnect(cache.client.get_client())
    assert cache.touch("a key", 60)


def test_cache_api_does_not_ask_a_cluster_for_announcements_of_maintenance(cluster_url, settings):
    """For whose duration, redis-py's default, it would wait 10 s for each answer; only RESP3 has them."""
    settings.CACHES = {"default": patient_config(cluster_url)}
    nodes = cache.client.get_client().get_nodes()
    assert nodes
    assert {node.redis_connection.get_connection_kwargs()["protocol"] for node in nodes} == {2}


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize("place", [0, 1])
def test_cluster_is_found_when_only_one_of_the_servers_of_the_url_is_back(monkeypatch, settings, way, place):
    for module, seconds in (slot_map, "REFRESH_SECONDS"), (breaker, "RETRY_SECONDS"):
        monkeypatch.setattr(module, seconds, 0.0)
    with Node(VALKEY, access=Access(), timeout_ms=1_000) as node, asyncio.Runner() as loop:
        node.cluster("ADDSLOTSRANGE", 0, slot_map.SLOTS - 1)
        node.kill()
        ports = [free_port()]
        ports.insert(place, node.port)
        settings.CACHES = {"default": patient_config(f"redis+cluster://{','.join(f'127.0.0.1:{p}' for p in ports)}")}
        manager = SessionManager()

        def get():
            return loop.run(manager.aget(IDS[0])) if way == "async" else manager.get(IDS[0])

        for _ in range(2):
            with pytest.raises(SessionStoreUnavailable):
                get()
        node.start()
        wait_until(lambda: "cluster_state:ok" in node.cluster("INFO"))
        assert get() is None
        hang_up(manager._store)


@pytest.mark.parametrize(("way", "failure"), [("sync", "stalled"), ("async", "stalled"), ("sync", "cut off")])
def test_sessions_are_found_after_a_failover_with_few_chats(monkeypatch, settings, way, failure):
    """A lost machine does not refuse connections: asking only it, and it first each time, never succeeds.

    The same applies to a node that is cut off from the others and reports its outdated state.
    """
    for module, seconds in (slot_map, "REFRESH_SECONDS"), (breaker, "RETRY_SECONDS"):
        monkeypatch.setattr(module, seconds, 0.0)  # as if as long went by before each chat
    with Cluster(VALKEY, "--enable-debug-command", "yes") as cluster, asyncio.Runner() as loop:
        settings.CACHES = {"default": patient_config(cluster.url, STALL_SECONDS)}
        manager = SessionManager()

        def resolve():
            return loop.run(manager.aresolve(id, **PROPOSAL)) if way == "async" else manager.resolve(id, **PROPOSAL)

        lost = min(cluster.primaries(), key=lambda node: node.port)  # the first to be asked
        id = next(id for id in IDS if cluster.owner(keys.session(id)) is lost)
        bound, _ = resolve()
        if failure == "stalled":
            lost.stop()
        else:
            with lost.client() as client:
                client.execute_command("DEBUG", "DROP-CLUSTER-PACKET-FILTER", "-2")  # all
        cluster.wait_for_failover(lost)
        assert [resolve(), resolve()] == [(bound, Outcome.DEGRADED), (bound, Outcome.HIT)]
        hang_up(manager._store)
