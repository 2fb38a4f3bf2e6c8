"""The limit on bodies, on every path, and no WebSockets; over the ASGI application as servers call it."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from tests.gateway.asgi import request_lines

LIMIT = 1024
PATHS = ["/v1/chat/completions", "/healthz", "/admin/login/", "/api/sessions/", "/nothing"]


class Client:
    """One request, sent in pieces as they are asked for."""

    def __init__(self, path: str, pieces: list[bytes], *headers: tuple[bytes, bytes]) -> None:
        sent = [(b"host", b"localhost"), *headers]
        self.scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "headers": sent}
        self.scope |= {"http_version": "1.1", "scheme": "http", "query_string": b"", "root_path": "", "client": None}
        self._pieces = list(pieces)
        self.taken = 0
        self.status = 0
        self.body = b""
        self.headers: dict[bytes, bytes] = {}

    async def receive(self) -> dict[str, Any]:
        if not self._pieces:
            await asyncio.Event().wait()  # the client stays
        self.taken += 1
        piece = self._pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(self._pieces)}

    async def send(self, message: dict[str, Any]) -> None:
        assert message["type"] != "http.response.start" or not self.status  # one answer
        self.status = message.get("status", self.status)
        self.headers.update((name.lower(), value) for name, value in message.get("headers", []))
        self.body += message.get("body", b"")

    async def call(self) -> Client:
        from sentinel_project.asgi import application

        await application(self.scope, self.receive, self.send)
        return self


def declared(length: int) -> tuple[bytes, bytes]:
    return b"content-length", b"%d" % length


@pytest.fixture(autouse=True)
def limit(settings: Any, db: None) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = LIMIT


@pytest.mark.parametrize("path", PATHS)
async def test_request_is_refused_unread_when_its_length_is_too_large(path: str) -> None:
    client = await Client(path, [b"x"], declared(LIMIT + 1)).call()
    assert (client.status, json.loads(client.body)["error"]["code"]) == (413, "request_too_large")
    assert client.taken == 0


@pytest.mark.parametrize("path", PATHS)
async def test_request_is_refused_as_soon_as_it_is_too_long_when_it_comes_in_pieces(path: str) -> None:
    client = await Client(path, 10 * [LIMIT // 2 * b"x"]).call()
    assert (client.status, json.loads(client.body)["error"]["code"]) == (413, "request_too_large")
    assert client.taken == 3


async def test_refusal_has_a_request_id_and_a_log_line_when_it_is_a_chats(caplog: pytest.LogCaptureFixture) -> None:
    requests = logging.getLogger("sentinel_project.requests")
    requests.addHandler(caplog.handler)  # it does not propagate
    try:
        for pieces, headers in (([b"x"], [declared(LIMIT + 1)]), (3 * [LIMIT * b"x"], [])):
            client = await Client(PATHS[0], pieces, (b"x-request-id", b"from-outside"), *headers).call()
            assert client.headers[b"x-request-id"] == b"from-outside"
    finally:
        requests.removeHandler(caplog.handler)
    assert [(line["request_id"], line["status"]) for line in request_lines(caplog)] == 2 * [("from-outside", 413)]


async def test_log_line_of_a_refusal_has_the_time_of_its_upload(caplog: pytest.LogCaptureFixture) -> None:
    class Slow(Client):
        async def receive(self) -> dict[str, Any]:
            await asyncio.sleep(0.02)
            return await super().receive()

    requests = logging.getLogger("sentinel_project.requests")
    requests.addHandler(caplog.handler)  # it does not propagate
    try:
        client = await Slow(PATHS[0], 3 * [LIMIT // 2 * b"x"]).call()
    finally:
        requests.removeHandler(caplog.handler)
    (line,) = request_lines(caplog)
    assert (line["status"], line["request_id"]) == (413, client.headers[b"x-request-id"].decode())
    assert line["latency_ms"] >= 50


async def test_request_is_let_through_when_it_is_at_the_limit() -> None:
    client = await Client("/v1/chat/completions", 2 * [LIMIT // 2 * b"x"], declared(LIMIT)).call()
    assert client.status == 401


async def test_web_socket_is_closed_when_one_is_opened() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    from sentinel_project.asgi import application

    await application({"type": "websocket", "path": "/v1/chat/completions"}, None, send)
    assert sent == [{"type": "websocket.close"}]
