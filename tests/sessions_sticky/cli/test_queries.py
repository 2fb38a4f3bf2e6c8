from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys

import pytest
from django.core.management import CommandError, call_command

from sessions_sticky import Attempt, Price, SessionStoreUnavailable, Turn, Usage, sessions
from sessions_sticky.cli import queries, rows
from tests.programs import ROOT
from tests.sessions_sticky.calls import MOVE, PROPOSAL
from tests.sessions_sticky.cli.conftest import COMMAND, run, store_url


@pytest.fixture(autouse=True)
def some(manager):
    """Six sessions, on two providers, of two owners."""
    for number in range(6):
        provider, owner = ("a", "ann") if number < 4 else ("b", "bob")
        manager.create(f"conv-{number}", provider, f"m{number % 2}", owner)


def ids(found):
    return sorted(row[0] for row in found.rows)


def test_list_prints_a_line_for_each_session_without_a_terminal():
    found = run("list")
    assert found.code == 0
    titles, first, *_ = found.out.splitlines()
    assert titles.split() == ["CONVERSATION", "PROVIDER", "MODEL", "OWNER", "CREATED", "LEFT"]
    assert first.split()[1:4] in (["a", "m0", "ann"], ["a", "m1", "ann"], ["b", "m0", "bob"], ["b", "m1", "bob"])
    assert first.split()[5] in ("24:00:00", "23:59:59")
    assert ids(found) == [f"conv-{number}" for number in range(6)]
    assert len({line.index("conv-") for line in found.out.splitlines()[1:]}) == 1


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--provider", "a", "--model", "m0"], ["conv-0", "conv-2"]),
        (["--owner", "bob"], ["conv-4", "conv-5"]),
        (["--model", "m1", "--owner", "bob"], ["conv-5"]),
        (["--provider", "missing"], []),
    ],
)
def test_list_prints_what_matches_the_filters(options, expected):
    assert ids(run("list", *options)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("conv-3", ["conv-3"]), ("bob", ["conv-4", "conv-5"]), ("v-", [f"conv-{n}" for n in range(6)]), ("CONV", [])],
)
def test_list_prints_what_a_search_finds(text, expected):
    assert ids(run("list", "--search", text)) == expected


def test_list_reports_more_when_a_search_is_limited():
    found = run("list", "--search", "v-", "--limit", "4")
    assert len(found.rows) == 4
    assert "Only the first 4 are shown" in found.err


@pytest.mark.parametrize("options", [["--provider", "a"], ["--model", "m"], ["--owner", ""], ["--all"]])
def test_list_refuses_a_search_with_filters(options):
    found = run("list", "--search", "x", *options)
    assert found.code == 2
    assert "--search cannot be combined with" in found.err


@pytest.mark.parametrize(
    ("session_id", "kind", "client_id", "requested"),
    [
        ("conv-0", "named", "conv-0", None),
        ("0123456789ab:me@home@m0", "observed", "me@home", "m0"),
        ("0123456789ab:content:1234@m0", "content", None, "m0"),
    ],
)
def test_show_prints_the_clients_id_and_its_kind(manager, session_id, kind, client_id, requested):
    manager.create(session_id, "a", "m0", "ann", replace=True)
    printed = json.loads(run("show", "--json", session_id).out)["identity"]
    assert printed == {"kind": kind, "client_id": client_id, "model": requested}
    fields = run("show", session_id).out.partition("\n\n")[0]
    rows = dict(line.split(maxsplit=1) for line in fields.splitlines())
    assert (rows["kind"], rows.get("client_id"), rows.get("requested_model")) == (kind, client_id, requested)


def test_list_reports_more_when_limited():
    found = run("list", "--limit", "4")
    assert len(found.rows) == 4
    assert "Only the first 4 are shown" in found.err
    assert run("list", "--limit", "6").err == ""


def test_list_gives_one_json_document_when_limited():
    document = json.loads(run("list", "--json", "--limit", "2").out)
    assert document["more"] is True
    assert [set(one) for one in document["sessions"]] == [
        {"id", "provider", "model", "external_id", "owner", "created_at", "expires_in"}
    ] * 2
    assert json.loads(run("list", "--json", "--provider", "missing").out) == {"sessions": [], "more": False}


