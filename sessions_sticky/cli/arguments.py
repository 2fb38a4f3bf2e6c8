"""What the command line takes."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable
from typing import Any

from sessions_sticky.cli import identify
from sessions_sticky.cli.errors import EXIT_CODES
from sessions_sticky.queries.filters import MAX_PAGE


def add_subcommands(parser: ArgumentParser) -> None:
    """Add all subcommands with their arguments; the one chosen is `subcommand`."""
    parser.epilog = EXIT_CODES
    commands = parser.add_subparsers(dest="subcommand", metavar="SUBCOMMAND", title="subcommands")

    def add(name: str, explained: str) -> ArgumentParser:
        command = commands.add_parser(name, help=explained, description=explained, epilog=EXIT_CODES)
        command.add_argument("--json", action="store_true", help="print JSON, for programs")
        return command

    _add_looking(add)
    _add_changing(add)
    add("reindex", "Make the index true by looking at every key; finds what other programs wrote. Works online.")
    add("doctor", "Say in plain words what is wrong with the configuration and the store, and how to mend it.")
    identify.add_arguments(add("identify", "Print which conversation a recorded request would belong to, and why."))


def _add_looking(add: Callable[[str, str], ArgumentParser]) -> None:
    command = add("list", "List sessions, most recently active first.")
    _add_filters(command, "provider", "model", "owner")
    command.add_argument("--search", type=_name, metavar="TEXT", help="that session or owner, else ids that contain it")
    number = command.add_mutually_exclusive_group()
    number.add_argument("--limit", type=_number(1, 2**31 - 1), default=50, metavar="N", help="how many, 50 by default")
    number.add_argument("--all", action="store_true", help="all, in no order; with --json one JSON object a line")
    command = add("show", "Show a session, the idle time it has left and its history.")
    _add_id(command)
    add("stats", "Count sessions, and those created lately, by provider and model.")
    command = add("tail", "Show the last events of the history.")
    lines = _number(1, MAX_PAGE)
    command.add_argument("--lines", "-n", type=lines, default=20, metavar="N", help="how many, 20 by default")
    command.add_argument("--follow", "-f", action="store_true", help="wait for more, until Ctrl-C")


def _add_changing(add: Callable[[str, str], ArgumentParser]) -> None:
    command = add("touch", "Set the idle time of sessions back to full.")
    _add_id(command, nargs="+")
    _add_dry_run(command)
    command = add("rebind", "Move one conversation to another provider or model, by compare-and-set.")
    _add_id(command)
    _add_move(command)
    command.add_argument("--reason", type=_name, required=True, help="why; kept in the history")
    _add_dry_run(command)
    command = add("delete", "Delete sessions: those with the ids, or all that the options mean.")
    _add_id(command, nargs="*")
    _add_filters(command, "provider", "model", "owner")
    command.add_argument("--everything", action="store_true", help="delete all sessions")
    _add_dry_run(command)
    _add_yes(command)
    command = add("drain", "Move all conversations of a provider to another one, by compare-and-set.")
    command.add_argument("PROVIDER", type=_name, help="the provider to drain")
    _add_filters(command, "model")
    _add_move(command)
    command.add_argument("--reason", type=_name, default="drain", help="why; kept in the history, 'drain' by default")
    _add_dry_run(command)
    _add_yes(command)


def _add_id(command: ArgumentParser, **kwargs: Any) -> None:
    command.add_argument("ID", help="conversation id; after -- where it begins with a dash", **kwargs)


def _add_filters(command: ArgumentParser, *names: str) -> None:
    for name in names:
        command.add_argument(f"--{name}", type=_text, metavar=name[0].upper(), help=f"only those of this {name}")


def _add_move(command: ArgumentParser) -> None:
    command.add_argument("--to-provider", type=_name, required=True, metavar="P", help="where to move to")
    command.add_argument("--to-model", type=_name, metavar="M", help="the new model; without it the model stays")


def _add_dry_run(command: ArgumentParser) -> None:
    command.add_argument("--dry-run", action="store_true", help="only say what would happen")


def _add_yes(command: ArgumentParser) -> None:
    command.add_argument("--yes", action="store_true", help="do not ask")


def _number(least: int, most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not (text.isascii() and text.isdigit() and least <= int(text[:20]) <= most):
            raise ArgumentTypeError(f"{text!r}; allowed is a whole number from {least} to {most}")
        return int(text)

    return number


def _text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ArgumentTypeError(f"{text!r}; allowed is UTF-8 text") from None
    return text


def _name(text: str) -> str:
    """A name to write: an unset shell variable must not move conversations to a provider called ''."""
    if not text.strip():
        raise ArgumentTypeError("empty; allowed is a name")
    return _text(text)
