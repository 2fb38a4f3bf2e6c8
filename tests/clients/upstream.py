"""Upstreams that look like OpenAI's and Anthropic's APIs to real clients, and that record every request byte for byte.

As a program: `python -m tests.clients.upstream NAME...` serves one of each name until it is interrupted.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from tests.clients.account import Account, new_id
from tests.clients.chat_api import ChatApi
from tests.clients.http_api import CUT_AFTER, ApiError
from tests.clients.messages_api import MessagesApi
from tests.clients.responses_api import ResponsesApi
from tests.servers import free_port

MODELS = ("gpt-5.2", "gpt-5-mini", "claude-opus-4-6", "claude-haiku-4-5")
TURNS = ("/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses")
OPENAI_HEADERS = {
    "openai-organization": "org-of-the-operator",
    "openai-processing-ms": "12",
    "openai-version": "2020-10-01",
    "x-ratelimit-limit-requests": "5000",
    "x-ratelimit-remaining-requests": "4999",
}
ANTHROPIC_HEADERS = {
    "anthropic-organization-id": "organization-of-the-operator",
    "anthropic-ratelimit-requests-limit": "4000",
    "anthropic-ratelimit-requests-remaining": "3999",
}


@dataclass(frozen=True)
class Recorded:
    """One request, as it came."""

    method: str
    path: str
    query: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def json(self) -> Any:
        """The body's value."""
        return json.loads(self.body)

    @property
    def is_turn(self) -> bool:
        """Whether it asks for an answer of a model."""
        return self.method == "POST" and self.path in TURNS

    def header(self, name: str) -> str | None:
        """Return the value of a header, None without it."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


class Upstream:
    """A server in a thread of its own; a context manager.

    Takes one API key, in whichever header the API uses. What it stores outlives `kill` and `start`.
    """

    def __init__(self, name: str, *, models: tuple[str, ...] = MODELS) -> None:
        self.name = name
        self.api_key = f"key-of-{name}"
        self.account = Account(name, models)
        self.requests: list[Recorded] = []
        self.script: deque[ApiError | int] = deque()
        self._failing: dict[str, ApiError] = {}
        self.port = free_port()
        self.root = f"http://127.0.0.1:{self.port}"
        self.url = f"{self.root}/v1"
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self.start()

    def start(self) -> None:
        """Serve, at the same address as before."""
        started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(started)), daemon=True)
        self._thread.start()
        assert started.wait(10), f"{self.name} does not start"

    def kill(self) -> None:
        """Break off all connections and refuse new ones."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
            assert self._thread is not None
            self._thread.join(10)
            self._loop = None

    def restore(self) -> None:
        """Serve again, and forget what was sent and what was to come."""
        self.requests.clear()
        self.script.clear()
        self._failing.clear()
        if self._loop is None:
            self.start()

    def turns(self) -> list[Recorded]:
        """Return the requests so far that asked for an answer."""
        return [request for request in self.requests if request.is_turn]

    def used(self) -> list[Recorded]:
        """Return the requests so far but those for the models, which are also the gateway's probes."""
        return [request for request in self.requests if request.path != "/v1/models"]

    def fail_turns(self, *failures: ApiError | int) -> None:
        """Fail the next turns, one each: with an error, or with a stream that breaks off after some events."""
        self.script.extend(failures)

    def fail_path(self, path: str, failure: ApiError) -> None:
        """Fail the next request to a path."""
        self._failing[path] = failure

    async def _serve(self, started: threading.Event) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application(middlewares=[self._answer], client_max_size=2**30)
        for api in (ChatApi(self.account), MessagesApi(self.account), ResponsesApi(self.account)):
            app.add_routes(api.routes())
        app.on_response_prepare.append(self._add_headers)
        app.add_routes([web.get("/v1/models", self._models), web.get("/v1/models/{id}", self._models)])
        # Bodies are recorded as they come, compressed ones too.
        runner = web.AppRunner(app, access_log=None, auto_decompress=False, shutdown_timeout=0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port).start()
        started.set()
        await self._stop.wait()
        await runner.cleanup()

    @web.middleware
    async def _answer(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Record the request, check its key, and render errors in the shape of its API."""
        headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in request.raw_headers)
        path, _, query = request.raw_path.partition("?")
        recorded = Recorded(request.method, path, query, headers, await request.read())
        self.requests.append(recorded)
        try:
            self._check_key(request)
            if (failing := self._failing.pop(path, None)) is not None:
                raise failing
            if recorded.is_turn and self.script:
                scripted = self.script.popleft()
                if isinstance(scripted, ApiError):
                    raise scripted
                request[CUT_AFTER] = scripted
            return await handler(request)
        except ApiError as error:
            return error.response(anthropic=_is_anthropic(request))
        except web.HTTPException as error:
            return ApiError(error.status, f"Invalid URL ({request.method} {path})").response(
                anthropic=_is_anthropic(request)
            )

    async def _add_headers(self, request: web.Request, response: web.StreamResponse) -> None:
        if _is_anthropic(request):
            response.headers.update({"request-id": new_id("req"), **ANTHROPIC_HEADERS})
            return
        response.headers.update({"x-request-id": new_id("req"), **OPENAI_HEADERS})
        if request.method == "POST" and request.path == "/v1/responses":
            response.headers["x-codex-turn-state"] = self.account.seal()

    def _check_key(self, request: web.Request) -> None:
        key = request.headers.get("x-api-key") or request.headers.get("authorization", "").removeprefix("Bearer ")
        if key != self.api_key:
            raise ApiError(401, f"Incorrect API key provided: {key}.", code="invalid_api_key")

    async def _models(self, request: web.Request) -> web.Response:
        """List the models, or return one, in the shape of the API that the client speaks."""
        if _is_anthropic(request):
            names = [name for name in self.account.models if name.startswith("claude")]
            models = [
                {"type": "model", "id": name, "display_name": name, "created_at": "2026-01-01T00:00:00Z"}
                for name in names
            ]
            page = {"data": models, "has_more": False, "first_id": names[0], "last_id": names[-1]}
        else:
            models = [
                {"id": name, "object": "model", "created": 1_760_000_000, "owned_by": self.name}
                for name in self.account.models
            ]
            page = {"object": "list", "data": models}
        wanted = request.match_info.get("id")
        if wanted is None:
            return web.json_response(page)
        for model in models:
            if model["id"] == wanted:
                return web.json_response(model)
        raise ApiError(404, f"The model '{wanted}' does not exist", code="model_not_found", param="model")

    def __enter__(self) -> Upstream:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()


def _is_anthropic(request: web.Request) -> bool:
    return request.path.startswith("/v1/messages") or "anthropic-version" in request.headers


if __name__ == "__main__":
    upstreams = [Upstream(name) for name in sys.argv[1:]]
    for upstream in upstreams:
        sys.stdout.write(f"{upstream.name} {upstream.url} {upstream.api_key}\n")
        sys.stdout.flush()
    threading.Event().wait()
