"""`reindex` makes the index true, whatever has happened to it, while it is in use."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from threading import Event

import pytest

from sessions_sticky import Session, SessionManager, keys
from sessions_sticky.queries import reindex
from sessions_sticky.stores import index
from tests.sessions_sticky.calls import MOVE, PROPOSAL, sample
from tests.sessions_sticky.indexed import (
    HOSTILE,
    check,
    entries,
    fill,
    forget_refreshes,
    index_keys,
    lose_index,
    on_real,
    write_raw,
)
from tests.sessions_sticky.marks import on_redis
from tests.sessions_sticky.queries.writer import writer


class Stop(Exception):
    pass


def stop(done, expected):
    raise Stop


def living(raw):
    return [Session.from_json(raw.get(key)) for key in raw.scan_iter("sentinel:session:*")]


@on_redis
def test_reindex_finds_what_other_programs_have_written(call, manager, raw):
    made = [*fill(manager, 2), *(write_raw(raw, name, provider=name, owner=name) for name in HOSTILE)]
    raw.set(keys.session("renamed"), sample("another id").to_json())
    raw.set(keys.session("junk"), "junk")
    raw.rpush(keys.session("list"), "junk")
    raw.set(b"sentinel:session:\xff", "junk")
    assert call("reindex") == len(made)
    check(raw, made)
    assert call("count") == call("stats").sessions == len(made)


@on_real
@pytest.mark.parametrize("ttl", [-1, 5, 1_000_000])
def test_reindex_enters_a_session_by_the_time_it_has_left(call, raw, ttl):
    write_raw(raw, "conv-123", ttl=100)
    if ttl < 0:
        raw.persist(keys.session("conv-123"))
    else:
        raw.expire(keys.session("conv-123"), ttl)
    assert call("reindex") == 1
    left = raw.zscore(keys.index_all(), "conv-123") - time.time()
    assert left == pytest.approx(86_400 if ttl < 0 else ttl, abs=2)


@on_real
def test_reindex_corrects_an_expiry_that_another_program_has_changed(call, manager, raw):
    fill(manager, 2)
    raw.expire(keys.session("conv-0"), 500)
    raw.expire(keys.session("conv-1"), 200_000)
    call("reindex")
    assert raw.zscore(keys.index_all(), "conv-0") == pytest.approx(time.time() + 500, abs=2)
    assert raw.zscore(keys.index_all(), "conv-1") == pytest.approx(time.time() + 200_000, abs=2)


@on_real
def test_index_outlives_the_session_that_lives_longest_when_reindex_enters_several(manager, raw):
    names = {"a": 200_000, "b": 300_000, "c": 100}  # in the order in which their routes are entered
    for name, ttl in names.items():
        write_raw(raw, name, ttl=ttl, provider=name)
    manager.reindex()
    left_ms = {key: raw.pttl(key) for key in (keys.index_all(), keys.index_routes(), keys.owner("user-456"))}
    assert min(left_ms.values()) > 300_000 * 1_000, left_ms


@on_real
@pytest.mark.parametrize("number", [20, 300])  # Redis encodes small ZSETs, and formats their scores, differently
def test_reindex_drops_entries_without_a_session(call, manager, raw, number):
    made = fill(manager, number)
    for session in made[::2]:
        raw.delete(keys.session(session.id))
    moved = write_raw(raw, "conv-1", provider="mistral", owner="another-owner")
    for key in (keys.owner("missing"), keys.route("no", "body"), keys.owner("user-456")):
        raw.zadd(key, {"conv-3": 4e9, "never": 4e9, b"\xff": 4e9, "": 5})
    raw.zadd(keys.index_routes(), {"junk": 4e9})
    assert call("reindex") == number // 2
    check(raw, [moved, *made[3::2]])
    assert call("count") == call("stats").sessions == number // 2


@on_real
def test_reindex_repairs_index_keys_of_another_type(call, manager, raw):
    made = fill(manager, 3)
    for key in (*index_keys(raw), f"{keys.index_prefix()}walks", keys.owner("missing"), keys.route("no", "body")):
        raw.delete(key)
        raw.rpush(key, "junk")
    assert call("reindex") == 3
    check(raw, made)
    assert raw.type(f"{keys.index_prefix()}walks") == b"none"


@on_real
@pytest.mark.parametrize("lost", ["all", "some", "routes", "owner", "route", "total"])
def test_reindex_makes_the_index_again_when_it_was_lost(call, manager, raw, lost):
    made = [*fill(manager, 3), manager.create("other", "mistral", "large", "another-owner")]
    reported = call("stats")
    if lost == "all":
        lose_index(raw)
    elif lost == "some":
        raw.zrem(keys.index_all(), "conv-0")
        raw.zrem(keys.owner("user-456"), "conv-1")
        raw.zrem(keys.route("openai", "gpt-4"), "conv-2")
    else:
        doomed = {
            "routes": keys.index_routes(),
            "owner": keys.owner("user-456"),
            "route": keys.route("openai", "gpt-4"),
            "total": keys.index_all(),
        }
        raw.delete(doomed[lost])
    assert call("reindex") == 4
    check(raw, made)
    assert call("stats") == reported  # also how many were created: these were counted when they were


@on_real
def test_reindex_changes_nothing_when_nothing_is_wrong(call, manager, raw):
    fill(manager, 200)
    write_raw(raw, "raw")
    raw.persist(keys.session("raw"))
    call("reindex")
    before, info = entries(raw), raw.info("commandstats")
    assert call("reindex") == 201
    assert entries(raw) == before
    after = raw.info("commandstats")
    for command in ("zadd", "zrem", "hset", "hincrby", "set", "del", "pexpire"):
        assert after.get(f"cmdstat_{command}", {}).get("calls") == info.get(f"cmdstat_{command}", {}).get("calls")


@on_real
def test_reindex_reports_its_progress(call, manager, raw, monkeypatch):
    monkeypatch.setattr(reindex, "BATCH_SIZE", 20)
    fill(manager, 50)
    reported = []
    call("reindex", lambda *progress: reported.append(progress))
    done = [each for each, _ in reported]
    assert done == sorted(done)
    assert len({expected for _, expected in reported}) == 1
    assert all(0 < each <= expected for each, expected in reported)
    assert len(reported) > 2


@on_real
def test_reindex_stops_cleanly_when_its_progress_raises(call, manager, raw):
    made = fill(manager, 20)
    lose_index(raw)
    with pytest.raises(Stop):
        call("reindex", stop)
    assert call("reindex") == 20
    check(raw, made)


@on_real
def test_reindex_handles_more_than_one_batch(call, manager, raw, monkeypatch):
    monkeypatch.setattr(reindex, "BATCH_SIZE", 3)
    made = [manager.create(f"conv-{n}", f"p{n}", "m", f"o{n}") for n in range(40)]
    for n in range(0, 40, 4):
        raw.delete(keys.session(f"conv-{n}"))
        raw.zrem(keys.index_all(), f"conv-{n + 1}")
    assert call("reindex") == 30
    check(raw, [session for n, session in enumerate(made) if n % 4])


@on_real
@pytest.mark.parametrize("moment", [index.READ.sha, "SCAN"], ids=["read", "scan"])
def test_reindex_skips_sessions_that_have_changed(manager, raw, monkeypatch, moment):
    made = fill(manager, 6)
    lose_index(raw)
    store, changed = manager._store.operators, []
    send = store.send

    def send_then_change(request):
        reply = send(request)
        if not changed and moment in getattr(request, "args", ())[:2]:
            changed.append(True)
            other = SessionManager()
            made[0:2] = [
                other.rebind(made[0], **MOVE),
                other.create("conv-1", "xai", "grok", "another-owner", replace=True),
            ]
            other.delete(made.pop().id)
        return reply

    monkeypatch.setattr(store, "send", send_then_change)
    manager.reindex()
    assert changed
    check(raw, made)


@pytest.mark.slow
@on_real
def test_reindex_leaves_no_drift_while_threads_write(manager, raw, store_name):
    for number in range(200):
        write_raw(raw, f"raw-{number}", provider="p", model=f"m{number % 5}")
    over = Event()

    def work(worker):
        mine = SessionManager()
        number = 0
        while not over.is_set():
            number += 1
            conversation_id = f"raw-{(number * 7 + worker) % 200}"
            session = mine.create(f"new-{worker}-{number % 30}", **PROPOSAL, replace=True)
            mine.rebind(session, **MOVE)
            if number % 3:
                mine.delete(session.id)
            if number % 5 == 0:
                mine.delete(conversation_id)
            else:
                forget_refreshes(mine)
                mine.touch(conversation_id)

    with ThreadPoolExecutor(2) as pool:
        workers = [pool.submit(work, worker) for worker in range(2)]
        try:
            for _ in range(10):
                manager.reindex()
        finally:
            over.set()
        for worker in workers:
            worker.result()
    if store_name == "cluster":  # where a change and its entry are two steps, and others may come between them
        manager.reindex()
    check(raw, living(raw))
    assert manager.all().count() == len(living(raw))


@on_real
@pytest.mark.slow
def test_reindex_finds_nothing_to_do_when_writers_were_killed(manager, raw, store_name, request):
    """Each change is one step with its entries: kill -9 leaves nothing half done, and `reindex` nothing at all."""
    url = request.getfixturevalue(f"{store_name}_url")
    for round_ in range(5 if store_name == "valkey" else 2):
        with ExitStack() as stack:
            writers = [stack.enter_context(writer(url, "change", f"{round_}{n}")) for n in range(2)]
            for each in writers:
                assert each.stdout.readline() == "begun\n"
        manager.reindex()
        check(raw, living(raw))
        assert manager.all().count() == len(living(raw))


@pytest.mark.slow
@on_real
def test_reindex_finds_nothing_when_all_have_expired(manager, raw):
    brief = SessionManager(ttl_seconds=1)
    brief.create("brief", **PROPOSAL)
    while raw.exists(keys.session("brief")):
        time.sleep(0.01)
    assert manager.all().count() == manager.reindex() == 0
    check(raw, [])
