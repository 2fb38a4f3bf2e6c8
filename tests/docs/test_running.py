"""The pages on servers, on fakeredis and on removal: what they say is done."""

from __future__ import annotations

import json
import re
import sqlite3
import sys
from typing import TYPE_CHECKING, Any

import pytest

from sessions_sticky import cache_config, sessions
from tests import programs
from tests.docs.blocks import DOCS, blocks
from tests.servers import Server, start_server
from tests.sessions_sticky.projects import run_project

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import redis

pytestmark = pytest.mark.slow


@pytest.fixture
def server() -> Iterator[Server]:
    with start_server(tcp=True) as server:
        yield server


def on(server: Server) -> str:
    """Settings of a project with its sessions on a server, and with Django's own cache beside them."""
    database = server.url.removesuffix("0") + "1"
    return f"""
CACHES = {{
    "default": {{"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": {database!r}}},
    "sessions": cache_config({server.url!r}),
}}
SESSIONS_STICKY = {{"CACHE": "sessions"}}
"""


FORMS = """
from concurrent.futures import ThreadPoolExecutor
from asgiref.sync import async_to_sync
from sessions_sticky import rendezvous, sessions

PROVIDERS = {"a": 1, "b": 1}

def arguments(number, model):
    provider = rendezvous(f"{number}{model}", PROVIDERS)[0]
    return f"conv-{number}", {"provider": provider, "model": model, "owner": "o"}

def blocking(number):
    conversation_id, proposal = arguments(number, "m1")
    return sessions.resolve(conversation_id, **proposal).session.provider

def bridged(number):
    conversation_id, proposal = arguments(number, "m2")
    return async_to_sync(sessions.aresolve)(conversation_id, **proposal).session.provider

with ThreadPoolExecutor(8) as pool:
    found = [list(pool.map(form, [n % 10 for n in range(60)])) for form in (blocking, bridged)]
print(json.dumps([[sorted({each[i] for i in range(60) if i % 10 == n}) for n in range(10)] for each in found]))
"""


def test_both_forms_agree_when_called_by_many_threads(tmp_path: Path, server: Server) -> None:
    blocking, bridged = run_project(tmp_path, FORMS, settings=on(server))
    assert blocking == bridged
    assert {len(providers) for providers in blocking} == {1}


def test_task_of_the_page_moves_sessions(session_cache: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = [block for block in blocks("how-to/servers.md") if block.path == "tasks.py"]
    shared = type("celery", (), {"shared_task": staticmethod(lambda function: function)})
    monkeypatch.setitem(sys.modules, "celery", shared)
    names: dict[str, Any] = {}
    exec(block.text, names)
    sessions.create("conv-1", "azure", "gpt-4", "ann")
    assert names["move_all"]("azure", "openai") == 1


def test_fixture_of_the_page_stores_sessions_in_fakeredis(settings: Any) -> None:
    (block,) = [block for block in blocks("how-to/testing.md") if "TcpFakeServer" in block.text]
    names: dict[str, Any] = {"pytest": pytest}
    exec(block.text.replace("@pytest.fixture\n", ""), names)
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    settings.SESSIONS_STICKY = {"CACHE": "default"}
    running = names["sessions_fakeredis"](settings)
    url = next(running)
    assert settings.CACHES["default"] == cache_config(url) | {"OPTIONS": settings.CACHES["default"]["OPTIONS"]}
    assert [sessions.resolve("conv-1", provider="a", model="m", owner="o").outcome for _ in "12"] == [
        "created",
        "hit",
    ]
    assert sessions.all().rebind(to_provider="b", reason="test") == 1
    assert len(sessions.history("conv-1")) == 2
    assert next(running, None) is None


REMOVAL = """
from django.contrib.auth.models import Permission
from sessions_sticky import sessions

sessions.create("conv-1", "a", "m", "o")
call_command("sessions", "delete", everything=True, yes=True)
call_command("migrate", "sessions_sticky", "zero", verbosity=0)
left = Permission.objects.filter(content_type__app_label="sessions_sticky")
print(json.dumps([left.count(), sessions.all().count()]))
"""


def test_removal_leaves_what_the_page_says(tmp_path: Path, server: Server) -> None:
    assert run_project(tmp_path, REMOVAL, settings=on(server)) == [4, 0]
    file = tmp_path / "theirs" / "settings.py"
    file.write_text(f'{file.read_text()}\nINSTALLED_APPS.remove("sessions_sticky")\n')
    command = ["remove_stale_contenttypes", "--include-stale-apps", "--noinput", "--settings=theirs.settings"]
    environment = {"PYTHONPATH": f"{tmp_path}:{DOCS.parent}", "PATH": "/usr/bin:/bin"}
    assert programs.run("-m", "django", *command, cwd=tmp_path, env=environment).returncode == 0
    with sqlite3.connect(tmp_path / "db.sqlite3") as database:
        (left,) = database.execute("SELECT count(*) FROM django_content_type WHERE app_label = 'sessions_sticky'")
        (permissions,) = database.execute("SELECT count(*) FROM auth_permission WHERE codename = 'add_session'")
    database.close()
    assert left == (0,)
    assert permissions == (1,)  # of django.contrib.sessions
    page = (DOCS / "how-to" / "upgrade.md").read_text()
    assert " ".join(command[:2]) in page
    with server.client() as client:
        assert {key for key in client.scan_iter() if client.ttl(key) == -1} == {b"sentinel:history:{index}"}
        pattern = re.search(r"--pattern '(.*?)'", page)
        assert pattern
        client.delete(*client.scan_iter(match=pattern[1]))
        assert not client.dbsize()


BESIDE = """
import datetime, decimal
from django.core.cache import cache
from django.http import HttpResponse
from django.test import Client
from sessions_sticky import sessions

values = [datetime.date(2026, 1, 2), decimal.Decimal("1.5"), (1, 2), {3}, {4: 5}, b"six"]
cache.set("values", values)
sessions.create("values", "a", "m", "o")
pages = [Client().get("/cached/").content.decode() for _ in "12"]
same = cache.get("values") == values
cache.clear()
print(json.dumps([same, len(set(pages)), sessions.get("values").provider, sessions.all().count()]))
"""
CACHED = """
from django.http import HttpResponse
from django.urls import path
from django.views.decorators.cache import cache_page
import time

urlpatterns += [path("cached/", cache_page(60)(lambda request: HttpResponse(str(time.time_ns()))))]
"""


def test_cache_of_the_project_works_as_before_beside_the_sessions(tmp_path: Path, server: Server) -> None:
    found = run_project(tmp_path, BESIDE, settings=on(server), urls=CACHED)
    assert json.dumps(found) == '[true, 1, "a", 1]'
