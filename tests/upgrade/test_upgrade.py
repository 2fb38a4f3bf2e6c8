"""This version starts on what 0.1.0 wrote: sessions, index, history, operations, markers of deletion, its database."""

from __future__ import annotations

import json
import sqlite3
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.gateway.live import environment, manage
from tests.gateway.workers import Worker
from tests.servers import start_server

pytestmark = pytest.mark.slow

WRITTEN = json.loads((Path(__file__).parent / "written_by_0_1.json").read_text())
"""By write_0_1.py."""
AGE = time.time() - WRITTEN["written_at"]
BOUND = {
    session["id"]: session
    for entry in WRITTEN["redis"]
    if entry["key"].startswith("sentinel:session:")
    for session in [json.loads(entry["value"])]
}
LOOK = """
import json
from django.contrib.admin.models import LogEntry
from django.contrib.auth import authenticate
from django.contrib.auth.models import User
from django.test import Client
api, looker = Client(), Client()
api.force_login(authenticate(username="root", password="root-of-0.1.0"))
looker.force_login(User.objects.get(username="looker"))
sessions = "/admin/sessions_sticky/session/"
pages = [sessions, sessions + "move-all/", "/admin/gateway/apikey/"]
print(json.dumps({
    "operations": api.get("/api/sessions/operations/").json(),
    "pages": {page: api.get(page).status_code for page in pages},
    "looks": looker.get("/api/sessions/id/conv-2/").status_code,
    "deletes": looker.delete("/api/sessions/id/conv-2/").status_code,
    "log": [str(entry.get_change_message()) for entry in LogEntry.objects.order_by("pk")],
}))
"""


def load(client: redis.Redis) -> None:
    """Restore the keys as they would be if they had been written just now."""
    for entry in WRITTEN["redis"]:
        key, value = entry["key"], entry["value"]
        match entry["type"]:
            case "string":
                client.set(key, value)
            case "hash":
                client.hset(key, mapping=value)
            case "zset":
                client.zadd(key, {member: score + AGE for member, score in value})
            case "stream":
                for position, fields in value:
                    milliseconds, _, number = position.partition("-")
                    client.xadd(key, fields, id=f"{int(milliseconds) + int(AGE * 1000)}-{number}")
            case other:
                raise ValueError(f"{key} is of type {other}")
        if entry["ttl_ms"] > 0:
            client.pexpire(key, entry["ttl_ms"])


@contextmanager
def upgraded(folder: Path) -> Iterator[dict[str, str]]:
    """The environment of a gateway whose data is from 0.1.0, after `migrate`."""
    with sqlite3.connect(folder / "db.sqlite3") as database:
        database.executescript("\n".join(WRITTEN["sqlite"]))
    database.close()
    with start_server() as store, store.client(decode_responses=True) as client:
        load(client)
        made = environment(folder, REDIS_URL=store.url, ALLOWED_HOSTS="testserver,127.0.0.1")
        migrated = manage("migrate", "-v0", env=made)
        assert migrated.returncode == 0, migrated.stderr
        yield made


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An upgraded gateway for tests that only look."""
    with upgraded(tmp_path_factory.mktemp("upgraded")) as env:
        yield env


def printed(env: dict[str, str], *arguments: str) -> list[Any]:
    """Return the JSON lines that a command prints."""
    done = manage(*arguments, env=env)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_lists_and_counts_have_the_sessions_of_0_1(env):
    listed = {each["id"]: each for each in printed(env, "sessions", "list", "--all", "--json")}
    assert sorted(listed) == WRITTEN["sessions"] == sorted(BOUND)
    for id_, session in BOUND.items():
        assert {name: listed[id_][name] for name in session} == session
    (stats,) = printed(env, "sessions", "stats", "--json")
    assert stats["sessions"] == len(BOUND)
    assert sum(route["sessions"] for route in stats["routes"]) == len(BOUND)
    (page,) = printed(env, "sessions", "list", "--json", "--owner", "ben")
    assert [each["id"] for each in page["sessions"]] == ["grüße/🦊"]


def test_doctor_finds_nothing_wrong_with_the_data_of_0_1(env):
    (found,) = printed(env, "sessions", "doctor", "--json")
    assert [each for each in found["findings"] if each["level"] == "error"] == []


def test_recent_events_have_the_history_of_0_1(env):
    events = printed(env, "sessions", "tail", "--json", "-n", "100")
    assert ("conv-0", "planned by hand") in [(each["conversation_id"], each["reason"]) for each in events]
    assert {each["kind"] for each in events} == {"created", "rebound", "deleted"}


def test_pages_permissions_operations_and_log_of_0_1_are_there(env):
    (found,) = printed(env, "shell", "--no-imports", "-c", LOOK)
    assert set(found["pages"].values()) == {200}, found["pages"]
    assert (found["looks"], found["deletes"]) == (200, 403)
    (operation,) = found["operations"]["results"]
    assert operation["state"] == "done"
    assert operation["reason"] == "maintenance"
    assert any("by the API" in message for message in found["log"])


def test_conversations_of_0_1_go_on_with_their_keys_and_providers(tmp_path):
    with upgraded(tmp_path) as env, Worker(tmp_path, env) as worker:
        worker.wait()
        for id_ in ("conv-0", "conv-1", "conv-2"):
            assert ask(worker, conversation_id=id_) == ("hit", BOUND[id_]["provider"])
        outcome, provider = ask(worker, {"X-Session-Id": "ses-1"})
        assert outcome == "created"
        assert ask(worker, {"X-Session-Id": "ses-1"}) == ("hit", provider)
        assert ask(worker, conversation_id="conv-5")[0] == "created"


def ask(worker: Worker, headers: dict[str, str] | None = None, **fields: str) -> tuple[str, str]:
    """Send a chat with the key of 0.1; return its outcome and its provider."""
    body = {"model": "echo-large", "messages": [{"role": "user", "content": "hello"}], **fields}
    sent = {"Authorization": f"Bearer {WRITTEN['key']}", "Content-Type": "application/json", **(headers or {})}
    request = urllib.request.Request(f"{worker.url}/v1/chat/completions", json.dumps(body).encode(), sent)
    with urllib.request.urlopen(request, timeout=20) as answer:
        return answer.headers["X-Session-Outcome"], answer.headers["X-Session-Provider"]
