"""A server with a small application, and raw connections to it."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvicorn

from sentinel_project import http_protocol, http_timers
from sentinel_project.http_protocol import LimitedProtocol
from tests.waiting import wait_until

SECONDS = 0.3
LIMIT = 5
"""Maximum number of connections."""
BIG = 32 * 2**20

Connect = Callable[[], socket.socket]


class App:
    """Answers with the length of the body, in ways that the path selects."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, bytes]] = []
        self.ended = threading.Event()
        self.release = threading.Event()

    @property
    def served(self) -> int:
        """How many requests came whole."""
        return len(self.requests)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"]
        if path == "/unread":
            await answer(send, b"unread")
            return
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.ended.set()
                return
            body, more = body + message["body"], message["more_body"]
        self.requests.append((scope["method"], path, body))
        if path == "/wait" and not await self._wait(receive):
            return
        if path == "/slow":
            await asyncio.sleep(0.001)
        if path == "/quiet":
            await asyncio.sleep(0.05)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"one", "more_body": True})
            if not await self._wait(receive):
                return
        if path in ("/stream", "/broken"):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for piece in (b"one", b"two"):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        if path in ("/broken", "/failing"):
            raise RuntimeError(path)
        if path in ("/stream", "/quiet"):
            await send({"type": "http.response.body", "body": b""})
        elif path == "/injected":
            await answer(send, b"", (b"x-evil", b"a\r\nx-more: b"))
        else:
            await answer(send, BIG * b"x" if path == "/big" else str(len(body)).encode())
        self.ended.set()

    async def _wait(self, receive: Any) -> bool:
        """Return whether the client is still there when the test releases the answer."""
        left = asyncio.create_task(receive())
        released = asyncio.create_task(asyncio.to_thread(self.release.wait, 10))
        await asyncio.wait({left, released}, return_when=asyncio.FIRST_COMPLETED)
        if left.done():
            self.ended.set()
        left.cancel()
        return self.release.is_set()


async def answer(send: Any, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    """Send a whole response."""
    headers = ((b"content-length", b"%d" % len(body)), *headers)
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> App:
    """The application, with short time limits of the server."""
    monkeypatch.setattr(http_protocol, "HEAD_SECONDS", SECONDS)
    monkeypatch.setattr(http_timers, "STUCK_SECONDS", SECONDS)
    return App()


class SharedServer:
    """One server for all tests of this folder: to start and stop one takes longer than most of them."""

    def __init__(self) -> None:
        self.app = App()
        options = {"interface": "asgi3", "lifespan": "off", "log_level": "critical"}
        config = uvicorn.Config(self._serve, http=LimitedProtocol, **options)
        self._server = uvicorn.Server(config)
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)  # connections inherit it
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()
        self._thread = threading.Thread(target=self._server.run, args=[[self._listener]], daemon=True)
        self._thread.start()

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)

    def connect(self) -> socket.socket:
        """Return a new connection."""
        return socket.create_connection(self._listener.getsockname(), 10)

    def wait_until_idle(self) -> None:
        """Wait until the server has neither connections nor requests; the next test counts its own only."""
        state = self._server.server_state
        wait_until(lambda: not state.connections and not state.tasks)

    def stop(self) -> None:
        """Stop the server."""
        self._server.should_exit = True
        self._thread.join(10)
        self._listener.close()


@pytest.fixture(scope="package")
def _server() -> Iterator[SharedServer]:
    server = SharedServer()
    yield server
    server.stop()


@pytest.fixture
def connect(_server: SharedServer, app: App, settings: Any) -> Iterator[Connect]:
    """Open connections to the server; they are closed in the end."""
    settings.SENTINEL_MAX_CONNECTIONS, settings.SENTINEL_REQUEST_SECONDS = LIMIT, 2 * SECONDS
    _server.app = app
    opened: list[socket.socket] = []

    def open_one() -> socket.socket:
        opened.append(_server.connect())
        return opened[-1]

    yield open_one
    app.release.set()
    for each in opened:
        each.close()
    _server.wait_until_idle()


def read(client: socket.socket, seconds: float = 4 * SECONDS) -> bytes:
    """Everything until the server closes the connection; fail if it does not in time."""
    client.settimeout(seconds)
    got = bytearray()  # `bytes` would be copied whole for each piece of a large answer
    try:
        while piece := client.recv(2**16):
            got += piece
    except ConnectionResetError:
        pass
    return bytes(got)


def statuses(answers: bytes) -> list[int]:
    """The statuses of all responses but the interim ones."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answers) if status != b"100"]


def refused(answer: bytes) -> tuple[int, str]:
    """The status and the code of an error in the shape that the OpenAI SDKs read."""
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]["code"]
