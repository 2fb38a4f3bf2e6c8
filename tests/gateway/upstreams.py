"""Upstream HTTP servers: they name themselves, record requests, and misbehave on demand.

Threads of this process behind real sockets; only the standard library, so that the gateway's own HTTP library is not
tested against itself.
"""

from __future__ import annotations

import json
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.servers import serve

WAIT_SECONDS = 30.0
"""How long anything here waits before it gives up; only reached when a test fails."""


class Exchange(BaseHTTPRequestHandler):
    """One request and the answer to it."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    upstream: Upstream
    body: bytes

    def do_POST(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.received = time.monotonic()
        self.ended = threading.Event()
        self.left_early = False
        self.upstream.exchanges.append(self)
        behave = self.upstream.script.popleft() if self.upstream.script else answers
        try:
            behave(self)
        except OSError:
            self.left_early = self.close_connection = True
        finally:
            self.ended.set()

    do_GET = do_PUT = do_POST

    @property
    def json(self) -> Any:
        """What was sent."""
        return json.loads(self.body)

    @property
    def text(self) -> str:
        """What an answer says: who answers, as which model."""
        return f"{self.upstream.name} as {self.json['model']}"

    def send(self, status: int, body: bytes, *, content_type: str = "application/json", **headers: str) -> None:
        """Send a whole answer."""
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def begin(self, content_type: str = "text/event-stream") -> None:
        """Begin an answer in chunks."""
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def chunk(self, data: bytes) -> None:
        """Send a chunk; the empty one ends the answer."""
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def event(self, delta: dict[str, Any], finish: str | None = None) -> None:
        """Send a chunk of a chat completion."""
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        chunk = {**envelope(self, "chat.completion.chunk"), "choices": [choice]}
        self.chunk(b"data: " + json.dumps(chunk).encode() + b"\n\n")

    def end(self) -> None:
        """End a stream as OpenAI does."""
        self.event({}, "stop")
        self.chunk(b"data: [DONE]\n\n")
        self.chunk(b"")

    def cut(self) -> None:
        """Break the connection off."""
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def wait_until_left(self) -> None:
        """Wait until the client has closed the connection."""
        readable, _, _ = select.select([self.connection], [], [], WAIT_SECONDS)
        self.left_early = bool(readable)
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


Behaviour = Callable[[Exchange], None]


def envelope(exchange: Exchange, kind: str) -> dict[str, Any]:
    """Return the fields that a completion and its chunks have in common."""
    return {"id": "chatcmpl-1", "object": kind, "created": 1_700_000_000, "model": exchange.json["model"]}


def answers(exchange: Exchange) -> None:
    """Answer as OpenAI would."""
    if exchange.json.get("stream"):
        exchange.begin()
        for word in exchange.text.split(" "):
            exchange.event({"role": "assistant", "content": f"{word} "})
        exchange.end()
        return
    choice = {"index": 0, "message": {"role": "assistant", "content": exchange.text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    completion = {**envelope(exchange, "chat.completion"), "choices": [choice], "usage": usage}
    if exchange.path.endswith("/messages"):
        completion["content"] = [{"type": "text", "text": exchange.text}]
    exchange.send(200, json.dumps(completion).encode())


def fails(status: int, body: bytes | dict[str, Any] = b"", **headers: str) -> Behaviour:
    """Answer with an error."""
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    return lambda exchange: exchange.send(status, sent, **headers)


def says(head: bytes, body: bytes = b"") -> Behaviour:
    """Answer with these bytes."""

    def behave(exchange: Exchange) -> None:
        exchange.wfile.write(head + b"\r\n\r\n" + body)

    return behave


def stalls(exchange: Exchange) -> None:
    """Never answer."""
    exchange.wait_until_left()


def streams_and_stalls(exchange: Exchange) -> None:
    """Begin a stream and never end it."""
    exchange.begin()
    exchange.event({"role": "assistant", "content": "first"})
    exchange.wait_until_left()


def breaks_off(*parts: bytes, pause: float = 0.0) -> Behaviour:
    """Send some of a stream, with `pause` seconds after each part, then break the connection."""

    def behave(exchange: Exchange) -> None:
        exchange.begin()
        for part in parts:
            exchange.chunk(part)
            time.sleep(pause)
        exchange.cut()

    return behave


def stalls_after(*parts: bytes) -> Behaviour:
    """Send some of a stream, and never end it."""

    def behave(exchange: Exchange) -> None:
        exchange.begin()
        for part in parts:
            exchange.chunk(part)
        exchange.wait_until_left()

    return behave


class Held:
    """A stream whose second half comes when `release` is set."""

    def __init__(self) -> None:
        self.release = threading.Event()

    def __call__(self, exchange: Exchange) -> None:
        exchange.begin()
        exchange.event({"role": "assistant", "content": "first"})
        if self.release.wait(WAIT_SECONDS):
            exchange.event({"content": "second"})
            exchange.end()


class Upstream:
    """An upstream server as a context manager; `then` configures its next answers."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.exchanges: list[Exchange] = []
        self.script: deque[Behaviour] = deque()
        self._server = _Server(("127.0.0.1", 0), type("Bound", (Exchange,), {"upstream": self}))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        self._end = serve(self._server)

    def then(self, *behaviours: Behaviour) -> None:
        """Answer the next requests so, one each; after those as usual."""
        self.script.extend(behaviours)

    def clear(self) -> None:
        """Forget what was sent and what was to come."""
        self.exchanges.clear()
        self.script.clear()

    @property
    def sent(self) -> list[Any]:
        """The bodies it got."""
        return [exchange.json for exchange in self.exchanges]

    def wait_for_request(self) -> Exchange:
        """Return the first request when it is there."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not self.exchanges:
            assert time.monotonic() < deadline, f"{self.name} got no request"
            time.sleep(0.002)
        return self.exchanges[0]

    def __enter__(self) -> Upstream:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._end()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore connections that the client broke."""