def test_list_gives_a_json_object_a_line_and_the_titles_once_when_all_are_asked_for(monkeypatch):
    monkeypatch.setattr("sessions_sticky.cli.queries.MAX_PAGE", 2)
    lines = run("list", "--all", "--json").out.splitlines()
    assert sorted(json.loads(line)["id"] for line in lines) == [f"conv-{number}" for number in range(6)]
    plain = run("list", "--all")
    assert ids(plain) == [f"conv-{number}" for number in range(6)]
    assert plain.out.count("CONVERSATION") == 1
    assert plain.err == ""


def test_list_takes_pages_until_its_limit_when_that_is_more_than_a_page(monkeypatch):
    monkeypatch.setattr("sessions_sticky.cli.queries.MAX_PAGE", 2)
    assert len(run("list", "--limit", "5").rows) == 5


def test_show_prints_every_field_and_the_history():
    sessions.acting_as("ann").rebind(sessions.get("conv-0"), **MOVE)
    found = run("show", "conv-0")
    fields = dict(line.split(maxsplit=1) for line in found.out.partition("\n\n")[0].splitlines())
    assert fields | {"created": "", "left": ""} == {
        **{"FIELD": "VALUE", "conversation": "conv-0", "created": "", "left": ""},
        **{"provider": "mistral", "model": "large", "owner": "ann", "kind": "named", "client_id": "conv-0"},
    }
    created, rebound = found.out.partition("\n\n")[2].splitlines()[1:]
    assert created.split()[1:] == ["created", "a", "m0", "gateway"]
    assert rebound.split()[1:] == ["rebound", "mistral", "large", "a/m0", "a", "test", "ann"]


def test_show_gives_the_session_and_its_history_as_json():
    document = json.loads(run("show", "conv-0", "--json").out)
    assert document["session"]["id"] == "conv-0"
    assert 86_390 <= document["session"]["expires_in"] <= 86_400
    assert [event["kind"] for event in document["history"]] == ["created"]
    assert re.fullmatch(r"[0-9-]{10}T[0-9:]{8}\.[0-9]{3}Z", document["history"][0]["at"])


def test_show_prints_the_history_and_fails_when_the_session_is_gone():
    sessions.acting_as("ann").delete("conv-0")
    found = run("show", "conv-0")
    assert found.code == 1
    assert found.out.splitlines()[-1].split()[1:] == ["deleted", "a", "m0", "ann"]
    assert "no session 'conv-0'" in found.err
    assert json.loads(run("show", "conv-0", "--json").out)["session"] is None


@pytest.mark.parametrize("command", [["show"], ["rebind", "--to-provider", "b", "--reason", "r"]], ids=lambda c: c[0])
def test_command_suggests_the_search_that_finds_a_client_id_when_there_is_no_session(command):
    sessions.create("eb3f1a4d5e68:my work@gpt-4", **PROPOSAL)
    subcommand, *options = command
    found = run(subcommand, "my work", *options)
    assert found.code == 1
    suggested = shlex.split(found.err.partition(": sessions ")[2])
    assert ids(run(*suggested)) == ["eb3f1a4d5e68:my"]


def test_show_goes_without_a_history_when_that_is_off(settings):
    settings.SESSIONS_STICKY = {"HISTORY_LENGTH": 0}
    found = run("show", "conv-0")
    assert found.code == 0
    assert "HISTORY_LENGTH" in found.out
    assert json.loads(run("show", "conv-0", "--json").out)["history"] is None


def test_stats_prints_counts_and_their_sum():
    assert run("stats").rows == [
        ["a", "m0", "2", "2", "2"],
        ["a", "m1", "2", "2", "2"],
        ["b", "m0", "1", "1", "1"],
        ["b", "m1", "1", "1", "1"],
        ["(all)", "6", "6", "6"],
    ]
    document = json.loads(run("stats", "--json").out)
    assert document["sessions"] == sum(route["sessions"] for route in document["routes"]) == 6


