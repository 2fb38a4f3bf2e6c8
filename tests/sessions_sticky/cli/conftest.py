"""Runs of the command: in this process, in one of its own, on a terminal."""

from __future__ import annotations

import errno
import io
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

import pytest
from django.core.cache import cache
from django.core.management import CommandError, call_command

from tests import programs
from tests.sessions_sticky.cli.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

DROPPED = ("SENTINEL_", "SESSION_", "PYTHONUNBUFFERED")
"""Beginnings of environment variables that are not passed on to a process."""
SETTINGS = "tests.sessions_sticky.cli.patient_settings"
PROVIDERS = "".join(
    f'[[provider]]\nname = "{name}"\nbase_url = "http://127.0.0.1:1/v1"\nmodels = ["m0"]\n' for name in ("a", "b")
)
"""Sessions are moved only to providers that the project has."""
COMMAND = ("manage.py", "sessions")


class Run(NamedTuple):
    """What a run wrote, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[list[str]]:
        """The lines of a plain table, without its titles, in their columns."""
        return [line.split() for line in self.out.splitlines()[1:]]


class Full(io.StringIO):
    """A file on a disk that is full."""

    def write(self, text: str) -> int:
        """Fail."""
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def store_name() -> str:
    """A real Valkey, unless a test says otherwise."""
    return "valkey"


def run(*args: str, **options: object) -> Run:
    """Run the command here; an `Error` counts as the process's end, with its line on standard error."""
    out, err = io.StringIO(), io.StringIO()
    try:
        call_command("sessions", *args, stdout=out, stderr=err, **options)
    except CommandError as exc:
        return Run(exc.returncode, out.getvalue(), f"{err.getvalue()}{exc}")
    except SystemExit as exc:
        return Run(exc.code, out.getvalue(), err.getvalue())
    return Run(0, out.getvalue(), err.getvalue())


@pytest.fixture
def environment(tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """Return the environment in which the project's store is at a URL."""

    def give(url: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(DROPPED)}
        providers = tmp_path / "providers.toml"
        providers.write_text(PROVIDERS)
        return {
            **kept,
            "REDIS_URL": url,
            "SENTINEL_DATA_DIR": str(tmp_path / "data"),
            "SENTINEL_PROVIDERS": str(providers),
            "DJANGO_SETTINGS_MODULE": SETTINGS,
        }

    return give


@pytest.fixture
def process(manager: object, environment: Callable[[str], dict[str, str]]) -> Callable[..., Run]:
    """Run the command in a process of its own, without a terminal, on the manager's store or the one at `url`."""

    def start(*args: str, url: str = "", settings: str = SETTINGS) -> Run:
        env = {**environment(url or store_url()), "DJANGO_SETTINGS_MODULE": settings}
        done = programs.run(*COMMAND, *args, env=env)
        return Run(done.returncode, done.stdout, done.stderr)

    return start


@pytest.fixture
def terminal(manager: object, environment: Callable[[str], dict[str, str]]) -> Iterator[Callable[..., Terminal]]:
    """Run the command on a terminal of its own, on the manager's store."""

    def start(*args: str) -> Terminal:
        return stack.enter_context(Terminal(*COMMAND, *args, environment=environment(store_url())))

    with ExitStack() as stack:
        yield start


def store_url() -> str:
    """Return the URL of the store of `CACHES["default"]`."""
    url: str = cache._server
    return url
