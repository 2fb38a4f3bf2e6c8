"""Upstreams in a process of their own: quick, good for a thousand streams, and killed at will.

As a program: `python -m tests.gateway.upstream_process NAME:PORT...`, one upstream on each port.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import urllib.request
from typing import Any

from aiohttp import web

from tests.programs import ROOT, Program
from tests.servers import free_port
from tests.waiting import SECONDS


class UpstreamProcess:
    """A process with an upstream for each name; a context manager that kills it in the end."""

    def __init__(self, *names: str) -> None:
        self._ports = {name: free_port() for name in names}
        self.urls = {name: f"http://127.0.0.1:{port}/v1" for name, port in self._ports.items()}
        self._process: Program | None = None
        self.start()

    def start(self) -> None:
        """Start, and wait until it answers. It is healthy and its counts are 0."""
        addresses = [f"{name}:{port}" for name, port in self._ports.items()]
        self._process = Program("-m", "tests.gateway.upstream_process", *addresses, env=os.environ, cwd=ROOT)
        deadline = time.monotonic() + SECONDS
        for name in self._ports:
            while True:
                try:
                    self.stats(name)
                    break
                except OSError:
                    assert self._process.poll() is None
                    assert time.monotonic() < deadline
                    time.sleep(0.02)

    def kill(self) -> None:
        """End it as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def behave(self, name: str, **how: Any) -> None:
        """Answer so from now on: `status`, `headers`, `delay` in seconds before the answer; nothing: as usual."""
        self._call(name, "behave", json.dumps(how).encode())

    def stats(self, name: str) -> dict[str, int]:
        """Return `requests` so far, and how many are `active`."""
        return dict(self._call(name, "stats"))

    def _call(self, name: str, path: str, data: bytes | None = None) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._ports[name]}/{path}", data, SECONDS) as answer:
            return json.load(answer)

    def __enter__(self) -> UpstreamProcess:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()


class Upstream:
    """One upstream. A request's field `test` overrides how it behaves; `refuse` lists those that lack the model."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.how: dict[str, Any] = {}
        self.requests = self.active = self.most_active = 0

    def application(self) -> web.Application:
        """Return its pages."""
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self.chat)
        app.router.add_get("/v1/models", self.models)
        app.router.add_post("/behave", self.behave)
        app.router.add_get("/stats", self.stats)
        return app

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """Answer a chat."""
        body = await request.json()
        how = {**self.how, **body.get("test", {})}
        self.requests += 1
        self.active += 1
        self.most_active = max(self.most_active, self.active)
        try:
            await asyncio.sleep(how.get("delay", 0))
            lacks_model = self.name in how.get("refuse", ())
            status = 404 if lacks_model else how.get("status", 200)
            if status != 200:
                code = "model_not_found" if lacks_model else how.get("code")
                error = {"message": how.get("message", "as configured"), "code": code}
                return web.json_response({"error": error}, status=status, headers=how.get("headers"))
            if body.get("stream"):
                return await self.stream(request, body, how)
            return web.json_response({**_envelope(body), "choices": [{"index": 0, "message": _said(self.name)}]})
        finally:
            self.active -= 1

    async def stream(self, request: web.Request, body: dict[str, Any], how: dict[str, Any]) -> web.StreamResponse:
        """Send `chunks` (3) with a `pause` (0) in seconds before each but the first; stall before `stall_at`.

        With `at_once` chunks go out, and are not counted, until so many requests have been active at once.
        """
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        number = counted = 0
        while counted < how.get("chunks", 3):
            if number == how.get("stall_at"):
                await asyncio.sleep(60)
            if number:
                await asyncio.sleep(how.get("pause", 0))
            event = {**_envelope(body), "choices": [{"index": 0, "delta": _said(f"{self.name} {number} ")}]}
            await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")
            number += 1
            counted += self.most_active >= how.get("at_once", 0)
        await response.write(b"data: [DONE]\n\n")
        return response

    async def models(self, request: web.Request) -> web.Response:
        """Answer a probe, as it answers chats."""
        return web.json_response({"data": []}, status=self.how.get("status", 200))

    async def behave(self, request: web.Request) -> web.Response:
        """Take instructions."""
        self.how = await request.json()
        return web.json_response({})

    async def stats(self, request: web.Request) -> web.Response:
        """Tell the counts."""
        return web.json_response({"requests": self.requests, "active": self.active})


def _envelope(body: dict[str, Any]) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": "chat.completion", "created": 1_700_000_000, "model": body["model"]}


def _said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


async def _serve(*addresses: str) -> None:
    for address in addresses:
        name, port = address.split(":")
        runner = web.AppRunner(Upstream(name).application(), access_log=None, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", int(port), backlog=2048).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(*sys.argv[1:]))
