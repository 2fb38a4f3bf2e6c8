"""Exit codes, and what is said with them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from django.core.management import BaseCommand, CommandError, call_command

from sessions_sticky import cache_config, sessions
from sessions_sticky.cli.errors import EXIT_CODES, Error
from sessions_sticky.management.commands.sessions import SUBCOMMANDS as RUNNABLE
from sessions_sticky.management.commands.sessions import Command
from tests.programs import ROOT
from tests.servers import free_port
from tests.sessions_sticky.calls import PROPOSAL
from tests.sessions_sticky.cli.conftest import COMMAND, Full, run, store_url

MOVE = ["--to-provider", "b", "--reason", "x"]
LISTING = [
    ["list"],
    ["stats"],
    ["tail"],
    ["move-all", "openai", "--to-provider", "b", "--yes"],
    ["delete", "--everything", "--yes"],
    ["reindex"],
]
SUBCOMMANDS = [*LISTING, ["show", "conv-1"], ["touch", "conv-1"], ["rebind", "conv-1", *MOVE], ["delete", "conv-1"]]


@pytest.mark.parametrize("arguments", SUBCOMMANDS)
def test_every_subcommand_reports_it_in_one_line_when_the_store_is_down(settings, manager, arguments):
    settings.CACHES = {"default": cache_config(f"redis://127.0.0.1:{free_port()}/0")}
    found = run(*arguments)
    assert (found.code, found.out) == (3, "")
    assert found.err.startswith("Session store unavailable")
    assert "\n" not in found.err


@pytest.mark.slow
def test_a_process_ends_without_a_traceback_when_the_store_is_down(process):
    found = process("stats", url=f"redis://127.0.0.1:{free_port()}/0")
    assert (found.code, found.out) == (3, "")
    assert found.err.startswith("Error: Session store unavailable")
    assert len(found.err.splitlines()) == 1


def django_options():
    """Django's options of every command, with a value where they take one."""
    parser = BaseCommand().create_parser("manage.py", "other")
    actions = [action for action in parser._actions if action.dest not in ("help", "version", "skip_checks")]
    values = {"verbosity": ["2"], "settings": ["a.b"], "pythonpath": ["/a"]}
    return [[option, *values.get(action.dest, [])] for action in actions for option in action.option_strings]


@pytest.mark.parametrize("option", django_options(), ids=" ".join)
@pytest.mark.parametrize("name", RUNNABLE)
def test_every_subcommand_accepts_the_options_of_django_after_it(name, option):
    required = {
        "show": ["x"],
        "touch": ["x"],
        "rebind": ["x", *MOVE],
        "move-all": ["x", *MOVE],
        "drain": ["x", *MOVE],
        "identify": ["x"],
    }
    parser = Command().create_parser("manage.py", "sessions")
    after = vars(parser.parse_args([name, *required.get(name, []), *option]))
    assert after == vars(parser.parse_args([*option, name, *required.get(name, [])]))
    assert after != vars(parser.parse_args([name, *required.get(name, [])]))


@pytest.mark.parametrize("store_name", ["locmem"])
@pytest.mark.parametrize("arguments", LISTING)
def test_a_subcommand_reports_it_when_the_cache_cannot_list(manager, arguments):
    manager.create("conv-1", **PROPOSAL)
    found = run(*arguments)
    assert (found.code, found.out) == (4, "")
    assert "django-redis can" in found.err
    assert manager.get("conv-1")


@pytest.mark.parametrize("store_name", ["locmem"])
def test_single_sessions_are_seen_and_deleted_in_any_cache(manager):
    manager.create("conv-1", **PROPOSAL)
    found = run("show", "conv-1")
    assert found.code == 0
    assert "openai" in found.out
    assert "cannot keep a history" in found.out
    assert run("touch", "conv-1").code == 0
    assert run("rebind", "conv-1", *MOVE).code == 4
    assert run("delete", "conv-1").code == 0
    assert run("delete", "conv-1").code == 1


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ({"INDEX": False}, ["list"]),
        ({"INDEX": False}, ["move-all", "a", "--to-provider", "b"]),
        ({"INDEX": False}, ["reindex"]),
        ({"HISTORY_LENGTH": 0}, ["tail"]),
    ],
)
def test_a_subcommand_reports_it_when_a_setting_is_off(manager, settings, options, arguments):
    settings.SESSIONS_STICKY = options
    found = run(*arguments)
    assert found.code == 4
    assert next(iter(options)) in found.err


