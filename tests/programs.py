"""Python programs as processes of their own, forked from one that has imported the packages that they need.

The imports of the gateway take half a second of CPU, and the tests start some hundred programs.
"""

from __future__ import annotations

import atexit
import fcntl
import gc
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import termios
import warnings
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent

context = multiprocessing.get_context("forkserver")
# Nothing that reads settings or the environment when it is imported, such as prometheus_client.
context.set_forkserver_preload(
    [
        __name__,
        "aiohttp.web",
        "django.core.handlers.asgi",
        "django.core.management",
        "django.core.servers.basehttp",
        "django.db.backends.sqlite3.base",
        "django.forms",
        "environ",
        "httptools",
        "psycopg",  # REST framework loads it, and requests
        "redis.asyncio",
        "requests",
        "tests.bytecode",
        "tests.conftest",
        "tests.faults.pressure",
        "tests.faults.racer",
        "tests.faults.rebinder",
        "unittest.mock",
        "uvicorn.lifespan.on",
        "uvicorn.loops.auto",
        "uvicorn.main",
        "yaml",
    ]
)


class Program:
    """`python ARGUMENTS`, where these begin with `-c CODE`, `-m MODULE` or the path of a file; like a `Popen`.

    A context manager that kills it. With `stdout=PIPE` one reads its output from `stdout`. With `stdin` it
    is in a session of its own, which has a terminal if `stdin` is one. Of the variables for Python itself,
    PYTHONIOENCODING, PYTHONPATH and PYTHONWARNINGS with one action have an effect.
    """

    stdout: IO[str] | None = None

    def __init__(
        self,
        *arguments: str,
        env: Mapping[str, str],
        cwd: Path = ROOT,
        stdin: int | None = None,
        stdout: IO[Any] | int = 1,
        stderr: IO[Any] | int = 2,
    ) -> None:
        out, err = (each if isinstance(each, int) else each.fileno() for each in (stdout, stderr))
        with ExitStack() as stack:
            if out == subprocess.PIPE:
                reading, out = os.pipe()
                stack.callback(os.close, out)
                self.stdout = os.fdopen(reading)
            self._process = context.Process(target=_Start(arguments, dict(env), str(cwd), (stdin, out, err)))
            self._process.start()
        atexit.register(self.kill)  # or multiprocessing would wait for it
        assert self._process.pid
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, minus the number of a signal, or None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Return the exit code, None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it ends; raises `subprocess.TimeoutExpired`."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        return self._process.exitcode

    def send_signal(self, signum: int) -> None:
        """Send a signal, unless it has ended."""
        if self._process.exitcode is None:
            with suppress(ProcessLookupError):  # the fork server has waited for it, and reports the exit code next
                os.kill(self.pid, signum)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a crash would."""
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()
        self.wait()
        if self.stdout:
            self.stdout.close()


def run(*arguments: str, env: Mapping[str, str], cwd: Path = ROOT, timeout: float = 60) -> subprocess.CompletedProcess:
    """Run a program to its end; raises `subprocess.TimeoutExpired`."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        program = Program(*arguments, env=env, cwd=cwd, stdout=out, stderr=err)
        try:
            code = program.wait(timeout)
        finally:
            program.kill()
        for file in (out, err):
            file.seek(0)
        return subprocess.CompletedProcess(arguments, code, out.read(), err.read())


class _Start:
    """What the process does; pickled, it takes the files along."""

    def __init__(
        self, arguments: tuple[str, ...], env: dict[str, str], cwd: str, files: tuple[int | None, int, int]
    ) -> None:
        self._arguments, self._env, self._cwd, self._files = arguments, env, cwd, files

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": [None if file is None else DupFd(file) for file in self._files]}

    def __call__(self) -> None:
        for number, file in enumerate(self._files):
            descriptor = os.open(os.devnull, os.O_RDONLY) if file is None else file.detach()
            os.dup2(descriptor, number)
            os.close(descriptor)
        if self._files[0] is not None:
            os.setsid()
        if os.isatty(0):
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C typed there becomes SIGINT here
        gc.freeze()  # otherwise a collection copies the memory that it shares with the process it was forked from
        multiprocessing.set_start_method(None, force=True)  # the program may choose one
        signal.signal(signal.SIGINT, signal.default_int_handler)  # what started the tests may ignore these
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        encoding = self._env.get("PYTHONIOENCODING")
        sys.stdin = os.fdopen(0, encoding=encoding, closefd=False)
        sys.stdout = os.fdopen(1, "w", encoding=encoding, closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, encoding=encoding, errors="backslashreplace", closefd=False)
        if "coverage" in sys.modules and "COVERAGE_PROCESS_CONFIG" not in self._env:
            _stop_measuring()
        os.environ.clear()
        os.environ.update(self._env)
        os.chdir(self._cwd)
        if action := self._env.get("PYTHONWARNINGS"):
            sys.warnoptions.append(action)  # multiprocessing passes them on
            warnings.simplefilter(action)
        kind, *rest = self._arguments
        sys.path[:0] = [os.path.dirname(kind) or self._cwd, *self._env.get("PYTHONPATH", "").split(os.pathsep)]
        try:
            self._run(kind, *rest)
        finally:
            atexit._run_exitfuncs()  # multiprocessing does not; embedded servers of the program would continue

    def _run(self, kind: str, *rest: str) -> None:
        if kind == "-m":
            sys.argv = list(rest)
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        elif kind == "-c":
            sys.argv = ["-c", *rest[1:]]
            exec(rest[0], {"__name__": "__main__"})
        else:
            sys.argv = [kind, *rest]
            runpy.run_path(kind, run_name="__main__")


def _stop_measuring() -> None:
    """Do as coverage does in a program that gets no configuration of it."""
    from coverage import Coverage

    if current := Coverage.current():
        current.stop()
