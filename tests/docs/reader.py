"""A reader who follows a page: writes its files, runs its commands, keeps their output."""

from __future__ import annotations

import os
import re
import shlex
import urllib.error
import urllib.request
from pathlib import Path

from tests import programs
from tests.docs.blocks import DOCS, Block
from tests.programs import Program
from tests.servers import free_port
from tests.waiting import wait_until

PROGRAMS = {
    "python": (),
    "django-admin": ("-m", "django"),
    "uvicorn": ("-m", "uvicorn"),
    "pytest": ("-m", "pytest", "-p", "sessions_sticky.pytest_plugin", "-p", "pytest_django.plugin"),
}
"""What is run by this Python, and how; installed plugins are named, for pytest imports no others (see below)."""
CHANGING = [
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"), "TIME"),
    (re.compile(r"\b\d\d:\d\d:\d\d\b"), "LEFT"),
    (re.compile(r"\d+\.\d+s"), "SECONDS"),
]


class Reader:
    """Follows a page in a folder of its own; a context manager that stops the server in the end."""

    def __init__(self, folder: Path, redis_url: str) -> None:
        self._folder = folder
        self._port = free_port()
        self._server: Program | None = None
        python_path = os.pathsep.join([str(folder), str(DOCS.parent)])
        own = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
        pytest_variables = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""}
        self.environment = {**own, **pytest_variables, "REDIS_URL": redis_url, "PYTHONPATH": python_path}
        self.heard: list[tuple[str, str, str]] = []
        """Each command, with what the page says that it prints, and what it printed."""

    def follow(self, blocks: list[Block]) -> None:
        """Do what the blocks say, in their order."""
        for block in blocks:
            if block.language == "console":
                for command, expected in block.dialogue():
                    self.heard.append((command, masked(expected), masked(self._type(command))))
            else:
                block.apply(self._folder)

    def _type(self, command: str) -> str:
        program, *arguments = shlex.split(command)
        if program in ("pip", "export"):  # everything is installed, and the address is the tests' own
            return ""
        if program == "curl":
            return self.curl(*arguments)
        if program == "uvicorn":
            return self._serve(*arguments)
        done = programs.run(*PROGRAMS[program], *arguments, cwd=self._folder, env=self.environment)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def _serve(self, *arguments: str) -> str:
        self._kill()  # SIGKILL: no chance to clean up
        command = (*PROGRAMS["uvicorn"], *arguments, "--port", str(self._port), "--log-level", "error")
        self._server = Program(*command, cwd=self._folder, env=self.environment)
        wait_until(self._is_up)
        return ""

    def _is_up(self) -> bool:
        assert self._server is not None
        assert self._server.poll() is None, "the server has ended"
        try:
            self.curl("localhost:8000/nowhere/")
        except urllib.error.URLError:
            return False
        return True

    def curl(self, url: str, *options: str) -> str:
        pairs = list(zip(options[::2], options[1::2], strict=True))
        headers = dict(value.split(": ", 1) for name, value in pairs if name == "-H")
        data = next((value.encode() for name, value in pairs if name == "-d"), None)
        address = f"http://{url.replace('localhost:8000', f'127.0.0.1:{self._port}')}"
        try:
            with urllib.request.urlopen(urllib.request.Request(address, data, headers), timeout=20) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as refusal:
            with refusal:
                return refusal.read().decode()

    def _kill(self) -> None:
        if self._server is not None:
            self._server.kill()
            self._server.wait()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._kill()


def masked(text: str) -> str:
    """Return what a command prints without what is another each time, and without the widths of columns."""
    for pattern, name in CHANGING:
        text = pattern.sub(name, text)
    return re.sub(r" +", " ", text).strip()
