"""Progress of a long operation: a line on a terminal, lines now and then elsewhere; Ctrl-C between two batches."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sessions_sticky.cli.errors import INTERRUPTED, UNREACHABLE, Error
from sessions_sticky.cli.formatting import duration
from sessions_sticky.cli.output import Screen
from sessions_sticky.exceptions import SessionStoreUnavailable

QUIET_SECONDS = 10.0
"""Between two lines where nobody watches."""
LINE_SECONDS = 0.1
"""Between two states of the line on a terminal."""

Show = Callable[[str], object]
"""Shows the state, in words."""


class Report:
    """The `progress` of a manager's method: keeps how far it is, shows it, and stops there once it was interrupted."""

    def __init__(self) -> None:
        self.done = self.expected = 0
        self.interrupted = False
        self.show: Show = lambda words: None
        self._began = time.monotonic()

    def __call__(self, done: int, expected: int) -> None:
        """Take note."""
        self.done, self.expected = done, expected
        self.show(self.words())
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
    report = Report()
    try:
        with _shown(screen) as report.show, _stopping_between_batches(report):
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
def _shown(screen: Screen) -> Iterator[Show]:
    """Show the state on one line of a terminal, elsewhere on a line every `QUIET_SECONDS`, and in the end."""
    is_terminal = screen.err.isatty()
    seconds = LINE_SECONDS if is_terminal else QUIET_SECONDS
    shown_at, last = 0.0 if is_terminal else time.monotonic(), ""

    def write(words: str) -> None:
        if is_terminal:
            screen.err.write(f"\r{words:<{len(last)}}")
            screen.err.flush()
        else:
            screen.remark(words)

    def show(words: str) -> None:
        nonlocal shown_at, last
        if time.monotonic() - shown_at >= seconds:
            write(words)
            shown_at = time.monotonic()
        last = words

    try:
        yield show
    finally:
        if is_terminal:
            screen.err.write(f"\r{last}\n")
        elif last:
            screen.remark(last)
