from __future__ import annotations

import pytest

from sessions_sticky.queries.server_info import Level, judge, make_finding, persistence, read_info, snapshots

HEALTHY = {
    "redis_version": "7.0.15",
    "maxmemory": "0",
    "maxmemory_policy": "noeviction",
    "used_memory": "1000",
    "role": "master",
    "connected_slaves": "0",
}


def level_of(subject, **info):
    (finding,) = [finding for finding in judge({**HEALTHY, **info}) if finding.subject == subject]
    assert bool(finding.hint) == (finding.level is not Level.OK)
    return finding.level


def test_judge_finds_nothing_when_the_server_is_healthy():
    assert {finding.level for finding in judge(HEALTHY)} == {Level.OK}


@pytest.mark.parametrize(
    ("info", "level"),
    [
        ({"redis_version": "6.2.14"}, Level.ERROR),
        ({"redis_version": "7.0.0"}, Level.OK),
        ({"redis_version": "10.1.0"}, Level.OK),
        ({"redis_version": "unstable"}, Level.ERROR),
        ({"redis_version": "7.2.4", "valkey_version": "7.2.8"}, Level.ERROR),
        ({"redis_version": "7.2.4", "valkey_version": "8.0.0"}, Level.OK),
    ],
)
def test_judge_reports_whether_the_version_is_supported(info, level):
    assert level_of("version", **info) is level


def test_judge_warns_about_evicted_keys_after_the_policy_was_changed():
    assert level_of("eviction", evicted_keys="1234") is Level.WARNING


@pytest.mark.parametrize(
    ("policy", "level"),
    [("noeviction", Level.OK), ("allkeys-lru", Level.WARNING), ("volatile-ttl", Level.WARNING)],
)
def test_judge_warns_when_the_policy_evicts_live_sessions(policy, level):
    assert level_of("eviction", maxmemory_policy=policy) is level


@pytest.mark.parametrize(
    ("limit", "used", "level"),
    [
        (0, 10**9, Level.OK),
        (1000, 800, Level.OK),
        (1000, 801, Level.WARNING),
        (1000, 949, Level.WARNING),
        (1000, 950, Level.ERROR),
        (1000, 1200, Level.ERROR),
    ],
)
def test_judge_reports_how_full_the_memory_is(limit, used, level):
    assert level_of("memory", maxmemory=str(limit), used_memory=str(used)) is level


@pytest.mark.parametrize(
    ("used", "message", "hint"),
    [
        (950, "Redis is almost full: 95.0%", "before Redis is full"),
        (1000, "Redis is almost full: 100.0%", "before Redis is full"),
        (1001, "Redis is full: 100.1%", "Raise maxmemory"),
    ],
)
def test_judge_suggests_deleting_only_while_redis_accepts_it(used, message, hint):
    (found,) = [
        each for each in judge({**HEALTHY, "maxmemory": "1000", "used_memory": str(used)}) if each.subject == "memory"
    ]
    assert found.message.startswith(message)
    assert found.hint.endswith(hint)


def test_judge_only_warns_of_full_memory_when_the_policy_evicts():
    full = {"maxmemory": "1000", "used_memory": "1000", "maxmemory_policy": "allkeys-lru"}
    assert level_of("memory", **full) is Level.WARNING


@pytest.mark.parametrize(
    ("info", "level"),
    [
        ({"role": "slave"}, Level.ERROR),
        ({"connected_slaves": "2"}, Level.NOTE),
        ({"connected_slaves": "2", "min_slaves_good_slaves": "2"}, Level.OK),
    ],
)
def test_judge_evaluates_the_role(info, level):
    assert level_of("role", **info) is level


def test_judge_returns_findings_when_info_is_empty():
    assert [finding.subject for finding in judge({})] == ["version", "eviction", "memory", "role"]


@pytest.mark.parametrize(
    ("info", "level"),
    [
        ({"rdb_last_bgsave_status": "err", "aof_enabled": "1"}, Level.ERROR),
        ({"aof_last_write_status": "err"}, Level.ERROR),
        ({"rdb_last_bgsave_status": "ok", "aof_last_write_status": "ok", "aof_enabled": "1"}, Level.OK),
        ({"aof_enabled": "0"}, None),
    ],
)
def test_persistence_is_judged_by_info(info, level):
    finding = persistence(info)
    assert (finding and finding.level) is level


def test_snapshots_keep_something_and_nothing_keeps_nothing():
    assert snapshots("3600 1 300 100").level is Level.OK
    assert snapshots("").level is Level.WARNING


def test_make_finding_has_no_hint_when_it_is_ok():
    assert make_finding(None, "memory", "fine", "Fix it").hint == ""
    assert make_finding(Level.WARNING, "memory", "bad", "Fix it").hint == "Fix it"


def test_read_info_reads_names_and_values():
    text = b"# Server\r\nredis_version:7.0.15\r\nexecutable:/a:b\r\n\r\n# Memory\r\nmaxmemory:0\r\n"
    assert read_info(text) == {"redis_version": "7.0.15", "executable": "/a:b", "maxmemory": "0"}
