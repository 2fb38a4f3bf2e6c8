"""A process restores what the store lost for the others, before the next turns, and nothing else."""

from __future__ import annotations

import logging
import os
import time
from threading import Event, Thread
from unittest.mock import Mock

import pytest
from django.core.cache import caches
from prometheus_client import REGISTRY

from sessions_sticky import Outcome, Session, SessionManager, SessionStoreUnavailable, keys, restoration
from sessions_sticky.connections.commands import Batch
from sessions_sticky.restoration import BATCH_SIZE, RECENT_SECONDS
from sessions_sticky.signals import session_created
from sessions_sticky.stores import local_cache
from tests.conftest import patient_config
from tests.servers import start_server
from tests.sessions_sticky.calls import MOVE, OTHER, PROPOSAL
from tests.sessions_sticky.indexed import on_valkey
from tests.sessions_sticky.marks import on_portable, on_redis
from tests.sessions_sticky.state_world import restore_at_once
from tests.waiting import wait_until

IDS = [f"conv-{number}" for number in range(BATCH_SIZE + 5)]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    restore_at_once(monkeypatch)


@pytest.fixture
def other(manager):
    """A process that remembers nothing."""
    return SessionManager(caches["default"])


@pytest.fixture
def flush(manager):
    """Lose everything."""
    return caches["default"].clear


def remembered(manager, conversation_id):
    return manager._store.last_seen._entries[conversation_id]


def age(manager, conversation_id, **fields):
    """Change what a process remembers of a session."""
    manager._store.last_seen._entries[conversation_id] = remembered(manager, conversation_id)._replace(**fields)


@on_redis
def test_process_restores_all_it_saw_when_the_store_loses_everything(call, manager, other, flush):
    bound = [call("resolve", each, **PROPOSAL).session for each in IDS]
    bound[:10] = [call("rebind", session, **MOVE) for session in bound[:10]]
    flush()
    call("resolve", "new", **OTHER)
    assert [other.resolve(each, **OTHER) for each in IDS] == [(session, Outcome.HIT) for session in bound]
    assert manager.all().count() == len(IDS) + 1  # the index as well
    assert manager.history(IDS[0])[-1].reason == "lost by the store"


@pytest.mark.parametrize(
    "way",
    ["restarted empty", "restarted with old data", pytest.param("replaced by an old replica", marks=pytest.mark.slow)],
)
def test_process_restores_what_is_lost_when_the_store_is_restarted(settings, way):
    with start_server(tcp=True) as server, start_server(tcp=True) as replica:
        settings.CACHES = {"default": patient_config(server.url)}
        manager = SessionManager()
        manager.resolve("before", **PROPOSAL)
        if way == "restarted with old data":
            with server.client() as client:
                client.save()
        elif way == "replaced by an old replica":
            with replica.client() as client:
                client.replicaof("127.0.0.1", server.port)
                wait_until(lambda: client.exists(keys.session("before")))
                client.replicaof("NO", "ONE")
                client.save()
        bound = [manager.resolve(each, **PROPOSAL).session for each in IDS]
        server.restart() if way != "replaced by an old replica" else replace(server, replica)
        manager.resolve("before", **PROPOSAL)
        other = SessionManager(caches["default"])
        assert [other.resolve(each, **OTHER) for each in IDS] == [(session, Outcome.HIT) for session in bound]


def replace(server, replica):
    """Start the server with the data of the replica."""
    replica.kill()
    server.kill()
    os.replace(f"{replica.folder}/dump.rdb", f"{server.folder}/dump.rdb")
    server.start()


@on_redis
def test_restored_session_keeps_its_remaining_idle_time(manager, raw, flush, caplog):
    now = time.monotonic()
    for each in IDS[:3]:
        manager.resolve(each, **PROPOSAL)
    age(manager, IDS[0], expires_at=now + 100)
    age(manager, IDS[1], expires_at=now + 0.5)
    age(manager, IDS[2], expires_at=now - 1)
    flush()
    manager.resolve("new", **OTHER)
    assert 80 < raw.pttl(keys.session(IDS[0])) / 1000 <= 100
    assert not raw.exists(keys.session(IDS[1]))
    assert not raw.exists(keys.session(IDS[2]))
    assert "not all" not in caplog.text


@on_redis
def test_session_waits_for_its_turn_when_it_was_last_seen_long_ago(manager, flush):
    for each in IDS[:2]:
        manager.resolve(each, **PROPOSAL)
    age(manager, IDS[0], at=time.monotonic() - RECENT_SECONDS - 1)
    flush()
    manager.resolve("new", **OTHER)
    assert [manager.get(each) is None for each in IDS[:2]] == [True, False]
    assert manager.resolve(IDS[0], **OTHER).session.provider == PROPOSAL["provider"]


