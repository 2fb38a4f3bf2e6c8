"""The project as a whole: checks, migrations, the secret key, `manage.py test`."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from django.core.management import call_command

from sentinel_project.secret_key import secret_key
from sentinel_project.test_runner import PytestRunner
from tests.gateway.live import ROOT, environment, manage

PRODUCTION = {
    "SECRET_KEY": "7Gx2-9dQvLw0sZp4RkYt6BnEaHcJmUfXqTi1ShOe3VyK8_WgPjDlNbMr5CzA",
    "ALLOWED_HOSTS": "gw.example.org",
    "SENTINEL_HTTPS": "1",
    "REDIS_URL": "redis://redis:6379/0",
    "DATABASE_URL": "sqlite:////srv/db.sqlite3",  # never opened; the driver of PostgreSQL is not installed here
}
DEPLOY = ("check", "--deploy", "--fail-level", "WARNING")


@pytest.mark.slow
def test_check_deploy_is_clean_when_the_environment_is_set_for_production(tmp_path):
    done = manage(*DEPLOY, env=environment(tmp_path, **PRODUCTION))
    assert (done.returncode, done.stderr) == (0, "")
    assert "no issues" in done.stdout


@pytest.mark.slow
def test_check_deploy_complains_when_there_is_no_secret_key(tmp_path):
    env = environment(tmp_path, **PRODUCTION)
    del env["SECRET_KEY"]
    done = manage(*DEPLOY, env=env)
    assert done.returncode == 1
    assert "security.W009" in done.stderr


@pytest.mark.slow
def test_check_is_clean_when_nothing_is_set(tmp_path):
    env = {"PATH": os.environ.get("PATH", ""), "SENTINEL_DATA_DIR": str(tmp_path / "new" / "data")}
    done = manage("check", env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert stat.S_IMODE((tmp_path / "new" / "data").stat().st_mode) == 0o700


@pytest.mark.slow
def test_migrations_are_complete_when_the_models_are_as_they_are(tmp_path):
    done = manage("makemigrations", "--check", "--dry-run", env=environment(tmp_path))
    assert (done.returncode, done.stdout.strip()) == (0, "No changes detected"), done.stderr


@pytest.fixture
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SECRET_KEY", raising=False)


@pytest.mark.usefixtures("no_key")
def test_secret_key_is_created_once_with_private_permissions(tmp_path):
    first = secret_key(tmp_path)
    assert first.startswith("django-insecure-")
    assert len(first) > 60
    assert secret_key(tmp_path) == first
    assert [path.name for path in tmp_path.iterdir()] == ["secret_key"]
    assert stat.S_IMODE((tmp_path / "secret_key").stat().st_mode) == 0o600
    (tmp_path / "other").mkdir()
    assert secret_key(tmp_path / "other") != first


def test_secret_key_is_that_of_the_environment_when_it_is_set(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET_KEY", "from outside")
    assert secret_key(tmp_path) == "from outside"
    assert not list(tmp_path.iterdir())


def test_secret_key_is_made_when_the_environments_is_empty(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET_KEY", "")
    assert secret_key(tmp_path).startswith("django-insecure-")


@pytest.mark.slow
@pytest.mark.usefixtures("no_key")
def test_secret_key_is_the_same_for_all_when_many_start_at_once(tmp_path):
    program = (
        "import sys, pathlib; from sentinel_project.secret_key import secret_key\n"
        "sys.stdin.read(); print(secret_key(pathlib.Path(sys.argv[1])))"
    )
    starts = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(8)
    ]
    for start in starts:
        start.stdin.close()
    found = {start.stdout.read() for start in starts}
    assert [start.wait() for start in starts] == 8 * [0]
    assert len(found) == 1
    for start in starts:
        start.stdout.close()


@pytest.mark.usefixtures("no_key")
def test_secret_key_is_the_same_for_all_when_threads_of_one_process_ask_at_once(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        for number in range(20):
            folder = tmp_path / str(number)
            folder.mkdir()
            assert len(set(pool.map(secret_key, 8 * [folder]))) == 1


@pytest.fixture
def handed_over(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What pytest was called with, instead of calling it."""
    calls: list[list[str]] = []
    monkeypatch.setattr(pytest, "main", lambda args: calls.append(args) or 0)
    return calls


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        ({}, []),
        ({"verbosity": 0}, ["-q"]),
        ({"verbosity": 2, "failfast": True}, ["-v", "-x"]),
        ({"keepdb": True, "interactive": False, "parallel": 1}, ["--reuse-db"]),
        ({"parallel": 0}, []),
        ({"parallel": 4}, ["-n", "4", "--dist", "worksteal"]),
    ],
)
def test_runner_hands_labels_and_flags_to_pytest_when_it_runs(handed_over, options, flags):
    assert PytestRunner(**options).run_tests(["tests/test_project.py::a", "tests/gateway"]) == 0
    assert handed_over == [[*flags, "tests/test_project.py::a", "tests/gateway"]]


@pytest.mark.parametrize(
    ("arguments", "flags"),
    [
        ((), []),
        (("--parallel",), ["-n", "6", "--dist", "worksteal"]),
        (("--parallel", "3"), ["-n", "3", "--dist", "worksteal"]),
        (("--parallel=1",), []),
    ],
)
def test_manage_test_starts_processes_when_it_is_asked_to(handed_over, arguments, flags, monkeypatch):
    monkeypatch.setenv("DJANGO_TEST_PROCESSES", "6")  # instead of the number of cores
    call_command("test", "tests/test_project.py", *arguments)
    assert handed_over == [[*flags, "tests/test_project.py"]]


LABEL = "tests/test_environment.py::test_number_reads_a_whole_number_when_it_is_within_bounds"


@pytest.mark.slow
def test_manage_test_runs_pytest_when_called(tmp_path):
    env = {**os.environ, **environment(tmp_path), "PYTEST_ADDOPTS": ""}
    commands = [
        (LABEL, "--verbosity=2", "--failfast", "--keepdb", "--noinput"),
        ("tests/test_environment.py::no_such_test",),
    ]
    with ThreadPoolExecutor(2) as pool:
        passed, failed = pool.map(
            lambda args: subprocess.run(
                [sys.executable, "manage.py", "test", *args],
                cwd=ROOT,
                env=env,
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            ),
            commands,
        )
    assert passed.returncode == 0, passed.stderr
    assert "3 passed" in passed.stdout
    assert "PASSED" in passed.stdout
    assert failed.returncode == 1


def test_repository_holds_no_secret_when_looked_through():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    files = listed.stdout.split("\n")
    if not any(files):
        pytest.skip("not a git checkout")
    names = {Path(name).name for name in files}
    assert not names & {"secret_key", ".env", "db.sqlite3"}
    assert not [name for name in files if name.startswith("var/")]
