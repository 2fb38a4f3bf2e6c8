"""The matrix: `nox` runs its corners, in some minutes, as CI does; `nox -s matrix` runs all of it.

Python x Django x redis-py x server. On each the quick part of the app's tests runs, on Valkey, or what is tested on
every store, on Redis; warnings are errors. The whole suite runs on one combination, by `make test`. `lowest` is the
lowest version of every package that pyproject.toml allows, `newest` what requirements.txt pins.

Interpreters are looked for on PATH; one that is missing is left out, but not in CI.
"""

from __future__ import annotations

import os
import re
import tomllib
from itertools import chain
from pathlib import Path

import nox

PYTHONS = ("3.11", "3.12", "3.13")
DJANGOS = ("5.2", "6.0", "6.1")
PACKAGES = ("lowest", "newest")
SERVERS = ("valkey", "redis")

CORNERS = (
    ("3.11", "5.2", "lowest", "valkey"),
    ("3.11", "5.2", "newest", "redis"),
    ("3.13", "6.1", "lowest", "redis"),
    ("3.13", "6.1", "newest", "valkey"),
)
ALL = [
    (python, django, packages, server)
    for python in PYTHONS
    for django in DJANGOS
    for packages in PACKAGES
    for server in SERVERS
    if python != "3.11" or django == "5.2"  # Django 6 needs Python 3.12
]
ON_REDIS = "[redis] or [redis- or -redis] or -redis-"
"""The name of the store, in a test's parameters."""
TESTS = {"valkey": ["-m", "not slow"], "redis": ["-k", f"({ON_REDIS}) and not test_walk_properties"]}

nox.options.default_venv_backend = "uv|virtualenv"
nox.options.error_on_missing_interpreters = "CI" in os.environ
nox.options.sessions = ["corners"]


def lowest() -> list[str]:
    """Return the lowest versions that pyproject.toml allows, but Django's, as pip's arguments."""
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    bounded = [re.fullmatch(r"([\w-]+)(?:\[\w+\])?>=([\d.]+)", each) for each in wanted]
    return sorted({f"{found[1]}=={found[2]}" for found in bounded if found and found[1] != "django"})


def run(session: nox.Session, *, django: str, packages: str, server: str) -> None:
    """Install one combination, and run the tests on it."""
    session.install("-r", "requirements.txt")
    old = packages == "lowest"
    session.install(f"django=={django}" if old else f"django=={django}.*", *(lowest() if old else ()))
    # Not `create_tmp`: it makes TMPDIR so long that no unix socket fits into it.
    env = {"SENTINEL_DATA_DIR": str(Path(session.virtualenv.location, "data"))}
    parallel = ["-n", "auto", "--dist", "worksteal"]
    session.run("python", "-m", "pytest", "-q", *parallel, *TESTS[server], "tests/sessions_sticky", env=env)


@nox.session
@nox.parametrize("python,django,packages,server", CORNERS)
def corners(session: nox.Session, django: str, packages: str, server: str) -> None:
    """Run where versions are most apart."""
    run(session, django=django, packages=packages, server=server)


@nox.session
@nox.parametrize("python,django,packages,server", ALL)
def matrix(session: nox.Session, django: str, packages: str, server: str) -> None:
    """Run every combination."""
    run(session, django=django, packages=packages, server=server)
