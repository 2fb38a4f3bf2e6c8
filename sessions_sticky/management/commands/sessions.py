"""`manage.py sessions SUBCOMMAND`; see docs/commands.md."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from sessions_sticky.cli import doctor, identify, mutations, queries
from sessions_sticky.cli.arguments import add_subcommands
from sessions_sticky.cli.errors import WRONG_USAGE, Error, told_in_one_line
from sessions_sticky.cli.output import Screen

SUBCOMMANDS: dict[str, Callable[..., None]] = {
    "list": queries.list_sessions,
    "show": queries.show,
    "stats": queries.stats,
    "tail": queries.tail,
    "touch": mutations.touch,
    "rebind": mutations.rebind,
    "delete": mutations.delete,
    "drain": mutations.drain,
    "reindex": mutations.reindex,
    "doctor": doctor.doctor,
    "identify": identify.run,
}


class Command(BaseCommand):
    """What operators do with sessions."""

    help = "See, move and delete the sessions that keep conversations on their provider."
    requires_system_checks = []  # doctor reports them; they must not keep it from running

    def add_arguments(self, parser: CommandParser) -> None:
        """Take a subcommand with its arguments."""
        add_subcommands(parser)

    def run_from_argv(self, argv: list[str]) -> None:
        """Run as a process of its own, on a terminal that may not know every character."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        if _no_color_wanted():
            self.stderr.style_func = None  # of the line that says an error
        super().run_from_argv(argv)

    def handle(self, *args: Any, subcommand: str | None = None, json: bool = False, **options: Any) -> None:
        """Run the subcommand. Writes to the bare streams: Django's wrappers end every write, and color errors."""
        if subcommand is None:
            self.stderr.write(self.create_parser("manage.py", "sessions").format_help())
            raise Error("no subcommand was given", WRONG_USAGE)
        out, err = options.get("stdout") or sys.stdout, options.get("stderr") or sys.stderr
        screen = Screen(out, err, as_json=json, no_color=options["no_color"] or _no_color_wanted())
        with told_in_one_line(out), _only_errors_logged():
            SUBCOMMANDS[subcommand](screen, **options)
            out.flush()


def _no_color_wanted() -> bool:
    return bool(os.environ.get("NO_COLOR"))  # no-color.org; Django knows its own option alone


@contextmanager
def _only_errors_logged() -> Iterator[None]:
    """Keep the log off the terminal for what the command tells anyway."""
    logger = logging.getLogger("sessions_sticky")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
