"""Moves and deletions of many sessions: interrupted, repeated, watched."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import threading

import pytest

from sessions_sticky import Session, SessionStoreUnavailable, keys, sessions
from sessions_sticky.cli import progress
from sessions_sticky.cli.errors import Error
from sessions_sticky.cli.output import Output
from sessions_sticky.cli.progress import reporting
from tests.sessions_sticky.cli.conftest import Full

MANY = 9_000


@pytest.fixture
def many(manager, raw):
    """As many sessions on provider a, written by another program and then indexed."""
    with raw.pipeline(transaction=False) as pipeline:
        for number in range(MANY):
            session = Session(f"conv-{number}", "a", f"m{number % 3}", f"user-{number % 7}", 1_700_000_000)
            pipeline.set(keys.session(session.id), session.to_json(), ex=3600)
        pipeline.execute()
    assert manager.reindex() == MANY
    return manager


def truth(raw):
    """The number of sessions on each provider, by the session keys alone."""
    values = raw.mget([keys.session(f"conv-{number}") for number in range(MANY)])
    providers = [json.loads(value)["provider"] for value in values if value]
    return {provider: providers.count(provider) for provider in set(providers)}


def index_misses(raw):
    """Return the entries that the index lacks or should not have, by comparing it with the session keys."""
    wrong = []
    for number, value in enumerate(raw.mget([keys.session(f"conv-{number}") for number in range(MANY)])):
        if value:
            session = Session.from_json(value)
            wrong.append((keys.route(session.provider, session.model), f"conv-{number}"))
    there = {
        (key.decode(), member.decode())
        for key in raw.scan_iter(match="sentinel:{index}:route:*", count=1000)
        for member in raw.zrange(key, 0, -1)
    }
    return there ^ set(wrong)


def moves(raw):
    """The events of the history that tell of a move."""
    events = [json.loads([*fields.values()][1]) for _, fields in raw.xrange(keys.history())]
    return [event for event in events if event["kind"] == "rebound"]


@pytest.mark.slow
def test_move_all_stops_at_ctrl_c_and_continues_when_run_again(many, raw, terminal):
    shown = terminal("move-all", "a", "--to-provider", "b", "--yes")
    shown.wait_for(f"00 of {MANY:,}")  # the first report
    shown.type("\x03")
    assert shown.finish() == 130
    (done,) = re.findall(rf"interrupted, ([0-9,]+) of {MANY:,} done; repeat the command to continue", shown.text)
    moved = int(done.replace(",", ""))
    assert 0 < moved < MANY
    assert truth(raw) == {"a": MANY - moved, "b": moved}
    assert (many.filter(provider="a").count(), many.filter(provider="b").count()) == (MANY - moved, moved)
    assert index_misses(raw) == set()
    assert [event["sessions"] for event in moves(raw)] == [moved]
    assert "Traceback" not in shown.text

    again = terminal("move-all", "a", "--to-provider", "b", "--yes")
    assert again.finish() == 0
    assert f"Moved {MANY - moved:,} conversations from a to b" in again.text
    assert truth(raw) == {"b": MANY}
    assert index_misses(raw) == set()
    assert {len(many.history(f"conv-{number}")) for number in (0, MANY - 1)} == {2}


@pytest.mark.slow
def test_a_long_operation_shows_rate_and_time_left_on_a_terminal(many, terminal):
    shown = terminal("delete", "--everything", "--yes")
    assert shown.finish() == 0
    assert re.search(rf"[0-9],[05]00 of {MANY:,}, [0-9,]+/s, 0:00:0[0-9] left", shown.text)
    assert re.search(rf"{MANY:,} of {MANY:,}, [0-9,]+/s", shown.text)
    assert "\r" in shown.text
    assert "\x1b" not in shown.text
    assert many.all().count() == 0


@pytest.mark.slow
def test_a_long_operation_writes_quiet_lines_without_a_terminal(many, process):
    found = process("move-all", "a", "--to-provider", "b", "--model", "m0", "--yes", "--json")
    assert json.loads(found.out) == {"dry_run": False, "moved": MANY // 3}
    assert re.fullmatch(rf"{MANY // 3:,} of {MANY // 3:,}, [0-9,]+/s\n", found.err)


@pytest.fixture
def output():
    return Output(io.StringIO(), io.StringIO())


def test_quiet_lines_come_now_and_then(output, monkeypatch):
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.0)
    with reporting(output) as report:
        report(1, 3)
        report(2, 3)
    assert [line.split(",")[0] for line in output.err.getvalue().splitlines()] == ["1 of 3", "2 of 3", "2 of 3"]


def test_quiet_lines_are_few(output):
    with reporting(output) as report:
        for done in range(1, 100):
            report(done, 99)
    assert len(output.err.getvalue().splitlines()) == 1


def test_nothing_is_reported_when_nothing_was_done(output):
    with reporting(output):
        pass
    assert output.err.getvalue() == ""


def failure_of(output, work):
    """The error that an operation ends with."""
    with pytest.raises(Error) as raised:
        operate(output, work)
    return str(raised.value), raised.value.returncode


def operate(output, work):
    with reporting(output) as report:
        work(report)


def test_operation_reports_its_progress_when_the_store_goes_away(output):
    def work(report):
        report(1_500, 3_000)
        raise SessionStoreUnavailable("no answer")

    assert failure_of(output, work) == ("no answer; 1,500 of 3,000 done; repeat the command to continue", 3)


@pytest.fixture
def heeded():
    """Handle Ctrl-C as on a terminal, even if the parent process ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeded")
def test_ctrl_c_waits_for_the_batch_under_way(output):
    batches = []

    def work(report):
        for done in (500, 1_000):
            signal.raise_signal(signal.SIGINT)
            batches.append(done)
            report(done, 1_500)

    assert failure_of(output, work) == ("interrupted, 500 of 1,500 done; repeat the command to continue", 130)
    assert batches == [500]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("heeded")
def test_a_second_ctrl_c_waits_for_nothing(output):
    def work(report):
        report(500, 1_500)
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("went on")

    assert failure_of(output, work)[1] == 130


def test_ctrl_c_stays_ignored_when_the_process_ignores_it(output):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with reporting(output) as report:
            signal.raise_signal(signal.SIGINT)
            report(1, 1)
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_operation_is_reported_in_a_thread_other_than_the_main_one(output):
    def work():
        with reporting(output) as report:
            report(1, 1)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert output.err.getvalue().startswith("1 of 1")


def test_operation_completes_when_its_progress_cannot_be_printed(monkeypatch):
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.0)
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "w") as err, reporting(Output(io.StringIO(), err)) as report:
        for done in range(1, 4):
            report(done, 3)
    assert report.done == 3


def test_an_operation_is_done_to_its_end_when_the_disk_of_its_log_is_full(monkeypatch):
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.0)
    with reporting(Output(io.StringIO(), Full())) as report:
        for done in range(1, 4):
            report(done, 3)
    assert report.done == 3


@pytest.mark.slow
def test_a_killed_move_continues_when_run_again(many, raw, terminal):
    shown = terminal("move-all", "a", "--to-provider", "b", "--yes")
    shown.wait_for(f"00 of {MANY:,}")
    shown.process.kill()
    shown.finish()
    moved = truth(raw)["b"]
    assert 0 < moved < MANY
    assert index_misses(raw) == set()
    assert terminal("move-all", "a", "--to-provider", "b", "--yes").finish() == 0
    assert truth(raw) == {"b": MANY}
    assert sessions.filter(provider="b").count() == MANY