def test_stats_prints_a_sum_of_nothing_when_there_are_no_sessions(raw):
    raw.flushdb()
    assert run("stats").rows == [["(all)", "0", "0", "0"]]


def test_tail_prints_the_last_events():
    assert [row[2] for row in run("tail", "--lines", "2").rows] == ["conv-4", "conv-5"]
    lines = run("tail", "-n", "3", "--json").out.splitlines()
    assert [json.loads(line)["conversation_id"] for line in lines] == ["conv-3", "conv-4", "conv-5"]


def test_tail_prints_its_titles_alone_when_there_is_no_event(raw):
    raw.flushdb()
    found = run("tail")
    assert (found.code, found.rows) == (0, [])
    assert found.out.startswith("AT")


@pytest.mark.slow
def test_tail_follows_what_happens_until_ctrl_c(terminal):
    shown = terminal("tail", "--follow", "-n", "1")
    shown.wait_for("conv-5")
    sessions.delete("conv-3")
    shown.wait_for("deleted  conv-3")
    sessions.create("conv-9", **PROPOSAL)
    shown.wait_for("conv-9")
    shown.type("\x03")
    assert shown.finish() == 130
    assert shown.text.count("conv-3") == shown.text.count("conv-9") == 1
    assert "Traceback" not in shown.text
    assert "rror" not in shown.text


def test_tail_ends_without_an_error_by_ctrl_c(manager, monkeypatch):
    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr("sessions_sticky.cli.queries.time.sleep", interrupt)
    ended = run("tail", "-f")
    assert (ended.code, ended.err) == (130, "")


@pytest.mark.slow
def test_tail_follows_from_an_empty_history(terminal, raw):
    raw.flushdb()
    shown = terminal("tail", "-f")
    shown.wait_for("ACTOR")
    for number in range(3):
        sessions.create(f"new-{number}", **PROPOSAL)
    shown.wait_for("new-2")
    assert [line.split()[2] for line in shown.text.split("ACTOR")[1].splitlines() if line] == [
        f"new-{number}" for number in range(3)
    ]


@pytest.mark.slow
def test_tail_gives_a_pipe_each_event_at_once(environment):
    with subprocess.Popen(
        [sys.executable, *COMMAND, "tail", "-f", "--json", "-n", "1"],
        cwd=ROOT,
        env=environment(store_url()),
        stdout=subprocess.PIPE,
    ) as process:
        try:
            for expected in ("conv-5", "conv-0"):
                assert json.loads(process.stdout.readline())["conversation_id"] == expected
                sessions.delete("conv-0")
        finally:
            process.kill()


