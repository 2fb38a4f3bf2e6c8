"""How the command ends: exit codes, and one line for each error."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import UnsupportedOperation
from typing import IO

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError

from sessions_sticky.cli.formatting import visible
from sessions_sticky.exceptions import (
    InvalidConversationId,
    InvalidSession,
    SessionNotSupported,
    SessionStoreUnavailable,
)
from sessions_sticky.session import SessionConflict

NOT_DONE = 1
WRONG_USAGE = 2
UNREACHABLE = 3
NOT_SUPPORTED = 4
UNHEALTHY = 5
INTERRUPTED = 130

EXIT_CODES = (
    "Exit codes: 0 done; 1 not found, or nothing to do for what was named; 2 wrong usage or a value that is not"
    " allowed; 3 the store does not answer; 4 the cache or the settings do not support it; 5 doctor found an error;"
    " 130 interrupted."
)

_CODES: dict[type[Exception], int] = {
    SessionConflict: NOT_DONE,
    InvalidConversationId: WRONG_USAGE,
    InvalidSession: WRONG_USAGE,
    ImproperlyConfigured: WRONG_USAGE,
    SessionStoreUnavailable: UNREACHABLE,
    SessionNotSupported: NOT_SUPPORTED,
}


class Error(CommandError):
    """Ends the command with one line on standard error and an exit code, its `returncode`."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(visible(" ".join(message.split())), returncode=code)


@contextmanager
def told_in_one_line(out: IO[str]) -> Iterator[None]:
    """Turn what the manager raises, and Ctrl-C, into `Error`; a reader of `out` that has had enough is no error."""
    try:
        yield
    except tuple(_CODES) as exc:
        raise Error(str(exc), next(code for kind, code in _CODES.items() if isinstance(exc, kind))) from exc
    except KeyboardInterrupt as exc:
        raise Error("interrupted", INTERRUPTED) from exc
    except BrokenPipeError:
        let_go(out)
    except OSError as exc:
        let_go(out)
        raise Error(f"the output cannot be written: {exc.strerror}", NOT_DONE) from exc


def let_go(stream: IO[str]) -> None:
    """Send nowhere what cannot be written: Python flushes it once more when it ends, and would complain."""
    with suppress(UnsupportedOperation):  # no file, given by who called the command from Python
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
