"""A page of another origin calls the API."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import pytest

from tests.gateway.live import LiveGateway

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.slow

CALL = """
async ([url, key]) => {
  const body = JSON.stringify({model: "echo-small", messages: [{role: "user", content: "hello"}]});
  const headers = {"Authorization": `Bearer ${key}`, "Content-Type": "application/json", "X-Stainless-Lang": "js"};
  try {
    const answer = await fetch(`${url}/v1/chat/completions`, {method: "POST", headers, body});
    return [answer.status, answer.headers.get("X-Session-Outcome"), (await answer.json()).object];
  } catch (error) { return String(error); }
}
"""


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html>")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def app() -> Iterator[str]:
    """The origin of a page that another server serves."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Page) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("is_allowed", [True, False])
def test_page_calls_the_api_only_when_its_origin_is_allowed(
    chromium: Browser, app: str, tmp_path: Path, valkey_url: str, is_allowed: bool
) -> None:
    origins = app if is_allowed else "http://other.example.com"
    with LiveGateway(tmp_path, REDIS_URL=valkey_url, SENTINEL_CORS_ORIGINS=origins) as gateway:
        context = chromium.new_context()
        page = context.new_page()
        page.goto(app)
        found = page.evaluate(CALL, [gateway.url, gateway.key])
        context.close()
    assert found == ([200, "ranked", "chat.completion"] if is_allowed else "TypeError: Failed to fetch")
