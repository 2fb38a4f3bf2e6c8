"""Make screenshots of the admin: `python docs/screenshots.py [folder]`, docs/images by default.

Starts the gateway with its own store and demo data, and drives the Chromium on PATH with playwright.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Literal, NamedTuple

from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
DEMO_DATA = str(ROOT / "docs" / "demo_data.py")
START_SECONDS = 60
SESSIONS = "/admin/sessions_sticky/session/"
Theme = Literal["light", "dark"]
THEMES: tuple[Theme, ...] = ("light", "dark")
ROUTE = ("azure-eu", "azure-us")
"""The source and target of the move; afterwards it is reversed."""
SIZES = {"": (1280, 800), "-phone": (390, 844)}
PROVIDERS = """
[[provider]]
name = "openai"
base_url = "https://openai.invalid/v1"
models = ["gpt-5", "gpt-5-mini"]
[[provider]]
name = "anthropic"
base_url = "https://anthropic.invalid/v1"
models = ["claude-sonnet-4-5"]
[[provider]]
name = "azure-eu"
base_url = "https://azure-eu.invalid/v1"
models = ["gpt-5"]
[[provider]]
name = "azure-us"
base_url = "https://azure-us.invalid/v1"
models = ["gpt-5"]
[[provider]]
name = "mistral"
base_url = "https://mistral.invalid/v1"
models = ["mistral-large"]
"""


def free_port() -> int:
    """Return a free loopback port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


PORT = free_port()
SITE = f"http://127.0.0.1:{PORT}"


class Demo(NamedTuple):
    """A server with demo data; `make_many` adds a provider with many sessions to move."""

    admin_password: str
    make_many: Callable[[], object]


def main(folder: Path) -> None:
    """Take all pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    with serving() as demo, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        windows = [Window(browser, demo, folder, theme, suffix) for theme in THEMES for suffix in SIZES]
        for window in windows:
            window.look_around()
        demo.make_many()
        for window, (provider, to_provider) in zip(windows, cycle([ROUTE, ROUTE[::-1]]), strict=False):
            window.move_all(provider, to_provider)
        browser.close()


@contextmanager
def serving() -> Iterator[Demo]:
    """Serve demo data."""
    with tempfile.TemporaryDirectory() as data:
        providers = Path(data, "providers.toml")
        providers.write_text(PROVIDERS)
        env = {
            **{name: value for name, value in os.environ.items() if name != "REDIS_URL"},
            "PYTHONPATH": str(ROOT),
            "DJANGO_SETTINGS_MODULE": "sentinel_project.settings",
            "SENTINEL_DATA_DIR": data,
            "DATABASE_URL": f"sqlite:///{data}/db.sqlite3",
            "SENTINEL_PROVIDERS": str(providers),
            "DJANGO_SUPERUSER_USERNAME": "admin",
            "DJANGO_SUPERUSER_PASSWORD": secrets.token_urlsafe(12),
            "DJANGO_SUPERUSER_EMAIL": "",
        }
        manage = [sys.executable, str(ROOT / "manage.py")]
        server = subprocess.Popen([*manage, "run", "--port", str(PORT)], env=env, stdout=subprocess.DEVNULL)
        try:
            wait_until_healthy(server)
            subprocess.run([*manage, "createsuperuser", "--noinput"], env=env, check=True)
            subprocess.run([sys.executable, DEMO_DATA], env=env, check=True)
            password = env["DJANGO_SUPERUSER_PASSWORD"]
            yield Demo(password, lambda: subprocess.run([sys.executable, DEMO_DATA, "many"], env=env, check=True))
        finally:
            server.terminate()
            server.wait()


def wait_until_healthy(server: subprocess.Popen[bytes]) -> None:
    """Wait until the server answers."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            urllib.request.urlopen(f"{SITE}/healthz", timeout=5).close()
            return
        except urllib.error.URLError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


class Window:
    """A browser window in one theme and size, logged in."""

    def __init__(self, browser: Browser, demo: Demo, folder: Path, theme: Theme, suffix: str) -> None:
        width, height = SIZES[suffix]
        self._ending = f"{theme}{suffix}.png"
        self._folder = folder
        self._page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=theme, locale="en")
        self._page.goto(f"{SITE}/admin/login/?next={SESSIONS}")
        self._page.fill("[name=username]", "admin")
        self._page.fill("[name=password]", demo.admin_password)
        self._page.press("[name=password]", "Enter")
        self._page.wait_for_url(f"**{SESSIONS}")

    def look_around(self) -> None:
        """Take the read-only pages."""
        self._open("", "list")
        self._open("ticket-20871/change/", "detail", full=True)
        self._open("overview/", "overview", full=True)
        self._open("providers/", "providers", full=True)

    def move_all(self, provider: str, to_provider: str) -> None:
        """Take the preview of a move, its progress, and the list afterwards."""
        self._page.goto(f"{SITE}{SESSIONS}move-all/")
        fields = {"from_provider": provider, "provider": to_provider, "reason": f"{provider} is being switched off"}
        for name, value in fields.items():
            self._page.fill(f"[name={name}]", value)
        self._page.click("button:has-text('Preview')")
        self._page.wait_for_selector("button:has-text('Start')")
        self._keep("move-all-preview")
        self._page.click("button:has-text('Start')")
        self._page.wait_for_selector("text=sessions a second")
        self._keep("move-all-progress")
        self._page.wait_for_selector("text=Finished", timeout=60_000)
        self._open("move-all/", "move-all")

    def _open(self, path: str, name: str, *, full: bool = False) -> None:
        self._page.goto(f"{SITE}{SESSIONS}{path}")
        self._keep(name, full=full)

    def _keep(self, name: str, *, full: bool = False) -> None:
        self._page.screenshot(path=self._folder / f"{name}-{self._ending}", full_page=full)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images")
