"""The gateway's ASGI application in this process, driven message by message."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from sentinel_project.gateway.handler import GatewayHandler

if TYPE_CHECKING:
    import pytest

KEY, OTHER_KEY = "sk-sentinel-of-ann", "sk-sentinel-of-ben"
OWNERS = {KEY: "ann", OTHER_KEY: "ben"}

MESSAGES = [{"role": "user", "content": "hello"}]
CHAT = "/v1/chat/completions"


@cache
def handler() -> GatewayHandler:
    """The application."""
    return GatewayHandler()


def chat(model: str = "model-a", **fields: Any) -> dict[str, Any]:
    """Return a chat completion request."""
    return {"model": model, "messages": MESSAGES, **fields}


class Call:
    """One request; `answer` runs it to its end, or `start` it and follow what it sends."""

    def __init__(
        self,
        body: Any = None,
        *,
        path: str = CHAT,
        method: str = "POST",
        headers: Iterable[tuple[str, str | bytes]] = (),
        key: str | None = KEY,
        pieces: Sequence[bytes] | None = None,
        query: str = "",
    ) -> None:
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        pieces = [content] if pieces is None else pieces
        sent = [("Host", "localhost"), ("Content-Type", "application/json"), *headers]
        if key is not None:
            sent.append(("Authorization", f"Bearer {key}"))
        self._scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(errors="surrogatepass"),
            "root_path": "",
            "query_string": query.encode(errors="surrogatepass"),
            "headers": [(name.lower().encode(), _bytes(value)) for name, value in sent],
            "client": ("127.0.0.1", 1),
            "server": ("localhost", 80),
        }
        self._incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        for at, piece in enumerate(pieces, 1):
            self._incoming.put_nowait({"type": "http.request", "body": piece, "more_body": at < len(pieces)})
        self.outgoing: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""

    async def answer(self) -> Call:
        """Serve the request to its end."""
        await self.start()
        while not self.outgoing.empty():
            self._take(self.outgoing.get_nowait())
        return self

    def start(self) -> asyncio.Task[None]:
        """Serve the request in a task."""
        return asyncio.create_task(handler()(self._scope, self._incoming.get, self.outgoing.put))

    async def next(self) -> bytes:
        """Wait for the next part of the body and return it."""
        while True:
            message = await asyncio.wait_for(self.outgoing.get(), 5)
            self._take(message)
            if message["type"] == "http.response.body":
                return bytes(message.get("body", b""))

    def leave(self) -> None:
        """Close the connection."""
        self._incoming.put_nowait({"type": "http.disconnect"})

    @property
    def unread(self) -> int:
        """How many messages the application has not taken."""
        return self._incoming.qsize()

    def _take(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode().lower(): value.decode() for name, value in message["headers"]}
        else:
            self.body += message.get("body", b"")

    @property
    def json(self) -> Any:
        """The body's JSON."""
        return json.loads(self.body)

    @property
    def said(self) -> str:
        """What a completion says."""
        return str(self.json["choices"][0]["message"]["content"])

    @property
    def error(self) -> dict[str, Any]:
        """The error, in the shape of OpenAI's API and in no other."""
        assert self.headers["content-type"] == "application/json"
        assert self.json["error"].keys() >= {"message"}
        assert isinstance(self.json["error"]["message"], str)
        return dict(self.json["error"])


async def ask(body: Any = None, **how: Any) -> Call:
    """Return the answered request."""
    return await Call(body, **how).answer()


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()


async def say(conversation_id: str, **fields: Any) -> Call:
    """Ask a chat of a named conversation."""
    return await ask(chat(conversation_id=conversation_id, **fields))


def outcome_of(call: Call) -> tuple[int, str, str]:
    """Return the status, the outcome and the provider of a chat."""
    return call.status, call.headers["x-session-outcome"], call.headers["x-session-provider"]


def request_lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """Return the lines of requests in the captured log."""
    return [json.loads(each.message) for each in caplog.records if each.name == "sentinel_project.requests"]
