"""Make the documentation's screenshots of the admin: `python docs/screenshots.py [folder]`, docs/images by default.

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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
DEMO_DATA = str(ROOT / "docs" / "demo_data.py")
START_SECONDS = 60
SESSIONS = "/admin/sessions_sticky/session/"
Theme = Literal["light", "dark"]
THEMES: tuple[Theme, ...] = ("light", "dark")
WIDTH, HEIGHT = 1280, 800
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


def main(folder: Path) -> None:
    """Take all pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    with serving() as password, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        for theme in THEMES:
            page = log_in(browser, password, theme)
            page.screenshot(path=folder / f"list-{theme}.png")
            page.goto(f"{SITE}{SESSIONS}overview/")
            page.screenshot(path=folder / f"overview-{theme}.png", full_page=True)
        browser.close()


@contextmanager
def serving() -> Iterator[str]:
    """Serve demo data; yield the password of the admin."""
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
            yield env["DJANGO_SUPERUSER_PASSWORD"]
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


def log_in(browser: Browser, password: str, theme: Theme) -> Page:
    """Open the list of sessions in a window of its own."""
    page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme=theme, locale="en")
    page.goto(f"{SITE}/admin/login/?next={SESSIONS}")
    page.fill("[name=username]", "admin")
    page.fill("[name=password]", password)
    page.press("[name=password]", "Enter")
    page.wait_for_url(f"**{SESSIONS}")
    return page


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images")
