"""Static files: served by ASGI and WSGI, at no cost to other requests."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from django.contrib.staticfiles import finders
from django.core.handlers.wsgi import WSGIHandler
from django.test import Client, RequestFactory
from servestatic.middleware import ServeStaticMiddleware

from tests.gateway.asgi import ask

CSS = "admin/css/base.css"


@pytest.fixture
def css() -> bytes:
    return Path(str(finders.find(CSS))).read_bytes()


async def test_static_file_is_served_when_asked_by_asgi(css):
    answer = await ask(path=f"/static/{CSS}", method="GET", key=None)
    assert (answer.status, answer.headers["content-type"]) == (200, 'text/css; charset="utf-8"')
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.body == css


@pytest.mark.django_db  # Django looks after its connections when a request begins
def test_static_file_is_served_when_asked_by_wsgi(css):
    started: list[Any] = []
    environ = RequestFactory(SERVER_NAME="localhost").get(f"/static/{CSS}").environ
    response = WSGIHandler()(environ, lambda *args: started.append(args))
    assert (b"".join(response), started[0][0]) == (css, "200 OK")


@pytest.mark.parametrize("path", ["nothing.css", "../settings.py", "..%2f..%2fmanage.py", "admin/css/", ""])
def test_path_is_not_found_when_it_names_no_static_file(path):
    assert Client(SERVER_NAME="localhost").get(f"/static/{path}").status_code == 404


def test_request_for_a_page_starts_no_thread(monkeypatch):
    def refuse(thread: threading.Thread) -> None:
        raise AssertionError("the request starts a thread")

    client = Client(SERVER_NAME="localhost")
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(AssertionError, match="starts a thread"):
        client.get(f"/static/{CSS}")
    assert client.get("/").status_code == 302


def test_files_are_looked_for_once_when_the_first_is_asked_for(monkeypatch):
    made: list[ServeStaticMiddleware] = []

    def look(static: ServeStaticMiddleware) -> None:
        made.append(static)

    monkeypatch.setattr(ServeStaticMiddleware, "add_files_from_finders", look)
    client = Client(SERVER_NAME="localhost")
    client.get("/")
    assert made == []
    for _ in range(2):
        client.get("/static/nothing.css")
    assert len(made) == 1
