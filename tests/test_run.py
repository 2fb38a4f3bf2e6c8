"""`manage.py run` as a user starts it: a process of its own, with a data folder of its own."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import tomllib
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
import redis

from sentinel_project import embedded
from tests.programs import Program
from tests.waiting import SECONDS, wait_until

ROOT = Path(__file__).parent.parent
OURS = ("SENTINEL_", "REDIS_", "DATABASE_", "DJANGO_", "DEBUG", "ALLOWED_HOSTS", "SESSION_", "SECRET_KEY")
DIE_IN_MIGRATION = """
import os, sys
from django.core.management import execute_from_command_line
from django.db.migrations.recorder import MigrationRecorder

record = MigrationRecorder.record_applied
MigrationRecorder.record_applied = lambda *args: os._exit(9) if args[1] == "auth" else record(*args)
os.environ["DJANGO_SETTINGS_MODULE"] = "sentinel_project.settings"
execute_from_command_line(sys.argv[1:])
"""
pytestmark = pytest.mark.slow


def clean_environment(data: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    return {**kept, "SENTINEL_DATA_DIR": str(data)}


class Gateway:
    """A started command and what it printed until it was ready; a demo as with `make run`, unless `demo` is False."""

    def __init__(self, data: Path, *args: str, demo: bool = True, stdin: int | None = None, **environment: str) -> None:
        command = ["manage.py", "run", "--port", "0", *args]
        self.data = data
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        env = {**clean_environment(data), **environment}
        if demo:
            command.append("--demo")
        self.process = Program(*command, env=env, cwd=ROOT, stdin=stdin, stdout=subprocess.PIPE, stderr=self._errors)
        self.printed = ""
        self.clients: list[str] = []
        """The lines that start Claude Code, Codex and OpenCode, where they were read."""

    def wait_until_ready(self) -> None:
        for line in self.process.stdout:
            self.printed += line
            if line.startswith("curl") or "createsuperuser" in line:  # the last one but the clients'
                return
        raise AssertionError(f"did not start: {self.errors()}")

    def errors(self) -> str:
        """Return what it has written to standard error."""
        self._errors.seek(0)
        return self._errors.read()

    @property
    def curl(self) -> str:
        return next(line for line in self.printed.splitlines() if line.startswith("curl"))

    @property
    def site(self) -> str:
        return re.search(r"Serving on (\S+),", self.printed)[1]

    def ask(self) -> tuple[str, str]:
        """Send what the printed curl line sends; return the answer's text and the session's outcome."""
        _, url, _, *rest = shlex.split(self.curl)
        authorization, _, kind, _, body = rest
        headers = dict(line.split(": ", 1) for line in (authorization, kind))
        with urllib.request.urlopen(urllib.request.Request(url, body.encode(), headers), timeout=20) as response:
            content = json.load(response)["choices"][0]["message"]["content"]
            return content, response.headers["X-Session-Outcome"]

    def stop(self, signum: int = signal.SIGTERM) -> str:
        """Return what it wrote to standard error."""
        self.process.send_signal(signum)
        self.process.wait(SECONDS)
        return self.errors()

    def close(self) -> None:
        """Kill it, and close the files of its output."""
        self.process.__exit__()
        self._errors.close()

    def answers(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.site}/healthz", timeout=5).close()
        except OSError:
            return False
        return True


@contextmanager
def started(
    data: Path, *args: str, demo: bool = True, stdin: int | None = None, **environment: str
) -> Iterator[Gateway]:
    gateway = Gateway(data, *args, demo=demo, stdin=stdin, **environment)
    try:
        gateway.wait_until_ready()
        yield gateway
    finally:
        gateway.close()


def failure(data: Path, *args: str, **environment: str) -> str:
    """Return what a command that must not start writes to standard error."""
    gateway = Gateway(data, *args, **environment)
    try:
        assert gateway.process.wait(SECONDS) == 1
        printed, errors = gateway.process.stdout.read(), gateway.errors()
    finally:
        gateway.close()
    assert printed == ""
    assert errors.count("\n") == 1
    assert not store_answers(data)
    return errors


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A command that has been started for the first time."""
    with started(tmp_path_factory.mktemp("first") / "data") as gateway:
        gateway.clients = [gateway.process.stdout.readline() for _ in range(3)]
        yield gateway


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder that a command has been started in before: most tests need no new database."""
    data = tmp_path_factory.mktemp("prepared")
    with started(data) as gateway:
        gateway.stop()
    return data


@pytest.fixture
def data(tmp_path: Path, prepared: Path) -> Path:
    return Path(shutil.copytree(prepared, tmp_path / "data"))


def store_answers(data: Path) -> bool:
    with redis.Redis.from_url(embedded.url(data), retry=None) as client:
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False


def test_run_answers_the_printed_curl_line_when_started_for_the_first_time(first: Gateway) -> None:
    assert re.search(r"Database: \d+ migrations applied", first.printed)
    assert re.search(r"Admin: http://127.0.0.1:\d+/admin/ user admin password \S{16}\n", first.printed)
    assert f"Store: {embedded.url(first.data)}\n" in first.printed
    content, outcome = first.ask()
    assert content.endswith("heard: Hello")
    assert outcome == "created"
    if shutil.which("curl"):
        answer = subprocess.run(["sh", "-c", f"{first.curl} -sS"], capture_output=True, text=True, check=True)
        assert json.loads(answer.stdout)["choices"][0]["message"]["content"] == content


def test_run_prints_a_line_that_starts_claude_code(first: Gateway) -> None:
    *variables, program = shlex.split(first.clients[0])
    claude = dict(variable.split("=", 1) for variable in variables)
    assert program == "claude"
    assert claude["ANTHROPIC_BASE_URL"] == first.site
    assert claude["ANTHROPIC_MODEL"] == "echo-small"
    headers = {"Authorization": f"Bearer {claude['ANTHROPIC_AUTH_TOKEN']}"}
    body = {"model": claude["ANTHROPIC_MODEL"], "messages": [{"role": "user", "content": "Hello"}]}
    request = urllib.request.Request(f"{first.site}/v1/messages", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert json.load(answer)["content"][0]["text"].endswith("heard: Hello")


def test_run_prints_a_line_that_starts_codex(first: Gateway) -> None:
    key, program, *options = shlex.split(first.clients[1])
    assert (program, options[:4]) == ("codex", ["-m", "echo-small", "-c", "model_provider=gateway"])
    config = tomllib.loads(options[-1])["model_providers"]["gateway"]
    assert (config["base_url"], config["wire_api"]) == (f"{first.site}/v1", "responses")
    headers = {"Authorization": f"Bearer {key.removeprefix(config['env_key'] + '=')}"}
    body = {"model": "echo-small", "input": "Hello", "stream": True}
    request = urllib.request.Request(f"{config['base_url']}/responses", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        *_, last = answer.read().decode().strip().split("\n\n")
    assert last.startswith("event: response.completed\n")


def test_run_prints_a_line_that_starts_opencode(first: Gateway) -> None:
    variable, program = shlex.split(first.clients[2])
    config = json.loads(variable.removeprefix("OPENCODE_CONFIG_CONTENT="))
    assert (program, config["model"], config["small_model"]) == ("opencode", *["gateway/echo-small"] * 2)
    options = config["provider"]["gateway"]["options"]
    headers = {"Authorization": f"Bearer {options['apiKey']}"}
    body = {"model": "echo-small", "messages": [{"role": "user", "content": "Hello"}]}
    request = urllib.request.Request(f"{options['baseURL']}/chat/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert json.load(answer)["choices"][0]["message"]["content"].endswith("heard: Hello")


def test_run_keeps_sessions_and_credentials_when_started_again(data: Path) -> None:
    with started(data) as gateway:
        first = gateway.ask()
        gateway.stop()
    with started(data) as again:
        assert "migrations" not in again.printed
        assert re.findall(r"password \S+|Bearer \S+", again.printed) == re.findall(
            r"password \S+|Bearer \S+", gateway.printed
        )
        assert again.ask() == (first[0], "hit")


def test_run_reports_that_the_password_was_changed(data: Path) -> None:
    kept = json.loads((data / "demo.json").read_bytes())
    (data / "demo.json").write_text(json.dumps({**kept, "admin_password": "another"}))

    with started(data) as gateway:
        assert "user admin (password changed)\n" in gateway.printed


@pytest.fixture
def terminal() -> Iterator[int]:
    """A terminal, which stays open."""
    ours, its = os.openpty()
    yield its
    os.close(its)
    os.close(ours)


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_run_ends_gateway_and_store_when_it_is_stopped(
    data: Path, workers: str, signum: signal.Signals, terminal: int
) -> None:
    with started(data, "--workers", workers, stdin=terminal) as gateway:
        assert gateway.ask()[0].endswith("Hello")

        assert "Traceback" not in gateway.stop(signum)

        assert gateway.process.returncode == 0
        assert not gateway.answers()
        assert not store_answers(data)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_run_ends_gateway_and_store_when_it_is_killed(data: Path, workers: str) -> None:
    with started(data, "--workers", workers) as gateway:
        assert gateway.ask()[0].endswith("Hello")

        gateway.process.kill()

        wait_until(lambda: not gateway.answers())
        wait_until(lambda: not store_answers(data))


def test_run_serves_on_when_the_store_ends(data: Path) -> None:
    with started(data) as gateway:
        content, _ = gateway.ask()
        with redis.Redis.from_url(embedded.url(data)) as client:
            client.shutdown()

        assert gateway.ask() == (content, "degraded")
        assert "Traceback" not in gateway.stop()


def test_run_shares_store_and_credentials_when_two_start_at_once(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with ExitStack() as stack:
        both = [Gateway(data) for _ in range(2)]
        for gateway in both:
            stack.callback(gateway.close)
        for gateway in both:
            gateway.wait_until_ready()
        keys = {re.search(r"Bearer (\S+)'", gateway.curl)[1] for gateway in both}
        assert len(keys) == 1
        assert sorted(gateway.ask()[1] for gateway in both) == ["created", "hit"]

        both[0].stop()
        assert both[1].ask()[1] == "hit"
        both[1].stop()
        wait_until(lambda: not store_answers(data))


def test_run_fails_in_one_line_when_the_port_is_in_use(data: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        expected = f"CommandError: Port {port} is in use on 127.0.0.1; choose another with --port\n"
        assert failure(data, "--port", str(port)) == expected


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--port", "70000"], "--port must be from 0 to 65535, not 70000"),
        (["--workers", "0"], "--workers must be at least 1, not 0"),
        (["--host", "192.0.2.1"], "Cannot listen on 192.0.2.1, port 0: "),
    ],
)
def test_run_fails_in_one_line_when_an_option_cannot_be(data: Path, args: list[str], message: str) -> None:
    assert failure(data, *args).startswith(f"CommandError: {message}")


def test_run_fails_in_one_line_when_the_store_does_not_start(data: Path, tmp_path: Path) -> None:
    server = tmp_path / "valkey-server"
    server.write_text("#!/bin/sh\ntest $1 = --version && echo v=9.9 && exit\necho out of luck\n")
    server.chmod(0o755)

    errors = failure(data, PATH=f"{tmp_path}:{os.environ['PATH']}")

    assert errors == f"CommandError: The embedded store did not start: {server} ended: out of luck\n"


def test_run_fails_in_one_line_when_the_database_cannot_be_used(data: Path, tmp_path: Path) -> None:
    errors = failure(data, DATABASE_URL=f"sqlite:///{tmp_path}/missing/db.sqlite3")

    assert errors.startswith("CommandError: The database cannot be used: ")


def test_run_migrates_when_it_was_killed_while_it_did(tmp_path: Path) -> None:
    command = [sys.executable, "-c", DIE_IN_MIGRATION, "manage.py", "run", "--demo", "--port", "0"]
    died = subprocess.run(command, cwd=ROOT, env=clean_environment(tmp_path), capture_output=True, check=False)
    assert died.returncode == 9

    with started(tmp_path) as gateway:
        assert gateway.ask()[0].endswith("Hello")


def test_run_uses_that_store_when_redis_url_is_set(data: Path, valkey_url: str) -> None:
    (data / "users.lock").unlink()
    url = valkey_url.replace("unix://", "unix://default:secret@")
    with redis.Redis.from_url(valkey_url) as client:
        client.config_set("requirepass", "secret")
        try:
            with started(data, REDIS_URL=url) as gateway:
                assert gateway.ask()[1] == "created"
                assert "secret" not in gateway.printed
                assert re.search(r"^Store: unix:///", gateway.printed, re.MULTILINE)
        finally:
            client.config_set("requirepass", "")
    assert not (data / "users.lock").exists()
    assert not store_answers(data)


SECRET = re.compile(r"sk-\w|password|[\w-]{16,}'")


@contextmanager
def database(data: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(data / "db.sqlite3", isolation_level=None)) as connection:
        yield connection


def rows(data: Path) -> list[int]:
    """Return the numbers of users, API keys and tokens."""
    with database(data) as connection:
        tables = ("auth_user", "gateway_apikey", "authtoken_token")
        return [connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables]


@pytest.fixture
def undemoed(data: Path) -> Path:
    """A data folder whose database has no users and no keys, with nothing kept of a demo."""
    (data / "demo.json").unlink()
    with database(data) as connection:
        connection.execute("DELETE FROM auth_user")
        connection.execute("DELETE FROM gateway_apikey")
    return data


def assert_no_credentials(gateway: Gateway, data: Path) -> None:
    assert not SECRET.search(gateway.printed)
    assert "manage.py createkey OWNER" in gateway.printed
    assert "manage.py createsuperuser" in gateway.printed
    assert rows(data)[2] == 0
    assert not (data / "demo.json").exists()


@pytest.mark.parametrize("demo", [False, True])
def test_run_makes_no_credentials_when_stores_are_configured(undemoed: Path, valkey_url: str, demo: bool) -> None:
    variables = {"DATABASE_URL": f"sqlite:///{undemoed}/db.sqlite3", "REDIS_URL": valkey_url}
    with started(undemoed, demo=demo, **variables) as gateway:
        assert_no_credentials(gateway, undemoed)
        assert rows(undemoed) == [0, 0, 0]


def test_run_makes_no_credentials_when_no_demo_is_asked_for(undemoed: Path) -> None:
    with started(undemoed, demo=False) as gateway:
        assert_no_credentials(gateway, undemoed)
        assert rows(undemoed) == [0, 0, 0]


def test_run_prints_no_kept_credentials_when_no_demo_is_asked_for(data: Path) -> None:
    before = rows(data)
    with started(data, demo=False) as gateway:
        assert not SECRET.search(gateway.printed)
    assert rows(data) == before


def test_run_makes_no_credentials_when_others_can_reach_it(undemoed: Path) -> None:
    with started(undemoed, "--host", "0.0.0.0") as gateway:
        assert_no_credentials(gateway, undemoed)
        assert "No demo credentials: other machines can reach 0.0.0.0\n" in gateway.printed
        assert rows(undemoed) == [0, 0, 0]


def test_run_makes_no_credentials_when_providers_are_configured(undemoed: Path) -> None:
    file = undemoed / "providers.toml"
    file.write_text('[[provider]]\nname = "one"\nbase_url = "http://127.0.0.1:1/v1"\nmodels = ["m"]\n')
    with started(undemoed, SENTINEL_PROVIDERS=str(file)) as gateway:
        assert_no_credentials(gateway, undemoed)
        assert "No demo credentials: SENTINEL_PROVIDERS is set\n" in gateway.printed
        assert rows(undemoed) == [0, 0, 0]


USER = (
    "INSERT INTO auth_user (username, password, email, first_name, last_name, is_superuser, is_staff, is_active, "
    "date_joined) VALUES (?, '!', '', '', '', 0, 0, 1, '2026-01-01')"
)
API_KEY = (
    "INSERT INTO gateway_apikey (owner, digest, hint, created_at, changed_at, revoked_at) "
    "VALUES (?, 'd', 'sk', '2026-01-01', '2026-01-01', '2026-01-01')"
)


@pytest.mark.parametrize(("statement", "name"), [(USER, "ann"), (USER, "admin"), (API_KEY, "ann")])
def test_run_makes_no_credentials_when_the_database_is_in_use(undemoed: Path, statement: str, name: str) -> None:
    with database(undemoed) as connection:
        connection.execute(statement, [name])
    before = rows(undemoed)
    with started(undemoed) as gateway:
        assert_no_credentials(gateway, undemoed)
        assert "No demo credentials: the database has other users or API keys\n" in gateway.printed
        assert rows(undemoed) == before


@pytest.mark.parametrize(("statement", "name"), [(USER, "ann"), (API_KEY, "ann")])
def test_run_prints_no_kept_credentials_when_the_database_came_into_use(data: Path, statement: str, name: str) -> None:
    with database(data) as connection:
        connection.execute(statement, [name])
        connection.execute("UPDATE gateway_apikey SET revoked_at = '2026-01-01'")
    before = rows(data)
    with started(data) as gateway:
        assert not SECRET.search(gateway.printed)
        assert rows(data) == before


def test_make_run_starts_a_demo() -> None:
    shown = subprocess.run(["make", "-n", "run"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "manage.py run --demo" in shown.stdout
