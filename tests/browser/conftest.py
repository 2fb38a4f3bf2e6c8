"""A real browser before a real server with a real Valkey.

The fixtures of Playwright end with this folder: while they live, Django takes their event loop for one of its own, and
asynchronous tests find it running.
"""

from __future__ import annotations

import shutil
import threading
from typing import TYPE_CHECKING, Any

import pytest
from django.conf import settings as django_settings
from django.test import Client, override_settings
from playwright.sync_api import expect, sync_playwright
from pytest_django.live_server_helper import LiveServer

from tests.missing import skip_or_fail
from tests.sessions_sticky import users
from tests.sessions_sticky.admin.pages import wait_for_jobs
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.contrib.auth.models import User
    from playwright.sync_api import Browser, ConsoleMessage, Page

CSP = "tests.browser.strict_csp.strict_csp"
TIMEOUT_MS = 20_000
PROGRAMS = ("chromium-headless-shell", "chromium")
"""Both render the same; the first takes half of the CPU time, as it has no user interface."""
OPTIONS = ["--no-sandbox", "--disable-gpu", "--js-flags=--no-opt"]
"""No page lives long enough to gain from V8's optimizing compiler."""


@pytest.fixture(scope="package")
def chromium(live_server: LiveServer) -> Iterator[Browser]:
    """Debian's Chromium; it may be missing, but not in CI. It ends before the server, to which it keeps connections."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if not program:
        skip_or_fail(f"neither {' nor '.join(PROGRAMS)} on PATH")
    expect.set_options(timeout=TIMEOUT_MS)
    with pytest.MonkeyPatch.context() as patch, sync_playwright() as playwright:
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
        browser = playwright.chromium.launch(executable_path=program, args=OPTIONS)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def live_server(django_db_setup: None) -> Iterator[LiveServer]:
    """pytest-django's server, with a strict Content-Security-Policy."""
    others = set(threading.enumerate())  # also those of the server of fakeredis, which lives as long as the worker
    with override_settings(MIDDLEWARE=[CSP, *django_settings.MIDDLEWARE]):
        server = LiveServer("localhost")
    yield server
    # Threads of connections close those to the database, which they may only while the server runs.
    wait_until(lambda: not any("process_request_thread" in each.name for each in {*threading.enumerate()} - others))
    server.stop()


@pytest.fixture
def make_operator(transactional_db: None) -> Callable[..., User]:
    """Make a user of the admin with permissions on sessions; without any, one who may do everything."""
    return lambda *actions, name="ada": users.make_user(name, *actions, is_staff=True, is_superuser=not actions)


class Watched:
    """A page, and what the browser complained of: errors in the console, broken scripts, refused content."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.route("**/favicon.ico", lambda route: route.fulfill(status=204))

    def _note(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)


@pytest.fixture
def browse(
    chromium: Browser, live_server: LiveServer, session_cache: Any, make_operator: Callable[..., User]
) -> Iterator[Callable[..., Watched]]:
    """Open a page in which a user is logged in; other arguments are those of a browser context."""
    opened: list[Watched] = []

    def open_page(*actions: str, name: str = "ada", **options: Any) -> Watched:
        client = Client()
        client.force_login(make_operator(*actions, name=name))
        context = chromium.new_context(base_url=live_server.url, **options)
        context.set_default_timeout(TIMEOUT_MS)
        cookie = client.cookies[django_settings.SESSION_COOKIE_NAME]
        context.add_cookies([{"name": cookie.key, "value": cookie.value, "url": live_server.url}])
        opened.append(Watched(context.new_page()))
        return opened[-1]

    yield open_page
    for each in opened:
        each.page.context.close()
    wait_for_jobs()
    assert [each.complaints for each in opened if each.complaints] == []


@pytest.fixture
def page(browse: Callable[..., Watched]) -> Page:
    """A page of a superuser."""
    return browse().page
