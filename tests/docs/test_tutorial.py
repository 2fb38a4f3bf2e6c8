from __future__ import annotations

import ast
import json
import re
from typing import TYPE_CHECKING

import pytest

from tests.docs.blocks import Block, blocks
from tests.docs.reader import Reader
from tests.servers import start_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGE = "tutorial.md"


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """A reader who has followed the tutorial on an empty Valkey."""
    with start_server() as server, Reader(tmp_path_factory.mktemp("tutorial"), server.url) as reader:
        reader.follow(blocks(PAGE))
        yield reader


@pytest.mark.slow
def test_tutorial_prints_what_it_shows_when_followed(reader: Reader) -> None:
    for command, expected, printed in reader.heard:
        if expected or command.startswith("curl"):
            assert printed == expected, command
    assert sum(bool(expected) for _, expected, _ in reader.heard) >= 8


@pytest.mark.slow
def test_tutorial_keeps_conversations_with_another_model_and_after_a_kill(
    reader: Reader,
) -> None:
    chats = [(command, printed) for command, _, printed in reader.heard if '"trip-3"' in command and "ada" in command]
    starts = [at for at, (command, _, _) in enumerate(reader.heard) if command.startswith("uvicorn")]
    after_kill = [command for command, _, _ in reader.heard[starts[1] :]]
    assert len({command.partition('"model": ')[2][:8] for command, _ in chats}) == 2
    assert all("azure gpt-4o heard" in printed for _, printed in chats[:3])
    assert chats[2][0] in after_kill
    assert '"hit"' in chats[2][1]


EXISTING = """
import os

INSTALLED_APPS = ["unfold", *INSTALLED_APPS, "rest_framework", "drf_spectacular"]
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": os.environ["REDIS_URL"].removesuffix("0") + "1",
    }
}
REST_FRAMEWORK = {
    "DEFAULT_VERSIONING_CLASS": "rest_framework.versioning.URLPathVersioning",
    "DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework.authentication.SessionAuthentication"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "ALLOWED_VERSIONS": ["v1"],
}
"""
EXISTING_URLS = """
import time

from django.http import HttpResponse
from django.urls import include
from django.views.decorators.cache import cache_page

urlpatterns += [
    path("shop/", cache_page(60)(lambda request: HttpResponse(str(time.time_ns())))),
    path("api/<str:version>/sessions/", include("sessions_sticky.urls")),
]
"""
THEIR_CACHES = re.compile(r"^CACHES = .*# or your project's own\n", re.MULTILINE)
COMMANDS = """
$ python manage.py check
$ python manage.py migrate --verbosity 0
$ python manage.py dumpdata
$ python manage.py spectacular --validate --fail-on-warn --file schema.yml --api-version v1
$ python manage.py makemigrations --check --dry-run
"""


@pytest.mark.slow
def test_tutorial_prints_what_it_shows_when_followed_in_an_existing_project(tmp_path: Path) -> None:
    start, settings, *others = blocks(PAGE)
    with start_server(tcp=True) as server, Reader(tmp_path, server.url) as reader:
        reader.follow([start])
        Block("python", "mysite/settings.py", "add at the end", EXISTING).apply(tmp_path)
        Block("python", "mysite/urls.py", "add at the end", EXISTING_URLS).apply(tmp_path)
        ours, removed = THEIR_CACHES.subn("", settings.text)
        assert removed == 1
        reader.follow([settings._replace(text=ours), *others])
        for command, expected, printed in reader.heard:
            if expected or command.startswith("curl"):
                assert printed == expected, command
        pages = [reader.curl("localhost:8000/shop/") for _ in "12"]
        assert pages[0] == pages[1] != ""
        del reader.heard[:]
        reader.follow([Block("console", "", "", COMMANDS.lstrip())])
        printed = [printed for _, _, printed in reader.heard]
    assert printed[0].startswith("System check identified no issues")
    assert isinstance(json.loads(printed[2]), list)
    assert "sticky_sessions_list" in (tmp_path / "schema.yml").read_text()
    assert printed[4].startswith("No changes detected")


def test_tutorial_takes_less_than_40_lines() -> None:
    ours = [block for block in blocks(PAGE) if block.language == "python"]
    written = [line for block in ours for line in block.text.splitlines() if line.strip()]
    assert len(ours) >= 4
    assert len(written) < 40


def test_tutorial_works_in_every_terminal() -> None:
    """A variable that is exported in the first one is not there in the second."""
    commands = [command for block in blocks(PAGE) if block.language == "console" for command, _ in block.dialogue()]
    assert not [command for command in commands if command.startswith("export")]


def test_tutorial_is_python_of_its_own_when_read() -> None:
    for block in blocks(PAGE):
        if block.language == "python":
            assert block.path
            ast.parse(block.text)
