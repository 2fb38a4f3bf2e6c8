"""Keys, users and the admin's log on a real PostgreSQL, shared by two gateways."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.cookiejar import CookieJar
from pathlib import Path
from urllib.parse import urlencode

import psycopg
import pytest

from tests import programs
from tests.gateway.live import ROOT, LiveGateway, environment, manage
from tests.postgres import Postgres
from tests.programs import Program
from tests.upgrade.test_upgrade import WRITTEN
from tests.waiting import SECONDS, wait_until

pytestmark = pytest.mark.slow

CHAT = {"model": "echo-small", "messages": [{"role": "user", "content": "hello"}]}
LAST_MIGRATION_OF_0_1 = "0002"
CREATE_USER = """
import django
django.setup()
from django.contrib.auth.models import User
User.objects.create_superuser("ada", password="only-for-the-tests")
"""


@pytest.fixture(scope="module")
def postgres(postgres_programs: Path) -> Iterator[Postgres]:
    with Postgres(postgres_programs) as server:
        yield server


@pytest.fixture
def database_url(postgres: Postgres) -> str:
    """An empty database."""
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS sentinel WITH (FORCE)")
        connection.execute("CREATE DATABASE sentinel")
    return postgres.url.replace("/postgres", "/sentinel")


@pytest.fixture
def gateways(tmp_path: Path, database_url: str, valkey_url: str) -> Iterator[tuple[LiveGateway, LiveGateway]]:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    variables = {"DATABASE_URL": database_url, "REDIS_URL": valkey_url}
    done = manage("migrate", env=environment(folders[0], **variables))
    assert done.returncode == 0, done.stderr
    with LiveGateway(folders[0], **variables) as one, LiveGateway(folders[1], **variables) as two:
        yield one, two


def conversation(key: str) -> str:
    return f"conv-{key[-8:]}"


def chat(gateway: LiveGateway, key: str) -> tuple[int, str]:
    """Return the status and the provider of an answer, in a conversation of the key's own."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    request = urllib.request.Request(
        f"{gateway.url}/v1/chat/completions",
        json.dumps({**CHAT, "conversation_id": conversation(key)}).encode(),
        headers,
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.headers["X-Session-Provider"]
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, ""


def test_key_works_at_both_gateways_and_at_neither_once_revoked(
    gateways: tuple[LiveGateway, LiveGateway], database_url: str
) -> None:
    one, two = gateways
    key = one.create_key("eve")
    status, provider = chat(one, key)
    assert status == 200
    assert chat(two, key) == (200, provider)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("DELETE FROM gateway_apikey WHERE owner = 'eve'")
    wait_until(lambda: chat(one, key)[0] == chat(two, key)[0] == 401, seconds=60)


def test_known_keys_work_and_others_get_503_while_the_server_is_down(
    gateways: tuple[LiveGateway, LiveGateway], postgres: Postgres
) -> None:
    one, _ = gateways
    known, unknown = one.create_key("ann"), "sk-sentinel-unknown"
    assert chat(one, known)[0] == 200
    postgres.kill()
    try:
        assert chat(one, known)[0] == 200
        assert chat(one, unknown)[0] == 503
    finally:
        postgres.start()
    wait_until(lambda: chat(one, unknown)[0] == 401)


def test_admin_log_names_the_user_who_makes_a_key_on_a_page(
    gateways: tuple[LiveGateway, LiveGateway], database_url: str
) -> None:
    one, _ = gateways
    env = {**one.env, "DJANGO_SETTINGS_MODULE": "sentinel_project.settings"}
    assert programs.run("-c", CREATE_USER, env=env).returncode == 0
    jar = CookieJar()
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))

    def post(path: str, **fields: str) -> None:
        with browser.open(f"{one.url}{path}", timeout=20):
            pass
        token = next(cookie.value for cookie in jar if cookie.name == "csrftoken")
        form = urlencode({**fields, "csrfmiddlewaretoken": str(token)}).encode()
        with browser.open(f"{one.url}{path}", form, timeout=20) as page:
            assert page.status == 200

    post("/admin/login/", username="ada", password="only-for-the-tests", next="/admin/")
    post("/admin/gateway/apikey/add/", owner="eve")
    with psycopg.connect(database_url) as connection:
        query = "SELECT username, action_flag FROM django_admin_log JOIN auth_user ON user_id = auth_user.id"
        assert connection.execute(query).fetchall() == [("ada", 1)]


def test_key_of_0_1_works_once_its_database_is_migrated(tmp_path: Path, database_url: str, valkey_url: str) -> None:
    variables = {"DATABASE_URL": database_url, "REDIS_URL": valkey_url}
    env = environment(tmp_path, **variables)
    for arguments in ([], ["gateway", LAST_MIGRATION_OF_0_1]):
        done = manage("migrate", "-v0", *arguments, env=env)
        assert done.returncode == 0, done.stderr
    (insert,) = (line for line in WRITTEN["sqlite"] if line.startswith('INSERT INTO "gateway_apikey"'))
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(insert)
    done = manage("migrate", "-v0", env=env)
    assert done.returncode == 0, done.stderr
    with LiveGateway(tmp_path, **variables) as gateway:
        assert chat(gateway, WRITTEN["key"])[0] == 200


def test_run_migrates_once_when_four_start_on_an_empty_database(
    tmp_path: Path, database_url: str, valkey_url: str
) -> None:
    command = (str(ROOT / "manage.py"), "run", "--port", "0")
    processes = []
    for name in ("a", "b", "c", "d"):
        (tmp_path / name).mkdir()  # as on machines of their own: no lock file is shared
        env = environment(tmp_path / name, DATABASE_URL=database_url, REDIS_URL=valkey_url)
        with open(tmp_path / name / "log", "wb") as log:
            processes.append(Program(*command, env=env, cwd=tmp_path / name, stdout=log, stderr=log))
    logs = [tmp_path / name / "log" for name in ("a", "b", "c", "d")]
    try:
        wait_until(
            lambda: all(
                "Serving on" in log.read_text() or p.poll() is not None for p, log in zip(processes, logs, strict=True)
            )
        )
        assert [process.poll() for process in processes] == [None] * 4, [log.read_text() for log in logs]
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(SECONDS)
    assert sum("migrations applied" in log.read_text() for log in logs) == 1
