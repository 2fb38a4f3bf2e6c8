"""Progress of a long operation, and Ctrl-C between two batches."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sessions_sticky.cli.errors import INTERRUPTED, UNREACHABLE, Error
from sessions_sticky.cli.formatting import format_duration
from sessions_sticky.cli.output import Output
from sessions_sticky.exceptions import SessionStoreUnavailable

QUIET_SECONDS = 10.0
"""Interval of lines without a terminal."""
LINE_SECONDS = 0.1
"""Interval of updates on a terminal."""

Show = Callable[[str], object]
"""Show a line of progress."""


class Report:
    """The `progress` callback of a manager's method; raises `KeyboardInterrupt` after an interrupt."""

    def __init__(self) -> None:
        self.done = self.expected = 0
        self.interrupted = False
        self.show: Show = lambda words: None
        self._began = time.monotonic()

    def __call__(self, done: int, expected: int) -> None:
        """Record and show the progress."""
        self.done, self.expected = done, expected
        self.show(self.words())
        if self.interrupted:
            raise KeyboardInterrupt

    def words(self) -> str:
        """Return progress, rate and remaining time."""
        rate = self.done / max(time.monotonic() - self._began, 0.001)
        left = f", {format_duration((self.expected - self.done) / rate)} left" if 0 < self.done < self.expected else ""
        return f"{self.done:,} of {self.expected:,}, {rate:,.0f}/s{left}"


@contextmanager
def reporting(output: Output) -> Iterator[Report]:
    """Return the `progress` of one operation; raise `Error` with the progress if it is interrupted."""
    report = Report()
    try:
        with _shown(output) as report.show, _stopping_between_batches(report):
            yield report
    except KeyboardInterrupt as exc:
        raise Error(f"interrupted, {_progress(report)}", INTERRUPTED) from exc
    except SessionStoreUnavailable as exc:
        raise Error(f"{exc}; {_progress(report)}", UNREACHABLE) from exc


def _progress(report: Report) -> str:
    return f"{report.done:,} of {report.expected:,} done; repeat the command to continue"


@contextmanager
def _stopping_between_batches(report: Report) -> Iterator[None]:
    """Delay Ctrl-C until the current batch and its signals are done; a second Ctrl-C interrupts immediately."""

    def stop(*_: Any) -> None:
        if report.interrupted:
            raise KeyboardInterrupt
        report.interrupted = True

    is_main = threading.current_thread() is threading.main_thread()  # only this thread may handle signals
    if not is_main or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield
        return
    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _shown(output: Output) -> Iterator[Show]:
    """Show progress on one line of a terminal; otherwise one line every `QUIET_SECONDS` and one at the end."""
    is_terminal = output.err.isatty()
    seconds = LINE_SECONDS if is_terminal else QUIET_SECONDS
    shown_at, last = 0.0 if is_terminal else time.monotonic(), ""

    def write(words: str) -> None:
        if is_terminal:
            output.err.write(f"\r{words:<{len(last)}}")
            output.err.flush()
        else:
            output.print_err(words)

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
            output.err.write(f"\r{last}\n")
        elif last:
            output.print_err(last)
