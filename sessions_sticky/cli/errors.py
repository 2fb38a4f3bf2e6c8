"""Exit codes, and errors as one line."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import UnsupportedOperation
from typing import IO

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError

from sessions_sticky.cli.formatting import escape
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
    "Exit codes: 0 done; 1 not found or no match; 2 wrong usage or an invalid value; 3 the store is unavailable;"
    " 4 the cache or the settings do not support it; 5 doctor found an error; 130 interrupted."
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
    """End the command with one line on standard error and an exit code (`returncode`)."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(escape(" ".join(message.split())), returncode=code)


def no_session(conversation_id: str) -> Error:
    """Return the error for a missing session. Logs show the client's own id, which is only a part of a session's id."""
    search = f"to find it by a client's id: sessions list --search {shlex.quote(conversation_id)}"
    return Error(f"no session {conversation_id!r}: missing, expired or unreadable; {search}", NOT_DONE)


@contextmanager
def exit_with_error(out: IO[str]) -> Iterator[None]:
    """Convert exceptions of the manager and Ctrl-C to `Error`; ignore a reader of `out` that closed its pipe."""
    try:
        yield
    except tuple(_CODES) as exc:
        raise Error(str(exc), next(code for kind, code in _CODES.items() if isinstance(exc, kind))) from exc
    except KeyboardInterrupt as exc:
        raise Error("interrupted", INTERRUPTED) from exc
    except BrokenPipeError:
        discard_stream(out)
    except OSError as exc:
        discard_stream(out)
        raise Error(f"the output cannot be written: {exc.strerror}", NOT_DONE) from exc


def discard_stream(stream: IO[str]) -> None:
    """Redirect a broken stream to the null device: Python flushes it at exit, and would report the error."""
    with suppress(UnsupportedOperation):  # not a file: the command was called from Python
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
