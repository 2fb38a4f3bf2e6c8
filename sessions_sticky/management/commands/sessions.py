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

from sessions_sticky.cli import identify, mutations, queries
from sessions_sticky.cli.arguments import add_subcommands
from sessions_sticky.cli.errors import WRONG_USAGE, Error, exit_with_error
from sessions_sticky.cli.output import Output

SUBCOMMANDS: dict[str, Callable[..., None]] = {
    "list": queries.list_sessions,
    "show": queries.show,
    "stats": queries.stats,
    "operations": queries.operations,
    "tail": queries.tail,
    "touch": mutations.touch,
    "rebind": mutations.rebind,
    "delete": mutations.delete,
    "move-all": mutations.move_all,
    "drain": mutations.drain,
    "move-back": mutations.move_back,
    "reindex": mutations.reindex,
    "doctor": queries.doctor,
    "identify": identify.run,
}


class Command(BaseCommand):
    """Operator commands for sessions."""

    help = "List, move and delete sticky sessions."
    requires_system_checks = []  # doctor reports them and must run even if they fail

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the subcommands and their arguments; `NO_COLOR` (no-color.org) counts as `--no-color`."""
        parser.set_defaults(no_color=bool(os.environ.get("NO_COLOR")))
        add_subcommands(parser)

    def run_from_argv(self, argv: list[str]) -> None:
        """Run as a process; characters that the terminal cannot print are escaped."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        super().run_from_argv(argv)

    def handle(self, *args: Any, subcommand: str | None = None, json: bool = False, **options: Any) -> None:
        """Run the subcommand on the plain streams: Django's wrappers end every write and color errors."""
        if subcommand is None:
            self.stderr.write(self.create_parser("manage.py", "sessions").format_help())
            raise Error("a subcommand is required", WRONG_USAGE)
        out, err = options.get("stdout") or sys.stdout, options.get("stderr") or sys.stderr
        output = Output(out, err, as_json=json, style=self.style)
        with exit_with_error(out), _only_errors_logged():
            SUBCOMMANDS[subcommand](output, **options)
            out.flush()


@contextmanager
def _only_errors_logged() -> Iterator[None]:
    """Do not log warnings to the terminal; the command reports them itself."""
    logger = logging.getLogger("sessions_sticky")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
