from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from sessions_sticky import cache_config
from sessions_sticky.queries import doctor
from sessions_sticky.queries.server_info import Level
from sessions_sticky.stores import rights
from tests.conftest import REAL_STORES, patient_config
from tests.servers import VALKEY, free_port, start_server
from tests.sessions_sticky.calls import PROPOSAL, sample
from tests.waiting import wait_until

real_stores = pytest.mark.parametrize("store_name", REAL_STORES, indirect=True)
on_valkey = pytest.mark.parametrize("store_name", ["valkey"], indirect=True)


@pytest.fixture(autouse=True)
def _no_checks_of_a_project(monkeypatch):
    monkeypatch.setattr(doctor, "_checks", [])


@pytest.fixture
def examine():
    """Return the findings by subject."""

    def findings():
        found = doctor.examine()
        by_subject = {finding.subject: finding for finding in found}
        assert len(by_subject) == len(found)
        return by_subject

    return findings


def levels(found):
    return {subject: finding.level for subject, finding in found.items() if finding.level is not Level.OK}


@real_stores
def test_findings_are_ok_when_everything_works(manager, examine):
    for number in range(20):
        manager.create(f"conv-{number}", **PROPOSAL)
    found = examine()
    assert levels(found) == {"persistence": Level.WARNING}  # the tests' servers keep nothing
    assert [*found] == [
        *("settings", "latency", "version", "eviction", "memory", "role", "persistence", "clock"),
        *("values", "expiry", "index", "rights"),
    ]
    assert "0 of 20 sampled sessions" in found["index"].message


@pytest.mark.parametrize("store_name", ["cluster"], indirect=True)
def test_findings_have_the_rights_on_every_primary_of_a_cluster(manager, examine, monkeypatch):
    assert examine()["rights"].level is Level.OK
    monkeypatch.setitem(rights.ON_CLUSTER, "missing", ("missing",))  # no server can check it
    assert examine()["rights"].level is Level.NOTE


@pytest.mark.parametrize("store_name", ["fakeredis"], indirect=True)
def test_findings_report_what_could_not_be_checked(manager, examine):
    manager.create("conv-1", **PROPOSAL)
    found = examine()
    assert levels(found) == {"server": Level.NOTE, "rights": Level.NOTE}
    assert "not checked" in found["server"].message
    assert "not checked" in found["rights"].message


@real_stores
def test_findings_write_nothing(manager, raw, examine):
    manager.create("conv-1", **PROPOSAL)
    raw.set("sentinel:session:poison", "no session")
    before = {key: (raw.dump(key), raw.pttl(key) > 0) for key in raw.scan_iter()}
    examine()
    assert {key: (raw.dump(key), raw.pttl(key) > 0) for key in raw.scan_iter()} == before


@on_valkey
def test_findings_warn_of_values_that_another_program_wrote_wrongly(manager, raw, examine, caplog):
    for number in range(5):
        manager.create(f"conv-{number}", **PROPOSAL)
    raw.persist("sentinel:session:conv-0")
    raw.set("sentinel:session:poison", "no session", ex=100)
    raw.set("sentinel:session:other", sample("conv-1").to_json(), ex=100)
    raw.set(b"sentinel:session:\xff", sample().to_json(), ex=100)
    raw.lpush("sentinel:session:list", "x")
    found = examine()
    assert levels(found) == {"persistence": Level.WARNING, "values": Level.WARNING, "expiry": Level.WARNING}
    assert found["values"].message.startswith("4 of 9 sampled ")
    assert found["expiry"].message.startswith("2 of 9 sampled ")
    assert not caplog.records


@on_valkey
def test_findings_report_what_the_index_lacks(manager, raw, examine):
    for number in range(5):
        manager.create(f"conv-{number}", **PROPOSAL)
    raw.set("sentinel:session:theirs", sample("theirs").to_json(), ex=100)
    raw.zrem("sentinel:{index}:owner:user-456", "conv-0")
    assert examine()["index"].message.startswith("2 of 6 sampled ")
    assert "reindex" in examine()["index"].hint
    manager.reindex()
    assert examine()["index"].level is Level.OK


@on_valkey
def test_findings_are_of_a_sample_when_there_are_many_sessions(manager, raw, examine, monkeypatch):
    monkeypatch.setattr(doctor, "SAMPLE_SIZE", 50)
    for number in range(300):
        raw.set(f"other:{number}", 1)
        raw.set(f"sentinel:session:conv-{number}", sample(f"conv-{number}").to_json(), ex=100)
    assert examine()["index"].message.startswith("50 of 50 sampled ")


@on_valkey
def test_findings_note_what_is_turned_off(manager, examine, settings):
    settings.SESSIONS_STICKY = {"INDEX": False, "HISTORY_LENGTH": 0}
    manager.create("conv-1", **PROPOSAL)
    assert levels(examine()) == {"persistence": Level.WARNING, "index": Level.NOTE, "history": Level.NOTE}


@on_valkey
@pytest.mark.parametrize("ahead", [100, -100])
def test_findings_warn_when_the_clocks_differ(manager, examine, monkeypatch, ahead):
    clock = SimpleNamespace(time=lambda: time.time() + ahead, perf_counter=time.perf_counter)
    monkeypatch.setattr(doctor, "time", clock)
    found = examine()
    assert found["clock"].level is Level.WARNING
    assert "100.0 s" in found["clock"].message


@on_valkey
def test_findings_warn_when_the_store_is_slow(manager, examine, monkeypatch):
    ticks = iter(range(1000))
    monkeypatch.setattr(doctor, "time", SimpleNamespace(time=time.time, perf_counter=lambda: next(ticks) / 100))
    found = examine()
    assert found["latency"].level is Level.WARNING
    assert "10.00 ms" in found["latency"].message