def test_a_subcommand_reports_it_when_a_setting_is_wrong(manager, settings):
    settings.SESSIONS_STICKY = {"CACHE": "nowhere"}
    found = run("stats")
    assert found.code == 2
    assert "SESSIONS_STICKY['CACHE'] must be an alias in CACHES ('default'), not 'nowhere'" in found.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["show"],
        ["list", "--limit", "0"],
        ["list", "--limit", "many"],
        ["list", "--limit", "5", "--all"],
        ["tail", "--lines", "1001"],
        ["touch"],
        ["rebind", "x", "--to-provider", "b"],
        ["rebind", "x", "--to-provider", "", "--reason", "y"],
        ["move-all", "a"],
        ["move-all", " ", "--to-provider", "b"],
        ["list", "--provider", "\udcff"],
    ],
)
def test_arguments_are_refused_when_they_are_not_allowed(arguments):
    with pytest.raises(CommandError, match="argument"):
        call_command("sessions", *arguments)


@pytest.mark.parametrize("conversation_id", ["", "x" * 257, "a\x1b", "\udcff"])
@pytest.mark.parametrize("arguments", [["show"], ["touch"], ["delete"], ["rebind", *MOVE]])
def test_an_id_is_refused_when_it_names_no_conversation(manager, arguments, conversation_id):
    found = run(*arguments, conversation_id)
    assert (found.code, found.out) == (2, "")
    assert "conversation id" in found.err


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["lits"], ["show"], ["show", ""]])
def test_a_process_ends_with_2_when_used_wrongly(process, arguments):
    found = process(*arguments)
    assert (found.code, found.out) == (2, "")
    assert "error" in found.err.lower()
    assert "Traceback" not in found.err


@pytest.mark.slow
def test_a_process_prints_its_help_when_no_subcommand_is_given(process):
    found = process()
    assert (found.code, found.out) == (2, "")
    for name in ("list", "show", "touch", "rebind", "delete", "move-all", "stats", "reindex", "tail", "doctor"):
        assert f"    {name} " in found.err
    assert "drain" not in found.err


@pytest.mark.slow
def test_help_lists_the_exit_codes(process):
    for arguments in (["--help"], ["move-all", "--help"]):
        found = process(*arguments)
        assert found.code == 0
        assert EXIT_CODES.split() == found.out.split()[-len(EXIT_CODES.split()) :]


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no full disk to write to here")
def test_a_process_ends_without_a_traceback_when_the_disk_is_full(manager, environment):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, *COMMAND, "stats"],
            check=False,
            cwd=ROOT,
            env=environment(store_url()),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert (done.returncode, done.stderr) == (1, "Error: the output cannot be written: No space left on device\n")


def test_output_of_the_caller_stays_when_the_stream_that_it_gave_cannot_be_written(manager, monkeypatch, tmp_path):
    with open(tmp_path / "its own", "w+") as own:
        monkeypatch.setattr("sys.stdout", own)
        with pytest.raises(Error, match="cannot be written: No space left on device"):
            call_command("sessions", "stats", stdout=Full())
        print("more", file=own, flush=True)
        own.seek(0)
        assert own.read() == "more\n"


@pytest.mark.slow
@pytest.mark.parametrize("number", [3, 2_000])  # less than a buffer, more than a pipe
def test_a_process_is_quiet_when_its_reader_has_had_enough(manager, environment, number):
    for at in range(number):
        manager.create(f"conv-{at}", **PROPOSAL)
    with subprocess.Popen(
        [sys.executable, *COMMAND, "list", "--all", "--json"],
        cwd=ROOT,
        env=environment(store_url()),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        if number > 1_000:
            assert process.stdout.readline().startswith("{")
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0


def test_an_error_is_one_line_whatever_it_contains():
    error = Error("two\nlines \x1b[31m", 3)
    assert (str(error), error.returncode) == (r"two lines \x1b[31m", 3)


@pytest.mark.slow
def test_the_log_stays_off_the_terminal(process, manager):
    manager.create("conv-1", **PROPOSAL)
    assert process("rebind", "conv-1", *MOVE).err == ""
    assert sessions.get("conv-1").provider == "b"


@pytest.mark.slow
def test_a_traceback_is_shown_when_asked_for(process):
    found = process("--traceback", "show", "missing")
    assert found.code == 1
    assert "Traceback" in found.err
