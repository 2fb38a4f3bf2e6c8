"""Where the command writes: tables, lines and questions for people, JSON for programs."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import IO, Any

from sessions_sticky.cli.errors import NOT_DONE, WRONG_USAGE, Error, let_go
from sessions_sticky.cli.formatting import cut, visible

MAX_CELL = 40
"""Characters of a value on a terminal."""


class Screen:
    """Standard output and standard error of one run; `as_json` turns tables and sentences off."""

    def __init__(self, out: IO[str], err: IO[str], *, as_json: bool = False, no_color: bool = False) -> None:
        self.out = out
        self.err = err
        self.as_json = as_json
        self.no_color = no_color

    def say(self, line: str) -> None:
        """Print a line for people."""
        if not self.as_json:
            self.out.write(f"{line}\n")

    def remark(self, line: str) -> None:
        """Print a line beside the output proper."""
        self._tell(f"{line}\n")

    def documents(self, values: Iterable[Any]) -> None:
        """Print each as a line of JSON, in ASCII: nothing in it can steer a terminal."""
        if self.as_json:
            self.out.writelines(f"{json.dumps(value)}\n" for value in values)
            self.out.flush()

    def confirm(self, question: str) -> None:
        """Ask, and go on only after a yes; raises `Error` otherwise, and where there is nobody to ask."""
        if not (sys.stdin and sys.stdin.isatty()):  # None: the shell has closed it
            raise Error(f"{question} There is no terminal to ask on: say --yes, or --dry-run to look", WRONG_USAGE)
        self._tell(f"{question} [y/N] ")
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise Error("nothing was changed", NOT_DONE)

    def _tell(self, text: str) -> None:
        try:
            self.err.write(text)
            self.err.flush()
        except OSError:  # that nobody reads it, or the log's disk is full, stops no change half-way
            let_go(self.err)


class Table:
    """Rows under titles, printed in as many parts as they come in; the titles once.

    Each row is one line with all of every value. On a terminal long values and lines are cut, unless they `fold`.
    Columns to the `right` are numbers and times.
    """

    def __init__(self, screen: Screen, *titles: str, right: Sequence[str] = (), fold: bool = False) -> None:
        self._screen = screen
        self._titles = titles
        self._right = [title in right for title in titles]
        self._cut = screen.out.isatty() and not fold
        self._widths = [0] * len(titles)
        self._begun = False

    def add(self, rows: Sequence[Sequence[str]]) -> None:
        """Print more rows."""
        if self._screen.as_json:
            return
        cells = [[visible(cell) for cell in row] for row in (rows if self._begun else [self._titles, *rows])]
        if self._cut:
            cells = [[cut(cell, MAX_CELL) for cell in row] for row in cells]
        self._widths = [max(at) for at in zip(self._widths, *(map(len, row) for row in cells), strict=True)]
        for row in cells:
            line = "  ".join(
                cell.rjust(size) if right else cell.ljust(size)
                for cell, size, right in zip(row, self._widths, self._right, strict=True)
            ).rstrip()
            self._screen.out.write(f"{cut(line, shutil.get_terminal_size().columns) if self._cut else line}\n")
        self._begun = True
        self._screen.out.flush()
