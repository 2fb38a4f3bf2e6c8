"""Where the command writes: tables, lines and questions for people, JSON for programs."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import IO, TYPE_CHECKING, Any

from sessions_sticky.cli.errors import NOT_DONE, WRONG_USAGE, Error, let_go
from sessions_sticky.cli.formatting import cut, visible

if TYPE_CHECKING:
    from rich.console import Console

MAX_CELL = 40
"""Characters of a value that a terminal shows where rich does not share out its width."""


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

    def console(self, stream: IO[str]) -> Console | None:
        """Return rich's console where the stream is a terminal and rich is installed."""
        if not stream.isatty():
            return None
        try:
            from rich.console import Console
        except ImportError:
            return None
        return Console(file=stream, force_terminal=True, highlight=False, no_color=self.no_color or None)

    def _tell(self, text: str) -> None:
        try:
            self.err.write(text)
            self.err.flush()
        except OSError:  # that nobody reads it, or the log's disk is full, stops no change half-way
            let_go(self.err)


class Table:
    """Rows under titles, printed in as many parts as they come in; the titles once.

    A terminal gets long values cut, unless they `fold`, and its width shared out by rich. Elsewhere each row is one
    line with all of every value. `lines` prints a terminal lines as well, for rows that come one by one. Columns to the
    `right` are numbers and times, which are not cut.
    """

    def __init__(
        self, screen: Screen, *titles: str, right: Sequence[str] = (), fold: bool = False, lines: bool = False
    ) -> None:
        self._screen = screen
        self._titles = titles
        self._right = [title in right for title in titles]
        self._fold = fold
        self._console = None if lines else screen.console(screen.out)
        self._widths = [0] * len(titles)
        self._begun = False

    def add(self, rows: Sequence[Sequence[str]]) -> None:
        """Print more rows."""
        if self._screen.as_json:
            return
        cells = [[visible(cell) for cell in row] for row in rows]
        if self._console is None:
            self._print_lines(cells)
        else:
            self._print_table(self._console, cells)
        self._begun = True
        self._screen.out.flush()

    def _print_table(self, console: Console, rows: list[list[str]]) -> None:
        from rich.table import Table as Grid
        from rich.text import Text  # no markup: `[red]` in a name is its name

        grid = Grid(box=None, padding=(0, 2, 0, 0), show_header=not self._begun)
        for title, right in zip(self._titles, self._right, strict=True):
            grid.add_column(title, justify="right" if right else "left", no_wrap=right, overflow="fold")
        for row in rows:
            cells = [Text(cell, overflow="fold" if self._fold else "ellipsis", no_wrap=not self._fold) for cell in row]
            grid.add_row(*cells)
        console.print(grid)

    def _print_lines(self, rows: list[list[str]]) -> None:
        if not self._begun:
            rows = [list(self._titles), *rows]
        width = None
        if self._screen.out.isatty() and not self._fold:
            width = shutil.get_terminal_size().columns
            rows = [[cut(cell, MAX_CELL) for cell in row] for row in rows]
        self._widths = [max(at) for at in zip(self._widths, *(map(len, row) for row in rows), strict=True)]
        for row in rows:
            line = "  ".join(
                cell.rjust(size) if right else cell.ljust(size)
                for cell, size, right in zip(row, self._widths, self._right, strict=True)
            ).rstrip()
            self._screen.out.write(f"{cut(line, width) if width else line}\n")
