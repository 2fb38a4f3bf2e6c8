"""The commands with 100,000 sessions that another program wrote, which no index has."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from sessions_sticky import Session, keys
from tests import programs
from tests.programs import ROOT
from tests.sessions_sticky.cli.conftest import COMMAND, store_url

pytestmark = pytest.mark.slow

MANY = 100_000
SECONDS = 60
"""For one command on a busy machine; each took at most 6 s when it was measured alone."""


def fill(raw, many):
    with raw.pipeline(transaction=False) as pipeline:
        for number in range(many):
            session = Session(f"conv-{number}", "ab"[number % 3 == 0], f"m{number % 2}", "o", 1_700_000_000)
            pipeline.set(keys.session(session.id), session.to_json(), ex=3600)
            if number % 10_000 == 9_999:
                pipeline.execute()


def test_every_command_handles_100_000_unindexed_sessions(manager, environment, raw):
    fill(raw, MANY)

    def run(*args):
        started = time.monotonic()
        done = programs.run(*COMMAND, *args, env=environment(store_url()), timeout=SECONDS)
        assert time.monotonic() - started < SECONDS
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout

    assert run("list", "--json") == (0, '{"sessions": [], "more": false}\n')
    assert run("reindex", "--json") == (0, f'{{"sessions": {MANY}}}\n')
    code, out = run("list", "--limit", "10", "--json")
    page = json.loads(out)
    assert (code, len(page["sessions"]), page["more"]) == (0, 10, True)
    code, out = run("list", "--all", "--json")
    assert (code, len({json.loads(line)["id"] for line in out.splitlines()})) == (0, MANY)
    on_b = len(range(0, MANY, 3))
    move = ("move-all", "b", "--to-provider", "a", "--reason", "x", "--yes", "--json")
    code, out = run(*move)
    assert (code, json.loads(out)) == (0, {"dry_run": False, "moved": on_b})
    assert run(*move)[0] == 1  # nothing is left to move
    code, out = run("delete", "--everything", "--yes", "--json")
    assert (code, json.loads(out)["deleted"]) == (0, MANY)
    assert next(raw.scan_iter(f"{keys.session('')}*", count=10_000), None) is None


def test_list_ends_quietly_when_its_reader_stops(manager, environment, raw):
    fill(raw, 10_000)  # more text than a pipe holds
    manager.reindex()
    command = f"{sys.executable} {' '.join(COMMAND)} list --all --json | head -n 3"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}; echo ${{PIPESTATUS[0]}}"],
        cwd=ROOT,
        env=environment(store_url()),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    *lines, code = done.stdout.splitlines()
    assert (len(lines), code, done.stderr) == (3, "0", "")
