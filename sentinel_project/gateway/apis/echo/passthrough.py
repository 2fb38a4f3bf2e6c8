"""The echo's embeddings, and its completions without roles."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import struct
import time
import uuid
from collections.abc import AsyncGenerator
from typing import Any

import msgspec

from sentinel_project.gateway.apis import events
from sentinel_project.gateway.apis.echo import text

DIMENSIONS = 8


def completion(provider: str, request: dict[str, Any]) -> bytes:
    """Return a completion as OpenAI's API would."""
    answer = _answer(provider, request)
    read, written = text.count_words([{"content": _prompt(request)}]), len(answer.split())
    usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
    return msgspec.json.encode({**_envelope(request, answer, "stop"), "usage": usage})


async def stream(provider: str, request: dict[str, Any]) -> AsyncGenerator[bytes]:
    """Yield the same answer as server-sent events, a word each."""
    for word in text.words(_answer(provider, request)):
        yield events.encode(_envelope(request, word, None))
        await asyncio.sleep(0)
    yield events.encode(_envelope(request, "", "stop"))
    yield b"data: [DONE]\n\n"


def embeddings(request: dict[str, Any]) -> bytes:
    """Return a vector for each input, the same whenever the input is the same."""
    given = request["input"]
    inputs = given if isinstance(given, list) and not all(isinstance(each, int) for each in given) else [given]
    data = [{"object": "embedding", "index": at, "embedding": _vector(request, each)} for at, each in enumerate(inputs)]
    read = text.count_words([{"content": each} for each in inputs])
    usage = {"prompt_tokens": read, "total_tokens": read}
    return msgspec.json.encode({"object": "list", "data": data, "model": request["model"], "usage": usage})


def _vector(request: dict[str, Any], value: Any) -> list[float] | str:
    digest = hashlib.sha256(msgspec.json.encode(value)).digest()
    numbers = [byte / 255 for byte in digest[:DIMENSIONS]]
    if request.get("encoding_format") == "base64":
        return base64.b64encode(struct.pack(f"<{DIMENSIONS}f", *numbers)).decode()
    return numbers


def _envelope(request: dict[str, Any], answer: str, finish: str | None) -> dict[str, Any]:
    choice = {"index": 0, "text": answer, "logprobs": None, "finish_reason": finish}
    envelope = {"id": f"cmpl-{uuid.uuid4().hex}", "object": "text_completion", "created": int(time.time())}
    return {**envelope, "model": request["model"], "choices": [choice]}


def _answer(provider: str, request: dict[str, Any]) -> str:
    return text.reply(provider, request["model"], _prompt(request))


def _prompt(request: dict[str, Any]) -> str:
    """Return the prompt's text; lists are joined, and tokens count as empty text."""
    given = request["prompt"]
    return " ".join(each for each in (given if isinstance(given, list) else [given]) if isinstance(each, str))