@on_redis
@pytest.mark.parametrize("marker", ["of this binding", "of a later one", "of another program", "of an earlier one"])
def test_deleted_session_is_restored_only_when_it_was_bound_later(manager, raw, flush, marker):
    bound = manager.resolve(IDS[0], **PROPOSAL).session
    flush()
    written = {"of another program": 1, "of a later one": bound.created_at + 5, "of an earlier one": 1_700_000_000}
    raw.set(keys.deleted(IDS[0]), written.get(marker, bound.created_at))
    manager.resolve("new", **OTHER)
    assert manager.get(IDS[0]) == (bound if marker == "of an earlier one" else None)


@on_redis
def test_what_another_process_bound_or_wrote_stays(manager, other, raw, flush):
    for each in IDS[:2]:
        manager.resolve(each, **PROPOSAL)
    flush()
    winner = other.resolve(IDS[0], **OTHER).session
    raw.set(keys.session(IDS[1]), b"junk", ex=60)
    manager.resolve("new", **OTHER)
    assert (manager.get(IDS[0]), manager.get_raw(IDS[1])) == (winner, b"junk")


@on_valkey
def test_proposal_of_an_outage_is_not_restored(manager, flush):
    manager.resolve("before", **PROPOSAL)
    session = Session(IDS[0], "openai", "gpt-4", "user-456", int(time.time()))
    manager._store.last_seen.remember(session, time.monotonic(), 60, 10, is_stored=False)
    flush()
    manager.resolve("new", **OTHER)
    assert (manager.get(IDS[0]), manager.get("before") is None) == (None, False)


@on_redis
def test_one_missing_session_is_not_a_loss(manager, raw):
    """It was evicted, or deleted by another program."""
    for each in IDS[:3]:
        manager.resolve(each, **PROPOSAL)
    raw.delete(keys.session(IDS[0]))
    raw.delete(keys.session(IDS[1]))
    assert manager.resolve(IDS[1], **OTHER).outcome is Outcome.CREATED
    manager.resolve("new", **OTHER)
    assert manager.get(IDS[0]) is None


@on_valkey
@pytest.mark.parametrize(("turn", "found"), [("of another", None), ("of a lost one", PROPOSAL["provider"])])
def test_loss_is_noticed_once_a_second_or_at_the_turn_of_a_lost_session(manager, flush, monkeypatch, turn, found):
    monkeypatch.setattr(local_cache, "CHECK_SECONDS", 60)
    for each in IDS[:2]:
        manager.resolve(each, **PROPOSAL)
    flush()
    manager.resolve(IDS[1] if turn == "of a lost one" else "new", **OTHER)
    session = manager.get(IDS[0])
    assert (session and session.provider) == found


@on_valkey
def test_next_loss_is_restored_after_the_restoration_that_it_met(manager, flush, monkeypatch):
    started, go_on, restore = [], Event(), restoration._restore

    def restore_slowly(store, send_signal, seen):
        started.append(len(seen))
        go_on.wait(20)
        return restore(store, send_signal, seen)

    monkeypatch.setattr(restoration, "Thread", Thread)
    monkeypatch.setattr(restoration, "_restore", restore_slowly)
    for each in IDS[:3]:
        manager.resolve(each, **PROPOSAL)
    for _ in range(5):
        flush()
        manager.resolve("new", **OTHER)
    wait_until(lambda: started)
    go_on.set()
    wait_until(lambda: not manager._store.loss_detector.is_restoring)
    assert started == [4]
    flush()
    manager.resolve("new", **OTHER)
    wait_until(lambda: len(started) == 2 and not manager._store.loss_detector.is_restoring)
    assert manager.get(IDS[0]).provider == PROPOSAL["provider"]


@on_valkey
def test_resolve_answers_when_no_thread_can_be_started(call, manager, flush, monkeypatch, caplog):
    monkeypatch.setattr(restoration, "Thread", Mock(return_value=Mock(start=Mock(side_effect=RuntimeError("full")))))
    call("resolve", IDS[0], **PROPOSAL)
    flush()
    assert call("resolve", IDS[0], **OTHER).session.provider == PROPOSAL["provider"]
    assert "lost sessions wait for their next turns: full" in caplog.text


@on_valkey
@pytest.mark.parametrize("reads", [0, 1, 2])
def test_session_that_is_deleted_while_lost_ones_are_read_stays_deleted(manager, flush, monkeypatch, reads):
    """On a Cluster the commands of a batch are run by several servers, in any order."""
    for each in IDS[:2]:
        manager.resolve(each, **PROPOSAL)
    operators, left = manager._store.operators, [reads]
    send = operators.send

    def send_slowly(request):
        if not isinstance(request, Batch) or left[0] < 0:
            return send(request)
        replies = []
        for command in reversed(request.commands):
            left[0] -= 1
            if left[0] == -1:
                SessionManager(caches["default"]).delete(IDS[0])
            replies.insert(0, send(command))
        return replies

    flush()
    SessionManager(caches["default"]).create(IDS[0], **PROPOSAL)
    monkeypatch.setattr(operators, "send", send_slowly)
    manager.resolve("new", **OTHER)
    assert (left[0] < 0, manager.get(IDS[0])) == (True, None)
    assert manager.get(IDS[1]) is not None


