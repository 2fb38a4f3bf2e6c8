"""A provider with a prompt cache of its own: `python -m bench.cached_upstream NAME PORT CACHE_SECONDS`.

Like OpenAI's the cache holds blocks of 128 tokens, reads at least 1,024 tokens, and forgets what was not used for
`CACHE_SECONDS`. The provider counts for itself: `GET /totals`. `POST /refusals` with `{"every": 3}` saturates it: each
third request is answered with 429 and `Retry-After`, whatever the load of the gateway is.
"""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
import sys
import time
import urllib.request
from typing import Any

import msgspec
from aiohttp import web

BLOCK_TOKENS, LEAST_TOKENS, BYTES_PER_TOKEN = 128, 1_024, 4
ANSWER_SECONDS, TOKENS_PER_SECOND = 0.1, 100_000
"""The time of an answer, and how fast the provider computes what is not in the cache."""
RETRY_AFTER_SECONDS = 1


class PromptCache:
    """The blocks of prompts that a provider has computed, each by the hash of the prompt up to its end."""

    def __init__(self, seconds: float = float("inf")) -> None:
        self._seconds = seconds
        self._expires_at: dict[bytes, float] = {}

    def read(self, model: str, messages: list[dict[str, Any]]) -> tuple[int, int]:
        """Return how many tokens a prompt has and how many of them are cached; then cache all of it."""
        prompt = msgspec.json.encode([[each["role"], _text(each["content"])] for each in messages])[:-1]
        size, now = BLOCK_TOKENS * BYTES_PER_TOKEN, time.monotonic()
        rolling, cached, is_cached = hashlib.sha256(model.encode()), 0, True
        for start in range(0, len(prompt) - size + 1, size):
            rolling.update(prompt[start : start + size])
            prefix = rolling.digest()
            is_cached = is_cached and self._expires_at.get(prefix, 0) > now
            cached += is_cached * BLOCK_TOKENS
            self._expires_at[prefix] = now + self._seconds
        return -(-len(prompt) // BYTES_PER_TOKEN), cached if cached >= LEAST_TOKENS else 0


def _text(content: str | list[dict[str, Any]]) -> str:
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


class Provider:
    """The server: its cache, its limit, and what it has counted."""

    def __init__(self, name: str, cache: PromptCache) -> None:
        self.name, self._cache = name, cache
        self._refuses_every, self._asked = 0, 0
        self._totals = {"requests": 0, "refused": 0, "tokens": 0, "cached": 0}

    async def chat(self, request: web.Request) -> web.Response:
        """Answer with the provider's name as the text, or refuse."""
        body = msgspec.json.decode(await request.read())
        self._asked += 1
        if self._refuses_every and self._asked % self._refuses_every == 0:
            self._totals["refused"] += 1
            error = {"message": "Rate limit reached", "type": "requests", "code": "rate_limit_exceeded"}
            return web.json_response({"error": error}, status=429, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})
        tokens, cached = self._cache.read(body["model"], body["messages"])
        await asyncio.sleep(ANSWER_SECONDS + (tokens - cached) / TOKENS_PER_SECOND)
        self._totals["requests"] += 1
        self._totals["tokens"] += tokens
        self._totals["cached"] += cached
        usage = {
            "prompt_tokens": tokens,
            "completion_tokens": 1,
            "total_tokens": tokens + 1,
            "prompt_tokens_details": {"cached_tokens": cached},
        }
        choice = {"index": 0, "message": {"role": "assistant", "content": self.name}, "finish_reason": "stop"}
        answer = {"id": "chatcmpl-1", "object": "chat.completion", "created": int(time.time()), "model": body["model"]}
        return web.json_response({**answer, "choices": [choice], "usage": usage})

    async def refusals(self, request: web.Request) -> web.Response:
        """Set which requests are refused; 0 for none."""
        self._refuses_every = (await request.json())["every"]
        return web.json_response({})

    async def totals(self, _: web.Request) -> web.Response:
        """Return what was answered and refused so far."""
        return web.json_response(self._totals)

    async def models(self, _: web.Request) -> web.Response:
        """Answer a probe."""
        return web.json_response({"object": "list", "data": []})

    def application(self) -> web.Application:
        """Return the server."""
        application = web.Application(client_max_size=2**30)
        application.add_routes(
            [
                web.post("/v1/chat/completions", self.chat),
                web.get("/v1/models", self.models),
                web.post("/refusals", self.refusals),
                web.get("/totals", self.totals),
            ]
        )
        return application


class Upstream:
    """A provider in a process of its own; a context manager. `kill` and `start` lose its cache."""

    def __init__(self, name: str, port: int, cache_seconds: float) -> None:
        self.name, self.port, self._cache_seconds = name, port, cache_seconds
        self.root = f"http://127.0.0.1:{port}"
        self.url = f"{self.root}/v1"
        self.start()

    def start(self) -> None:
        """Start with an empty cache."""
        command = [sys.executable, "-m", "bench.cached_upstream", self.name, str(self.port), str(self._cache_seconds)]
        self._process = subprocess.Popen(command)
        deadline = time.monotonic() + 30
        while True:
            try:
                self._get("/v1/models")
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def kill(self) -> None:
        """End it as a crash would."""
        self._process.kill()
        self._process.wait()

    def refuse(self, every: int) -> None:
        """Saturate it, so that it refuses each so many-th request; 0 ends that."""
        body = msgspec.json.encode({"every": every})
        urllib.request.urlopen(f"{self.root}/refusals", data=body, timeout=5).close()

    def totals(self) -> dict[str, int]:
        """Return what it has counted since it started."""
        return msgspec.json.decode(self._get("/totals"), type=dict[str, int])

    def _get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"{self.root}{path}", timeout=5) as answer:
            return bytes(answer.read())

    def __enter__(self) -> Upstream:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()


if __name__ == "__main__":
    name, port, seconds = sys.argv[1:]
    provider = Provider(name, PromptCache(float(seconds)))
    web.run_app(provider.application(), host="127.0.0.1", port=int(port), print=None, access_log=None)