@pytest.mark.parametrize("store_name", ["locmem", "database"], indirect=True)
@pytest.mark.django_db(transaction=True)
def test_findings_name_the_cache_when_it_is_not_redis(manager, examine, store_name):
    found = examine()
    assert found["cache"].level is Level.NOTE
    assert found["cache"].message.startswith({"locmem": "LocMemCache", "database": "DatabaseCache"}[store_name])
    assert found["settings"].level is Level.WARNING
    assert "index" not in found


@pytest.mark.parametrize("url", ["redis://127.0.0.1:{}/0", "unix:///nowhere/at/all.sock?db=0"])
def test_findings_are_an_error_when_the_store_is_down(examine, settings, url):
    settings.CACHES = {"default": cache_config(url.format(free_port()))}
    found = examine()
    assert levels(found) == {"reachable": Level.ERROR}
    assert "REDIS_URL" in found["reachable"].hint


def test_findings_are_an_error_when_the_store_stalls(examine, settings):
    with start_server(VALKEY) as server:
        settings.CACHES = {"default": cache_config(server.url)}
        server.stop()
        assert levels(examine()) == {"reachable": Level.ERROR}


def test_findings_repeat_the_system_checks(examine, settings, session_cache):
    config = dict(settings.CACHES["default"])
    del config["KEY_FUNCTION"]
    settings.CACHES = {"default": config}
    found = examine()
    assert found["settings"].level is Level.ERROR
    assert "sentinel:session:conv-123" in found["settings"].message
    assert "cache_config" in found["settings"].hint
    settings.SILENCED_SYSTEM_CHECKS = ["sessions_sticky.E003"]
    assert examine()["settings"].level is Level.OK


@pytest.mark.parametrize(
    ("options", "caches", "said"),
    [
        ({"CACHE": "nowhere"}, {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}, "'nowhere'"),
        ({}, {"default": {"BACKEND": "no.such.Cache"}}, "cannot be opened"),
        ({"INDEX": "yes"}, None, "'yes'"),
    ],
)
def test_findings_are_an_error_when_a_setting_is_wrong(examine, settings, session_cache, options, caches, said):
    settings.SESSIONS_STICKY = options
    if caches:
        settings.CACHES = caches
    found = examine()
    assert found["settings"].level is Level.ERROR
    assert said in found["settings"].message


def test_findings_report_the_configuration_of_the_server(examine, settings):
    options = ("--appendonly", "yes", "--maxmemory", "1500kb", "--maxmemory-policy", "allkeys-lru")
    with start_server(VALKEY, *options) as server:
        settings.CACHES = {"default": patient_config(server.url)}
        found = examine()
        assert levels(found) == {"eviction": Level.WARNING}
        assert "allkeys-lru" in found["eviction"].message
        assert "append-only" in found["persistence"].message
        with server.client() as client:
            client.config_set("appendonly", "no")
            client.config_set("save", "3600 1")
            assert "snapshots" in examine()["persistence"].message
            client.config_set("maxmemory", "1mb")
            assert examine()["memory"].level is Level.WARNING


def test_findings_distinguish_a_replica_from_its_primary(examine, settings):
    with start_server(VALKEY, tcp=True) as primary, primary.client() as client:
        port = client.connection_pool.connection_kwargs["port"]
        with start_server(VALKEY, "--replicaof", "127.0.0.1", str(port)) as replica:
            settings.CACHES = {"default": patient_config(replica.url)}
            assert examine()["role"].level is Level.ERROR
            wait_until(lambda: client.info("replication")["connected_slaves"] == 1)
            settings.CACHES = {"default": patient_config(primary.url)}
            assert "1 replicas" in examine()["role"].message
            client.config_set("min-replicas-to-write", 1)
            assert examine()["role"].level is Level.OK


@pytest.mark.parametrize(
    ("refused", "missing"),
    [
        ("-config", {"persistence": Level.NOTE}),
        ("-info", {"server": Level.NOTE}),
        ("-time", {"persistence": Level.WARNING, "clock": Level.NOTE, "rights": Level.ERROR}),
        ("-scan", {"persistence": Level.WARNING, "sessions": Level.NOTE, "rights": Level.ERROR}),
    ],
)
def test_findings_report_what_the_server_does_not_permit(examine, settings, refused, missing):
    with start_server(VALKEY, tcp=True) as server, server.client() as client:
        client.execute_command("ACL", "SETUSER", "app", "on", ">secret", "~*", "+@all", refused)
        settings.CACHES = {"default": patient_config(server.url.replace("//", "//app:secret@"))}
        found = examine()
        assert levels(found) == missing
        assert all("not checked" in found[name].message for name, level in missing.items() if level is Level.NOTE)
        assert "secret" not in str(found)


@on_valkey
def test_check_of_a_project_is_among_the_findings(manager, examine):
    doctor.register_check(lambda: [doctor.Finding(Level.ERROR, "fuel", "none is left")])
    assert examine()["fuel"].level is Level.ERROR
    assert not [each for each in doctor.examine(sample=False) if each.subject == "fuel"]


@on_valkey
def test_quick_examination_reads_no_sessions(manager, raw):
    for number in range(100):
        manager.create(f"conv-{number}", **PROPOSAL)
    before = raw.info("stats")["total_commands_processed"]
    subjects = {each.subject for each in doctor.examine(sample=False)}
    assert raw.info("stats")["total_commands_processed"] - before < 12
    assert {"latency", "memory", "persistence"} <= subjects
    assert not {"values", "expiry", "index"} & subjects
