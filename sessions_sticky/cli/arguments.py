"""The arguments of the command line."""

from __future__ import annotations

from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError
from collections.abc import Callable
from typing import Any, get_args

from sessions_sticky.cli import identify
from sessions_sticky.cli.errors import EXIT_CODES
from sessions_sticky.queries.pages import MAX_PAGE
from sessions_sticky.queries.times import ALLOWED_TIME, parse_duration, parse_time
from sessions_sticky.stores.history import Kind


def add_subcommands(parser: ArgumentParser) -> None:
    """Add all subcommands with their arguments; the selected one is `subcommand`."""
    parser.epilog = EXIT_CODES
    commands = parser.add_subparsers(dest="subcommand", metavar="SUBCOMMAND", title="subcommands")

    def add(name: str, explained: str) -> ArgumentParser:
        listed: dict[str, Any] = {} if name == "drain" else {"help": explained}
        command = commands.add_parser(name, description=explained, epilog=EXIT_CODES, **listed)
        command.add_argument("--json", action="store_true", help="print JSON, for programs")
        _add_django_options(command)
        return command

    _add_looking(add)
    _add_changing(add)
    add("reindex", "Rebuild the index by scanning every key of the database. Safe while chats are served.")
    add("doctor", "Check the configuration and the store, and suggest fixes.")
    identify.add_arguments(add("identify", "Print the conversation of a recorded request, and the reason."))


def _add_django_options(command: ArgumentParser) -> None:
    """Accept Django's options after the subcommand, too: users of other commands write them at the end."""
    hidden: dict[str, Any] = {"default": SUPPRESS, "help": SUPPRESS}
    command.add_argument("--verbosity", "-v", type=int, choices=range(4), **hidden)
    for name in ("--settings", "--pythonpath"):
        command.add_argument(name, **hidden)
    for name in ("--traceback", "--no-color", "--force-color"):
        command.add_argument(name, action="store_true", **hidden)


def _add_looking(add: Callable[[str, str], ArgumentParser]) -> None:
    command = add("list", "List sessions, most recently active first.")
    _add_filters(command, "provider", "model", "owner")
    command.add_argument("--search", type=_name, metavar="TEXT", help="this session or owner, else ids that contain it")
    _add_conditions(command)
    number = command.add_mutually_exclusive_group()
    number.add_argument("--limit", type=_number(1, 2**31 - 1), default=50, metavar="N", help="how many, 50 by default")
    number.add_argument("--all", action="store_true", help="all, in no order; with --json one JSON object a line")
    command = add("show", "Show a session, its remaining idle time, its last turns and its history.")
    _add_id(command)
    add("stats", "Count sessions, and recently created ones, by provider and model.")
    add("operations", "List the operations of the last day, with their keys.")
    command = add("tail", "Show the last events of the history.")
    lines = _number(1, MAX_PAGE)
    command.add_argument("--lines", "-n", type=lines, default=20, metavar="N", help="how many, 20 by default")
    command.add_argument("--kind", choices=get_args(Kind), help="only events of this kind")
    command.add_argument("--provider", type=_text, metavar="P", help="only events from or to this provider")
    command.add_argument("--actor", type=_text, metavar="A", help="only events by this actor")
    command.add_argument("--follow", "-f", action="store_true", help="wait for more, until Ctrl-C")


def _add_changing(add: Callable[[str, str], ArgumentParser]) -> None:
    command = add("touch", "Reset the idle time of sessions.")
    _add_id(command, nargs="+")
    _add_dry_run(command)
    command = add("rebind", "Move one conversation to another provider or model, by compare-and-set.")
    _add_id(command)
    _add_move(command)
    command.add_argument("--reason", type=_name, required=True, help="why; kept in the history")
    _add_dry_run(command)
    command = add("delete", "Delete sessions by id, or all that match the filters.")
    _add_id(command, nargs="*")
    _add_filters(command, "provider", "model", "owner")
    _add_conditions(command)
    command.add_argument("--everything", action="store_true", help="delete all sessions")
    _add_dry_run(command)
    _add_yes(command)
    for name, reason in (("move-all", "move all"), ("drain", "drain")):  # the former name, until the next version
        command = add(name, "Move all conversations of a provider to another one, by compare-and-set.")
        command.add_argument("PROVIDER", type=_name, help="the provider whose conversations move")
        _add_filters(command, "model")
        _add_conditions(command)
        _add_move(command)
        why = f"why; kept in the history, {reason!r} by default"
        command.add_argument("--reason", type=_name, default=reason, help=why)
        _add_dry_run(command)
        _add_yes(command)
    command = add("move-back", "Move conversations back to where their last move came from, by compare-and-set.")
    _add_filters(command, "provider", "model", "owner")
    _add_conditions(command)
    command.add_argument("--reason", type=_name, default="move back", help="why; kept in the history")
    _add_dry_run(command)
    _add_yes(command)


def _add_id(command: ArgumentParser, **kwargs: Any) -> None:
    command.add_argument("ID", help="conversation id; put it after -- if it begins with a dash", **kwargs)


def _add_filters(command: ArgumentParser, *names: str) -> None:
    for name in names:
        command.add_argument(f"--{name}", type=_text, metavar=name[0].upper(), help=f"only sessions of this {name}")


def _add_conditions(command: ArgumentParser) -> None:
    add = command.add_argument
    add("--idle-for", type=_duration, metavar="12h", help="only sessions not used for at least this long")
    add("--created-before", type=_time, metavar="TIME", help=f"only sessions created before; {ALLOWED_TIME}")
    add("--moved-from", type=_name, metavar="P", help="only sessions whose last move came from this provider")
    add("--moved-since", type=_time, metavar="TIME", help="only sessions last moved at or after this time")
    add("--operation", type=_name, metavar="KEY", help="only sessions last moved by this operation")


def _parsed(parse: Callable[[str], float]) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            return parse(text)
        except ValueError as exc:
            raise ArgumentTypeError(str(exc)) from None

    return read


_duration, _time = _parsed(parse_duration), _parsed(parse_time)


def _add_move(command: ArgumentParser) -> None:
    command.add_argument("--to-provider", type=_name, required=True, metavar="P", help="the target provider")
    command.add_argument("--to-model", type=_name, metavar="M", help="the new model; by default unchanged")


def _add_dry_run(command: ArgumentParser) -> None:
    command.add_argument("--dry-run", action="store_true", help="print what would happen, change nothing")


def _add_yes(command: ArgumentParser) -> None:
    command.add_argument("--yes", action="store_true", help="do not ask for confirmation")


def _number(min_value: int, max_value: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not (text.isascii() and text.isdigit() and min_value <= int(text[:20]) <= max_value):
            raise ArgumentTypeError(f"must be a whole number from {min_value} to {max_value}, not {text!r}")
        return int(text)

    return number


def _text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ArgumentTypeError(f"must be valid UTF-8, not {text!r}") from None
    return text


def _name(text: str) -> str:
    """Refuse blank names: an unset shell variable must not move conversations to a provider called ''."""
    if not text.strip():
        raise ArgumentTypeError("must not be empty")
    return _text(text)
