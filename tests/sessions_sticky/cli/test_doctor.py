from __future__ import annotations

import json

import pytest
from django.utils.translation import override

from sessions_sticky import cache_config
from sessions_sticky.queries.server_info import Finding, Level, judge
from tests.servers import free_port, start_server
from tests.sessions_sticky.cli.conftest import run


def test_doctor_prints_a_line_for_each_finding(manager):
    found = run("doctor")
    assert (found.code, found.err) == (0, "")
    *lines, sums = found.out.splitlines()
    assert {line.split()[0] for line in lines} == {"OK", "WARNING"}
    assert "OK       version: Valkey " in found.out
    assert "WARNING  persistence: none: a restart loses all sessions" in found.out
    assert "remember. Set appendonly yes\n" in found.out
    assert sums == "0 errors, 1 warning"
    assert "\\x" not in found.out


@pytest.mark.parametrize("language", ["en", "de"])
def test_doctor_prints_spaces_between_numbers_and_units(language, monkeypatch):
    with override(language):
        findings = [*judge({"used_memory": "1900000"}), *judge({"used_memory": "9", "maxmemory": "10"})]
        assert any("\xa0" in finding.message for finding in findings)
        monkeypatch.setattr("sessions_sticky.cli.queries.examine", lambda: findings)
        printed = run("doctor").out
    assert "\\x" not in printed
    assert "1.8 MB" in printed.replace(",", ".")


def test_doctor_gives_its_findings_as_json(manager):
    findings = json.loads(run("doctor", "--json").out)["findings"]
    assert all(set(finding) == {"level", "subject", "message", "hint"} for finding in findings)
    assert [finding["subject"] for finding in findings if finding["level"] == "warning"] == ["persistence"]


def test_doctor_fails_when_it_found_an_error(settings):
    settings.CACHES = {"default": cache_config(f"redis://127.0.0.1:{free_port()}/0")}
    found = run("doctor")
    assert (found.code, found.err) == (5, "doctor found 1 error")
    assert "ERROR    reachable: Session store unavailable" in found.out
    findings = json.loads(run("doctor", "--json").out)["findings"]
    assert [each["subject"] for each in findings if each["level"] == "error"] == ["reachable"]


def test_doctor_runs_when_the_settings_are_wrong(manager, settings):
    settings.SESSIONS_STICKY = {"CACHE": "nowhere", "INDEKS": True}
    found = run("doctor")
    assert found.code == 5
    assert "ERROR    settings: Unknown key 'INDEKS' in SESSIONS_STICKY. Did you mean 'INDEX'?\n" in found.out


@pytest.mark.parametrize("store_name", ["locmem"])
def test_doctor_reports_the_limits_of_a_portable_cache(manager):
    found = run("doctor")
    assert found.code == 0
    assert "NOTE     cache: LocMemCache binds, reads and deletes sessions; it cannot list or move them" in found.out


@pytest.mark.slow
def test_doctor_colors_the_levels_on_a_terminal(terminal):
    shown = terminal("doctor")
    assert shown.finish() == 0
    assert "\x1b[32;1mOK" in shown.text
    assert "\x1b[33;1mWARNING" in shown.text


@pytest.mark.slow
def test_doctor_reports_what_the_system_checks_would_stop_other_commands_for(process):
    found = process("doctor", settings="tests.sessions_sticky.cli.wrong_settings")
    assert found.code == 5
    assert "Unknown key 'INDEKS'" in found.out
    assert found.err == "Error: doctor found 1 error\n"


@pytest.mark.parametrize(
    ("message", "hint", "printed"),
    [
        ("it is full", "", "it is full"),
        ("it is full.", "Free memory.", "it is full. Free memory"),
        ("it is full", "Free memory", "it is full. Free memory"),
        ("are you sure?", "Check it", "are you sure? Check it"),
    ],
)
def test_doctor_ends_each_sentence_once(monkeypatch, message, hint, printed):
    finding = Finding(Level.ERROR, "store", message, hint)
    monkeypatch.setattr("sessions_sticky.cli.queries.examine", lambda: [finding])
    assert run("doctor").out.splitlines()[0] == f"ERROR    store: {printed}"


def test_doctor_mentions_tls_when_the_server_does_not_speak_it(settings):
    with start_server(tcp=True) as server:
        settings.CACHES = {"default": cache_config(server.url.replace("redis://", "rediss://"))}
        assert "TLS (rediss://)" in run("doctor").out
