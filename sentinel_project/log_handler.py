"""A handler of log lines that never waits for their reader.

A pipe to a log collector that stalls holds 64 KiB. The next line would block the event loop, and with it every request
of the worker, until the collector reads again.
"""

from __future__ import annotations

import logging
import os
import socket
import stat
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple


class LineHandler(logging.StreamHandler[Any]):
    """Writes lines to a stream; into a pipe or a socket only while there is room. Lines without room are counted."""

    def __init__(self, stream: Any = None) -> None:
        super().__init__(stream)
        self._end = _Unblocked.of(self.stream)
        self._is_cut = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, or drop it."""
        if self._end is None:
            super().emit(record)
            return
        written = 0
        try:
            line = f"{self.format(record)}\n".encode(errors="backslashreplace")
            if self._is_cut:
                line = b"\n" + line
            written = self._end.write(line)
            self._is_cut = written < len(line)
        except BlockingIOError:
            pass
        except Exception:
            self.handleError(record)
            return
        if written < len(line):
            from sentinel_project.gateway import metrics  # loggers are configured first

            metrics.log_lines_dropped.inc()

    def close(self) -> None:
        """Close the handler's own descriptor."""
        end, self._end = self._end, None
        if end is not None:
            end.close()
        super().close()


class _Unblocked(NamedTuple):
    """A pipe or a socket that is written without waiting: as much as there is room for, or `BlockingIOError`.

    It has a descriptor of its own: all processes that share one wait, or none.
    """

    write: Callable[[bytes], int]
    close: Callable[[], None]

    @classmethod
    def of(cls, stream: Any) -> _Unblocked | None:
        """Return the end of a stream; None if it is neither a pipe nor a socket, or may not be opened."""
        try:
            number = stream.fileno()
            kind = os.fstat(number).st_mode
            if stat.S_ISFIFO(kind):
                own = os.open(f"/proc/self/fd/{number}", os.O_WRONLY | os.O_NONBLOCK)
                return cls(partial(os.write, own), partial(os.close, own))
            if stat.S_ISSOCK(kind):
                peer = socket.socket(fileno=os.dup(number))
                return cls(lambda line: peer.send(line, socket.MSG_DONTWAIT), peer.close)
        except (AttributeError, OSError, ValueError):
            pass
        return None
