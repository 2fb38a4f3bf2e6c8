"""Output of the command: tables, lines and questions for people, JSON for programs."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import IO, Any

from django.core.management.color import no_style

from sessions_sticky.cli.errors import NOT_DONE, WRONG_USAGE, Error, discard_stream
from sessions_sticky.cli.formatting import escape, truncate

MAX_CELL = 40
"""Maximum number of characters of a value on a terminal."""


class Output:
    """Standard output and standard error of one run; `as_json` disables tables and sentences.

    `style` has Django's colors, none of them without a terminal or with `--no-color`.
    """

    def __init__(self, out: IO[str], err: IO[str], *, as_json: bool = False, style: Any = None) -> None:
        self.out = out
        self.err = err
        self.as_json = as_json
        self.style = style or no_style()

    def print(self, line: str) -> None:
        """Print a line, unless the output is JSON."""
        if not self.as_json:
            self.out.write(f"{line}\n")

    def print_err(self, line: str) -> None:
        """Print a line to standard error."""
        self.write_err(f"{line}\n")

    def print_json(self, values: Iterable[Any]) -> None:
        """Print each value as a line of JSON in ASCII, without control characters for a terminal."""
        if self.as_json:
            self.out.writelines(f"{json.dumps(value)}\n" for value in values)
            self.out.flush()

    def confirm(self, question: str) -> None:
        """Ask for confirmation; raise `Error` if it is declined or there is no terminal."""
        if not (sys.stdin and sys.stdin.isatty()):  # None: the shell has closed it
            raise Error(f"{question} Not a terminal: pass --yes to confirm, or --dry-run to preview", WRONG_USAGE)
        self.write_err(f"{question} [y/N] ")
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise Error("nothing was changed", NOT_DONE)

    def write_err(self, text: str) -> None:
        """Write to standard error, as it is."""
        try:
            self.err.write(text)
            self.err.flush()
        except OSError:  # a closed pipe or a full disk must not interrupt a change
            discard_stream(self.err)


class Table:
    """A table that is printed in parts, with its titles once.

    Each row is one line. On a terminal long values and lines are truncated unless `fold` is set. `right` names the
    columns that are aligned to the right.
    """

    def __init__(self, output: Output, *titles: str, right: Sequence[str] = (), fold: bool = False) -> None:
        self._output = output
        self._titles = titles
        self._right = [title in right for title in titles]
        self._cut = output.out.isatty() and not fold
        self._widths = [0] * len(titles)
        self._begun = False

    def add(self, rows: Sequence[Sequence[str]]) -> None:
        """Print more rows."""
        if self._output.as_json:
            return
        cells = [[escape(cell) for cell in row] for row in (rows if self._begun else [self._titles, *rows])]
        if self._cut:
            cells = [[truncate(cell, MAX_CELL) for cell in row] for row in cells]
        self._widths = [max(at) for at in zip(self._widths, *(map(len, row) for row in cells), strict=True)]
        for row in cells:
            line = "  ".join(
                cell.rjust(size) if right else cell.ljust(size)
                for cell, size, right in zip(row, self._widths, self._right, strict=True)
            ).rstrip()
            self._output.out.write(f"{truncate(line, shutil.get_terminal_size().columns) if self._cut else line}\n")
        self._begun = True
        self._output.out.flush()
