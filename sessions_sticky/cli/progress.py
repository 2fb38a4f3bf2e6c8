"""How far a long operation is: a bar on a terminal, a line now and then elsewhere; and Ctrl-C between two batches."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sessions_sticky.cli.errors import INTERRUPTED, UNREACHABLE, Error
from sessions_sticky.cli.formatting import duration
from sessions_sticky.cli.output import Screen
from sessions_sticky.exceptions import SessionStoreUnavailable

if TYPE_CHECKING:
    from rich.console import Console

QUIET_SECONDS = 10.0
"""Between two lines where nobody watches."""
LINE_SECONDS = 0.1
"""Between two states of the line on a terminal without rich."""
BAR_WIDTH = 20
"""Characters; with the words it fits into 80."""

Show = Callable[[str, int, int], object]
"""Shows the state: in words, done, expected."""


class Report:
    """The `progress` of a manager's method: keeps how far it is, shows it, and stops there once it was interrupted."""

    def __init__(self) -> None:
        self.done = self.expected = 0
        self.interrupted = False
        self.show: Show = lambda *_: None
        self._began = time.monotonic()

    def __call__(self, done: int, expected: int) -> None:
        """Take note."""
        self.done, self.expected = done, expected
        self.show(self.words(), done, expected)
        if self.interrupted:
            raise KeyboardInterrupt

    def words(self) -> str:
        """Return how far it is, how fast, and how long it will take."""
        rate = self.done / max(time.monotonic() - self._began, 0.001)
        left = f", {duration((self.expected - self.done) / rate)} left" if 0 < self.done < self.expected else ""
        return f"{self.done:,} of {self.expected:,}, {rate:,.0f}/s{left}"


@contextmanager
def reporting(screen: Screen) -> Iterator[Report]:
    """Give the `progress` of one operation; raises `Error` that says how far it came when it is cut short."""
    console = screen.console(screen.err)
    shown = _bar(console) if console else _line(screen) if screen.err.isatty() else _now_and_then(screen)
    report = Report()
    try:
        with shown as report.show, _stopping_between_batches(report):
            yield report
    except KeyboardInterrupt as exc:
        raise Error(f"interrupted, {_so_far(report)}", INTERRUPTED) from exc
    except SessionStoreUnavailable as exc:
        raise Error(f"{exc}; {_so_far(report)}", UNREACHABLE) from exc


def _so_far(report: Report) -> str:
    return f"{report.done:,} of {report.expected:,} done; run it again to go on"


@contextmanager
def _stopping_between_batches(report: Report) -> Iterator[None]:
    """Let Ctrl-C wait for the batch under way, whose changes are then told to receivers; a second one does not wait."""

    def stop(*_: Any) -> None:
        if report.interrupted:
            raise KeyboardInterrupt
        report.interrupted = True

    is_main = threading.current_thread() is threading.main_thread()  # others have no say in signals
    if not is_main or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield
        return
    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _bar(console: Console) -> Iterator[Show]:
    from rich.progress import BarColumn, Progress, TextColumn

    words = TextColumn("{task.fields[words]}", markup=False)
    with Progress(BarColumn(BAR_WIDTH), TextColumn("{task.percentage:>3.0f} %"), words, console=console) as progress:
        task = progress.add_task("", total=None, words="")
        yield lambda words, done, expected: progress.update(task, completed=done, total=expected, words=words)


@contextmanager
def _line(screen: Screen) -> Iterator[Show]:
    shown_at, last = 0.0, ""

    def write(words: str) -> None:
        screen.err.write(f"\r{words:<{len(last)}}")
        screen.err.flush()

    def show(words: str, *_: int) -> None:
        nonlocal shown_at, last
        if time.monotonic() - shown_at >= LINE_SECONDS:
            write(words)
            shown_at = time.monotonic()
        last = words

    try:
        yield show
    finally:
        write(f"{last}\n")


@contextmanager
def _now_and_then(screen: Screen) -> Iterator[Show]:
    shown_at, last = time.monotonic(), ""

    def show(words: str, *_: int) -> None:
        nonlocal shown_at, last
        last = words
        if time.monotonic() - shown_at >= QUIET_SECONDS:
            screen.remark(words)
            shown_at = time.monotonic()

    try:
        yield show
    finally:
        if last:
            screen.remark(last)
