"""What reaches the terminal, and what reaches a pipe."""

from __future__ import annotations

import json
import re

import pytest

from sessions_sticky import sessions
from tests.sessions_sticky.cli.conftest import run

LONG = "x" * 256
HOSTILE = {
    "\u202eevil": ("a\x1b[31m", "m", "own\x1b]0;title\x07er"),
    "[red]id[/red]": ("[/]", "m\nm", "[link=x]"),
    LONG: ("p" * 200, "m", "o" * 200),
    "日本語" * 40: ("a", "m", "\u2067rtl\u2069"),
}
STYLES = re.compile(r"\x1b\[[0-9;]*m")
"""Colors of Django's error messages."""


@pytest.fixture(autouse=True)
def hostile(manager):
    for conversation_id, place in HOSTILE.items():
        manager.create(conversation_id, *place)
    manager.acting_as("\x1b[5mme").rebind(
        sessions.get("\u202eevil"), provider="b\x1b[0m", model="m", reason="\x1b]8;;http://x\x07why\u202e"
    )


RUNS = [
    ["list"],
    ["list", "--all"],
    ["show", "\u202eevil"],
    ["show", LONG],
    ["show", "missing\u202e"],
    ["stats"],
    ["tail"],
    ["delete", "--provider", "\x1b[2J\u202e", "--yes"],
    ["delete", "--owner", "\u2067rtl\u2069", "--dry-run"],
    ["touch", "missing\u202e"],
    ["touch", "\x1b[2J"],
    ["rebind", "\u202eevil", "--to-provider", "\x1b[31m", "--reason", "x", "--dry-run"],
]


@pytest.mark.parametrize(
    "arguments", [["list"], ["show", "\u202eevil"], ["tail"], ["stats"], ["touch", "missing\u202e"]]
)
@pytest.mark.slow
def test_nothing_hostile_reaches_a_terminal(terminal, arguments):
    shown = terminal(*arguments)
    shown.finish()
    text = STYLES.sub("", shown.text).replace("\r\n", "")
    assert text.isprintable(), repr(text)
    assert "Traceback" not in text


@pytest.mark.parametrize("as_json", [[], ["--json"]])
@pytest.mark.parametrize("arguments", RUNS)
def test_nothing_hostile_reaches_a_pipe(arguments, as_json):
    found = run(*arguments, *as_json)
    text = (found.out + found.err).replace("\n", "")
    assert text.isprintable(), repr(text)


def test_a_plain_table_has_all_of_every_value():
    rows = {line.split()[0]: line.split()[1:4] for line in run("list").out.splitlines()}
    assert rows[LONG] == ["p" * 200, "m", "o" * 200]
    assert rows["[red]id[/red]"] == ["[/]", r"m\nm", "[link=x]"]
    assert "日本語" * 40 in rows


def test_json_has_the_values_as_they_are():
    found = json.loads(run("list", "--json").out)["sessions"]
    assert {one["id"]: (one["provider"], one["model"], one["external_id"]) for one in found} == {
        **HOSTILE,
        "\u202eevil": ("b\x1b[0m", "m", "own\x1b]0;title\x07er"),
    }


@pytest.mark.slow
def test_a_terminal_gets_rows_that_fit_it(terminal):
    shown = terminal("list")
    assert shown.finish() == 0
    titles, *rows = shown.text.splitlines()
    assert titles.startswith("CONVERSATION")
    assert len(rows) == len(HOSTILE)
    assert max(map(len, [titles, *rows])) <= 100
    assert "…" in shown.text


@pytest.mark.slow
def test_show_cuts_no_field_on_a_terminal(terminal):
    shown = terminal("show", LONG)
    shown.finish()
    fields, _, history = shown.text.partition("AT")
    assert fields.count("x") == 2 * len(LONG)  # the conversation's id is the client's too
    assert fields.count("p") == 200 + "field provider".count("p")
    assert history.count("p") == 200


@pytest.mark.slow
def test_no_color_is_sent_when_none_is_wanted(terminal, monkeypatch):
    def colors(*arguments):
        shown = terminal(*arguments)
        shown.finish()
        return "\x1b[3" in shown.text

    commands = [("doctor",), ("show", "missing")]
    assert all(colors(*command) for command in commands)
    assert not any(colors("--no-color", *command) for command in commands)
    monkeypatch.setenv("NO_COLOR", "1")
    assert not any(colors(*command) for command in commands)


@pytest.mark.slow
def test_a_pipe_gets_escapes_for_what_its_encoding_lacks(process, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    found = process("list")
    assert (found.code, found.err) == (0, "")
    assert r"\u65e5\u672c" in found.out
