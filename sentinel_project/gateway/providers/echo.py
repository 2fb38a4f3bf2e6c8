"""The provider inside the process: says who answered and repeats what it was told."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import AsyncGenerator
from typing import Any

import msgspec


def completion(provider: str, body: dict[str, Any]) -> bytes:
    """Return a chat completion as OpenAI's API would."""
    text = _answer(provider, body)
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    return msgspec.json.encode(_envelope(body, "chat.completion", [choice], usage=_usage(body, text)))


async def stream(provider: str, body: dict[str, Any]) -> AsyncGenerator[bytes]:
    """Yield the same answer as server-sent events, a word each."""
    text = _answer(provider, body)
    first = _envelope(body, "chat.completion.chunk", [])
    words = [{"role": "assistant", "content": ""}, *({"content": word} for word in re.findall(r"\s*\S+|\s+$", text))]
    for delta in words:
        yield _event({**first, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
        await asyncio.sleep(0)
    yield _event({**first, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    if isinstance(options := body.get("stream_options"), dict) and options.get("include_usage"):
        yield _event({**first, "usage": _usage(body, text)})
    yield b"data: [DONE]\n\n"


def _event(chunk: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(chunk) + b"\n\n"


def _envelope(body: dict[str, Any], kind: str, choices: list[Any], **more: Any) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": body["model"],
        "choices": choices,
        **more,
    }


def _answer(provider: str, body: dict[str, Any]) -> str:
    said = body["messages"][-1].get("content")
    if isinstance(said, list):  # parts: text, images
        said = " ".join(str(part.get("text", "")) for part in said if isinstance(part, dict))
    return f"{provider} ({body['model']}) heard: {said or ''}"


def _usage(body: dict[str, Any], text: str) -> dict[str, int]:
    """Count words; the echo has no tokens."""
    prompt = sum(len(str(message.get("content") or "").split()) for message in body["messages"])
    answer = len(text.split())
    return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}
