"""Commands with filters that the index cannot answer, moves back, operations, and the events of `tail`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sessions_sticky import keys, sessions
from tests.sessions_sticky.cli.conftest import run

pytestmark = pytest.mark.usefixtures("manager")


@pytest.fixture
def raw(manager: Any, session_cache: Any) -> Any:
    """The client of the store, with two sessions on a and one on b."""
    for name, provider in (("one", "a"), ("two", "a"), ("three", "b")):
        sessions.create(name, provider, f"model-{name}", "ann")
    return session_cache


def where() -> dict[str, str]:
    return {entry.session.id: entry.session.provider for entry in sessions.all()}


def test_move_back_undoes_a_move(raw):
    assert run("move-all", "a", "--to-provider", "b", "--reason", "maintenance", "--yes").code == 0
    (operation,) = json.loads(run("operations", "--json").out)["operations"]
    assert (operation["state"], operation["done"], operation["reason"]) == ("done", 2, "maintenance")
    assert operation["actor"].startswith("cli")
    assert operation["ended_at"] >= operation["started_at"]
    asked = run("move-back", "--operation", operation["key"], "--dry-run")
    assert asked.out == f"Would move 2 conversations back, of all providers, moved by operation {operation['key']}\n"
    assert where() == {"one": "b", "two": "b", "three": "b"}
    assert json.loads(run("move-back", "--moved-from", "a", "--yes", "--json").out) == {"dry_run": False, "moved": 2}
    assert where() == {"one": "a", "two": "a", "three": "b"}
    listed = run("operations").out.splitlines()[1:]
    assert (
        sorted("maintenance" in line for line in listed) == sorted(" back " in line for line in listed) == [False, True]
    )


def test_move_back_requires_a_filter_of_moves(raw):
    refused = run("move-back", "--provider", "b", "--yes")
    assert (refused.code, "specify --operation, --moved-from or --moved-since" in refused.err) == (2, True)


def test_operations_names_those_that_run_and_those_of_all_sessions(raw):
    run("delete", "--everything", "--yes")
    (line,) = run("operations").out.splitlines()[1:]
    assert "all sessions" in line


def test_delete_takes_what_is_idle_for_longer(raw):
    raw.expire(keys.session("one"), sessions.ttl_seconds - 7_200)
    assert run("delete", "--idle-for", "1h", "--dry-run").out == (
        "Would delete 1 conversation of all providers, idle for 1:00:00\n"
    )
    assert run("delete", "--idle-for", "1h", "--yes").code == 0
    assert sorted(where()) == ["three", "two"]


def test_delete_names_the_filters_when_nothing_matches(raw):
    refused = run("delete", "--created-before", "2020-01-01T00:00Z", "--owner", "ann", "--yes")
    assert refused.code == 1
    assert "of owner ann, created before 2020-01-01T00:00:00Z" in refused.err
    assert "reindex" not in refused.err


def test_move_all_moves_only_what_matches_the_conditions(raw):
    raw.expire(keys.session("two"), sessions.ttl_seconds - 7_200)
    moved = run("move-all", "a", "--to-provider", "b", "--idle-for", "3600", "--yes")
    assert moved.out == "Moved 1 conversation from a to b, idle for 1:00:00\n"
    assert where() == {"one": "a", "two": "b", "three": "b"}


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--idle-for", "soon", "must be a number of seconds, or a number with s, m, h or d"),
        ("--created-before", "2026-01-01", "must be a time with a zone"),
        ("--moved-since", "-1h", "must be a time with a zone"),
        ("--moved-from", " ", "must not be empty"),
    ],
)
def test_command_refuses_an_invalid_condition(raw, option, value, message):
    refused = run("delete", f"{option}={value}", "--yes")
    assert (refused.code > 0, message in refused.err, len(where())) == (True, True, 3)


def test_list_filters_by_conditions_with_all(raw):
    raw.expire(keys.session("one"), sessions.ttl_seconds - 7_200)
    assert [row[0] for row in run("list", "--all", "--idle-for", "1h").rows] == ["one"]
    refused = run("list", "--idle-for", "1h")
    assert (refused.code, "--idle-for needs --all" in refused.err) == (2, True)
    refused = run("list", "--search", "one", "--moved-from", "a")
    assert (refused.code, "cannot be combined with filters" in refused.err) == (2, True)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--kind", "rebound"), ["one"]),
        (("--provider", "b"), ["three", "one"]),
        (("--provider", "a", "--kind", "created"), ["one", "two"]),
        (("--actor", "no such actor"), []),
        (("--actor", "gateway", "-n", "1"), ["one"]),
    ],
)
def test_tail_shows_only_events_that_match(raw, options, expected):
    one = sessions.get("one")
    assert one is not None
    sessions.rebind(one, provider="b", model="m", reason="r")
    lines = run("tail", "--json", *options).out.splitlines()
    assert [json.loads(line)["conversation_id"] for line in lines] == expected
