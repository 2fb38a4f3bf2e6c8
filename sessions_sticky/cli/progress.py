"""Progress of a long operation, and Ctrl-C between two batches."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from sessions_sticky.cli.errors import INTERRUPTED, UNREACHABLE, Error
from sessions_sticky.cli.formatting import format_duration
from sessions_sticky.cli.output import Output
from sessions_sticky.exceptions import SessionStoreUnavailable

QUIET_SECONDS = 10.0
"""Interval of lines without a terminal."""
LINE_SECONDS = 0.1
"""Interval of updates on a terminal."""


class Report:
    """The `progress` callback of a manager's method; raises `KeyboardInterrupt` after an interrupt.

    Shows the progress on one line of a terminal; otherwise a line every `QUIET_SECONDS`, and one at the end.
    """

    def __init__(self, output: Output) -> None:
        self.done = self.expected = 0
        self.interrupted = False
        self._output = output
        self._is_terminal = output.err.isatty()
        self._began = time.monotonic()
        self._shown_at = 0.0 if self._is_terminal else self._began
        self._line = ""

    def __call__(self, done: int, expected: int) -> None:
        """Record and show the progress."""
        self.done, self.expected = done, expected
        width, self._line = len(self._line), self._words()
        if time.monotonic() - self._shown_at >= (LINE_SECONDS if self._is_terminal else QUIET_SECONDS):
            self._output.write_err(f"\r{self._line:<{width}}" if self._is_terminal else f"{self._line}\n")
            self._shown_at = time.monotonic()
        if self.interrupted:
            raise KeyboardInterrupt

    def close(self) -> None:
        """Show the last progress."""
        if self._is_terminal:
            self._output.write_err(f"\r{self._line}\n")
        elif self._line:
            self._output.write_err(f"{self._line}\n")

    def _words(self) -> str:
        """Return progress, rate and remaining time."""
        rate = self.done / max(time.monotonic() - self._began, 0.001)
        left = f", {format_duration((self.expected - self.done) / rate)} left" if 0 < self.done < self.expected else ""
        return f"{self.done:,} of {self.expected:,}, {rate:,.0f}/s{left}"


@contextmanager
def reporting(output: Output) -> Iterator[Report]:
    """Return the `progress` of one operation; raise `Error` with the progress if it is interrupted."""
    report = Report(output)
    try:
        with closing(report), _stopping_between_batches(report):
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
