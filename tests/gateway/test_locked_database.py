"""SQLite while another process writes, and while none can read it: keys, `/readyz` and `createkey`."""

from __future__ import annotations

import json
import sqlite3
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from sentinel_project.gateway.models import digest
from tests.gateway.live import LiveGateway, manage
from tests.waiting import wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, valkey_url: str) -> Iterator[LiveGateway]:
    with LiveGateway(tmp_path_factory.mktemp("gateway"), REDIS_URL=valkey_url) as live:
        yield live


@contextmanager
def locked(folder: Path, *statements: str) -> Iterator[None]:
    """Hold a lock of the database while the block runs."""
    with closing(sqlite3.connect(folder / "db.sqlite3", isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)
        yield


WRITER = ("BEGIN IMMEDIATE", "UPDATE gateway_apikey SET owner = owner")


def get(gateway: LiveGateway, path: str, key: str = "") -> tuple[int, dict[str, str], dict[str, Any]]:
    """Return status, headers and JSON of an answer."""
    request = urllib.request.Request(f"{gateway.url}{path}", headers={"Authorization": f"Bearer {key}"})
    try:
        answer = urllib.request.urlopen(request, timeout=20)
    except urllib.error.HTTPError as exc:
        answer = exc
    with answer:
        return answer.status, {name.lower(): value for name, value in answer.headers.items()}, json.load(answer)


def test_database_is_in_wal_mode_when_the_gateway_has_opened_it(gateway: LiveGateway) -> None:
    with closing(sqlite3.connect(gateway.folder / "db.sqlite3")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_new_key_works_when_another_process_writes(gateway: LiveGateway) -> None:
    new = gateway.create_key("eve")
    with locked(gateway.folder, *WRITER):
        assert get(gateway, "/v1/models", new)[0] == 200
        assert get(gateway, "/v1/models", "sk-sentinel-unknown")[0] == 401
        assert get(gateway, "/readyz")[2]["database"] == "ok"


def test_unknown_key_gets_retry_after_when_the_database_is_unreadable(gateway: LiveGateway) -> None:
    assert get(gateway, "/v1/models", gateway.key)[0] == 200
    new = "sk-sentinel-new"
    columns = "owner, hint, created_at, changed_at"
    insert = (
        f"INSERT INTO gateway_apikey ({columns}, digest) SELECT {columns}, '{digest(new)}' FROM gateway_apikey LIMIT 1"
    )
    # At once: the gateway reads new keys every two seconds.
    with locked(gateway.folder, "BEGIN", insert, "ALTER TABLE gateway_apikey RENAME TO hidden", "COMMIT"):
        status, headers, body = get(gateway, "/v1/models", new)
        assert (status, headers.get("retry-after")) == (503, "1"), body
        assert body["error"]["message"] == "API keys cannot be checked"
        assert get(gateway, "/v1/models", gateway.key)[0] == 200
        status, _, body = get(gateway, "/readyz")
        assert (status, body["database"]) == (503, "unavailable")
    with locked(gateway.folder, "ALTER TABLE hidden RENAME TO gateway_apikey"):
        wait_until(lambda: get(gateway, "/v1/models", new)[0] == 200)
        assert get(gateway, "/readyz")[2]["database"] == "ok"


def test_createkey_fails_in_one_line_when_another_process_writes_for_long(gateway: LiveGateway) -> None:
    with locked(gateway.folder, *WRITER):
        done = manage("createkey", "eve", env=gateway.env)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "CommandError: The database cannot be used: database is locked\n"


def test_createkey_waits_when_another_process_writes_for_a_moment(gateway: LiveGateway) -> None:
    with ThreadPoolExecutor(1) as pool:
        with locked(gateway.folder, *WRITER):
            making = pool.submit(gateway.create_key, "eve")
            time.sleep(2)
        assert making.result().startswith("sk-sentinel-")