def test_tail_ends_without_an_error_when_ctrl_c_comes_while_it_prints(monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(queries.Table, "add", interrupted)
    found = run("tail", "-f")
    assert (found.code, found.err) == (130, "")


def test_tail_follows_without_a_pause_when_more_happens_than_it_reads_at_once(monkeypatch):
    def five_new_ones(_):
        monkeypatch.setattr("time.sleep", interrupted)
        for number in range(5):
            sessions.create(f"new-{number}", **PROPOSAL)

    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("sessions_sticky.cli.queries.MAX_PAGE", 2)
    monkeypatch.setattr("time.sleep", five_new_ones)
    assert [row[2] for row in run("tail", "-f", "-n", "1").rows] == [
        "conv-5",
        *(f"new-{number}" for number in range(5)),
    ]


def test_tail_continues_when_the_store_was_away(manager, monkeypatch):
    monkeypatch.setattr("sessions_sticky.cli.queries.POLL_SECONDS", 0.001)
    recent, calls = type(manager).recent, []

    def flaky(self, **options):
        calls.append(options)
        if 2 <= len(calls) <= 4:
            raise SessionStoreUnavailable("no answer")
        if len(calls) == 6:
            raise KeyboardInterrupt
        if len(calls) == 5:
            sessions.delete("conv-0")
        return recent(self, **options)

    monkeypatch.setattr(type(manager), "recent", flaky)
    found = run("tail", "-f", "-n", "1")
    assert found.code == 130
    assert [row[1:3] for row in found.rows] == [["created", "conv-5"], ["deleted", "conv-0"]]
    assert found.err.count("no answer; retrying") == 1


def test_the_command_is_called_from_python():
    assert json.loads(run("list", json=True, limit=1, provider="b").out)["sessions"][0]["provider"] == "b"
    with pytest.raises(CommandError) as raised:
        call_command("sessions", "show", "missing")
    assert raised.value.returncode == 1


def record_turns():
    price = Price(input=2.0, cached_input=0.5)
    route = {"conversation_id": "conv-0", "model": "m0", "bound_provider": "a", "price": price}
    sessions.record_turn(Turn(at=1_700_000_000, provider="a", outcome="hit", usage=Usage(4_000, output=9), **route))
    failed = (Attempt("a", 503, "overloaded"), Attempt("c", 502))
    spilled = {"provider": "b", "outcome": "spilled", "attempts": failed, "first_byte_ms": 1_234}
    sessions.record_turn(Turn(at=1_700_000_010, usage=Usage(5_000, read=1_024), **spilled, **route))
    sessions.record_turn(Turn(at=1_700_000_020, provider="a", outcome="unanswered", status=503, **route))


def test_show_prints_the_last_turns():
    record_turns()
    lines = run("show", "conv-0").out.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("AT  "))
    cells = [line.split() for line in lines[at : at + 5]]
    assert cells[0] == list(rows.TURN_TITLES)
    assert cells[1] == ["2023-11-14T22:13:20Z", "hit", "a", "m0", "a", "200", "-", "4,000", "0.0%", "0"]
    assert cells[2][1:10] == ["spilled", "b", "m0", "a", "200", "1,234", "5,000", "20.5%", "2,944"]
    assert cells[2][10:] == ["a", "503", "overloaded,", "c", "502"]
    assert cells[3][1:] == ["unanswered", "a", "m0", "a", "503", "-", "-", "-", "0"]
    assert lines[at + 4] == (
        "3 turns, 1 without usage; 9,000 input tokens, 11.4% from cache; saved 0.0015; moves lost 2,944 tokens (0.0044)"
    )
    assert lines[at + 5] == "1 turn answered by b instead of a: 2023-11-14T22:13:30Z"


def test_show_prints_spill_overs_from_their_first_to_their_last_turn():
    route = {"conversation_id": "conv-0", "model": "m0", "bound_provider": "a", "provider": "b", "outcome": "spilled"}
    for at in (0, 90):
        sessions.record_turn(Turn(at=1_700_000_000 + at, reason="provider failed", **route))
    expected = "2 turns answered by b instead of a (provider failed): 2023-11-14T22:13:20Z to 2023-11-14T22:14:50Z"
    assert expected in run("show", "conv-0").out.splitlines()


def test_show_has_the_trail_as_json():
    record_turns()
    found = json.loads(run("show", "conv-0", "--json").out)
    assert [turn["outcome"] for turn in found["trail"]["turns"]] == ["hit", "spilled", "unanswered"]
    assert found["trail"]["totals"]["lost"] == 2_944
    empty = json.loads(run("show", "conv-1", "--json").out)
    assert empty["trail"]["turns"] == []


def test_stats_print_what_turns_used():
    assert "Turns of the last day" not in run("stats").out
    record_turns()
    printed = run("stats").out.partition("Turns of the last day:\n")[2].splitlines()
    assert printed[0].split() == list(rows.USAGE_TITLES)
    lines = [line.split() for line in printed[1:]]
    assert ["b", "m0", "spilled", "1", "5,000", "20.5%", "0", "0.00", "2,944"] in lines
    assert ["c", "m0", "failed", "1", "0", "-", "0", "0.00", "0"] in lines
    found = json.loads(run("stats", "--json").out)
    assert [each["totals"]["turns"] for each in found["usage"]] == [1, 1, 1, 1, 1]
