"""The echo's chat completions."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator
from typing import Any

import msgspec

from sentinel_project.gateway.apis import events
from sentinel_project.gateway.apis.echo import text


def completion(provider: str, request: dict[str, Any]) -> bytes:
    """Return a chat completion as OpenAI's API would."""
    answer = _answer(provider, request)
    message = {"role": "assistant", "content": answer}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    return msgspec.json.encode(_envelope(request, "chat.completion", [choice], usage=_usage(request, answer)))


async def stream(provider: str, request: dict[str, Any]) -> AsyncGenerator[bytes]:
    """Yield the same answer as server-sent events, a word each."""
    answer = _answer(provider, request)
    first = _envelope(request, "chat.completion.chunk", [])
    deltas = [{"role": "assistant", "content": ""}, *({"content": word} for word in text.words(answer))]
    for delta in deltas:
        yield events.encode({**first, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
        await asyncio.sleep(0)
    yield events.encode({**first, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    if isinstance(options := request.get("stream_options"), dict) and options.get("include_usage"):
        yield events.encode({**first, "usage": _usage(request, answer)})
    yield b"data: [DONE]\n\n"


def _envelope(request: dict[str, Any], kind: str, choices: list[Any], **more: Any) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": request["model"],
        "choices": choices,
        **more,
    }


def _answer(provider: str, request: dict[str, Any]) -> str:
    content = text.contents(request["messages"])[-1]
    return text.reply(provider, request["model"], " ".join(text.texts(content)))


def _usage(request: dict[str, Any], answer: str) -> dict[str, int]:
    prompt, completion_tokens = text.count_words(request["messages"]), len(answer.split())
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt + completion_tokens,
    }