@on_redis
@pytest.mark.parametrize("junk", [b"", b"-3", b"x", b"1.5", None])
def test_key_of_the_process_may_be_overwritten_or_missing(call, manager, raw, junk):
    call("resolve", IDS[0], **PROPOSAL)
    (key,) = raw.scan_iter(keys.process("*"))
    raw.delete(key)
    if junk is None:
        raw.rpush(key, "x")
    else:
        raw.set(key, junk)
    raw.delete(keys.session(IDS[0]))
    call("resolve", "new", **OTHER)
    assert manager.get(IDS[0]) is not None
    assert 0 < raw.ttl(key) <= RECENT_SECONDS or junk is None


@on_valkey
def test_forked_process_has_a_key_of_its_own_and_has_lost_nothing(manager, raw, monkeypatch):
    manager.resolve(IDS[0], **PROPOSAL)
    raw.delete(keys.session(IDS[0]))  # by another program, without a marker
    monkeypatch.setattr(os, "getpid", lambda: 1)
    manager.resolve(IDS[1], **PROPOSAL)
    assert len(raw.keys(keys.process("*"))) == 2
    assert manager._store.loss_detector.restorer is None
    assert manager.get(IDS[0]) is None


@on_valkey
@pytest.mark.parametrize("receiver", ["function", "coroutine function"])
def test_signal_and_metric_report_each_restored_session(call, manager, flush, settings, receiver):
    settings.SESSIONS_STICKY = {"METRICS": True}
    bound = [call("resolve", each, **PROPOSAL).session for each in IDS[:3]]
    before = REGISTRY.get_sample_value("sessions_sticky_restored_total") or 0
    heard = []

    def receive(**kwargs):
        heard.append((kwargs["manager"], kwargs["session"]))

    async def areceive(**kwargs):
        receive(**kwargs)

    flush()
    receiver = receive if receiver == "function" else areceive
    session_created.connect(receiver)
    try:
        call("resolve", IDS[0], **OTHER)
    finally:
        session_created.disconnect(receiver)
    assert heard == [(manager, bound[number]) for number in (0, 2, 1)]  # of the turn, then the one last seen
    assert REGISTRY.get_sample_value("sessions_sticky_restored_total") == before + 3


@on_valkey
def test_restored_sessions_are_not_counted_when_metrics_are_off(manager, flush, settings):
    settings.SESSIONS_STICKY = {"METRICS": False}
    bound = [manager.resolve(each, **PROPOSAL).session for each in IDS[:3]]
    before = REGISTRY.get_sample_value("sessions_sticky_restored_total")
    flush()
    manager.resolve(IDS[0], **OTHER)
    assert [manager.get(each.id) for each in bound] == bound
    assert REGISTRY.get_sample_value("sessions_sticky_restored_total") == before


@on_valkey
def test_log_has_one_line_of_a_loss(manager, flush, caplog):
    for each in IDS:
        manager.resolve(each, **PROPOSAL)
    flush()
    manager.resolve("new", **OTHER)
    manager.resolve("new", **OTHER)
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    number = len(IDS)
    assert warnings == [f"the store lost sessions: restored {number} of {number + 1} seen in the last hour"]


@on_valkey
def test_resolve_answers_when_the_check_is_refused(call, manager, raw, caplog):
    call("resolve", IDS[0], **PROPOSAL)
    raw.config_set("maxmemory", 1)
    try:
        assert call("resolve", IDS[0], **PROPOSAL).outcome is Outcome.HIT
    finally:
        raw.config_set("maxmemory", 0)
    assert ["not checked whether" in record.getMessage() for record in caplog.records] == [True]


@on_valkey
def test_restoration_ends_when_the_store_fails_during_it(manager, flush, monkeypatch, caplog):
    for each in IDS:
        manager.resolve(each, **PROPOSAL)
    flush()
    gone = SessionStoreUnavailable("gone")
    gone.__cause__ = OSError()
    steps = Mock(side_effect=[BATCH_SIZE, gone])
    monkeypatch.setattr(restoration, "_restore", steps)
    manager.resolve("new", **OTHER)
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [
        "not all lost sessions restored: gone",
        f"the store lost sessions: restored {BATCH_SIZE} of {len(IDS) + 1} seen in the last hour",
    ]


@on_portable
def test_other_caches_restore_at_the_next_turn_only(manager, other):
    bound = manager.resolve(IDS[0], **PROPOSAL).session
    caches["default"].clear()
    manager.resolve("new", **OTHER)
    assert manager.get(IDS[0]) is None
    assert manager.resolve(IDS[0], **OTHER) == (bound, Outcome.CREATED)
