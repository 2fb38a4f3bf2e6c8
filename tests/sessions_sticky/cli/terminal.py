"""A terminal for the tests: a program on a pty, read and typed into as by a person."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import termios
import time

from tests.programs import Program
from tests.waiting import SECONDS


class Terminal:
    """A process whose standard input, output and error are a terminal of 100 columns; a context manager."""

    def __init__(self, *command: str, environment: dict[str, str]) -> None:
        self._own, its = pty.openpty()
        fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
        env = {**environment, "TERM": "xterm-256color"}
        self.process = Program(*command, env=env, stdin=its, stdout=its, stderr=its)
        os.close(its)
        self.text = ""

    def wait_for(self, text: str, *, after: int = 0) -> None:
        """Read until `text` has appeared after a place in what was read."""
        deadline = time.monotonic() + SECONDS
        while text not in self.text[after:]:
            assert time.monotonic() < deadline, f"no {text!r} in {self.text!r}"
            assert self._read(), f"ended without {text!r}: {self.text!r}"

    def type(self, text: str) -> None:
        """Type; `\\x03` is Ctrl-C."""
        os.write(self._own, text.encode())

    def finish(self) -> int:
        """Read to the end; return the exit code."""
        deadline = time.monotonic() + SECONDS
        while self._read():
            assert time.monotonic() < deadline, f"does not end: {self.text!r}"
        return self.process.wait(SECONDS)

    def _read(self) -> bool:
        """Read what there is; False once the process has closed the terminal."""
        if not select.select([self._own], [], [], 1.0)[0]:
            return True
        try:
            data = os.read(self._own, 65536)
        except OSError:  # end of file on Linux
            return False
        self.text += data.decode(errors="replace")
        return bool(data)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._own)
