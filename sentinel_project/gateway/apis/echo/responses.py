"""Responses of the echo, which stores none (`"store": false`)."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import msgspec

from sentinel_project.gateway.apis import events
from sentinel_project.gateway.apis.echo import text

_ECHOED = (
    "instructions",
    "max_output_tokens",
    "parallel_tool_calls",
    "reasoning",
    "temperature",
    "tool_choice",
    "top_p",
)


def response(provider: str, request: dict[str, Any]) -> bytes:
    """Return a response as OpenAI's API would."""
    return msgspec.json.encode(_response(provider, request))


async def stream(provider: str, request: dict[str, Any]) -> AsyncGenerator[bytes]:
    """Yield the events of the same response, a word each."""
    for number, event in enumerate(_events(_response(provider, request))):
        yield events.encode({**event, "sequence_number": number}, event["type"])
        await asyncio.sleep(0)


def input_tokens(request: dict[str, Any]) -> bytes:
    """Return the count of a request's input."""
    return msgspec.json.encode({"object": "response.input_tokens", "input_tokens": text.count_words(_items(request))})


def _events(whole: dict[str, Any]) -> Iterator[dict[str, Any]]:
    (item,) = whole["output"]
    (part,) = item["content"]
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    yield {
        "type": "response.output_item.added",
        "output_index": 0,
        "item": {**item, "status": "in_progress", "content": []},
    }
    at = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    yield {"type": "response.content_part.added", **at, "part": {**part, "text": ""}}
    for word in text.words(part["text"]):
        yield {"type": "response.output_text.delta", **at, "delta": word, "logprobs": []}
    yield {"type": "response.output_text.done", **at, "text": part["text"], "logprobs": []}
    yield {"type": "response.content_part.done", **at, "part": part}
    yield {"type": "response.output_item.done", "output_index": 0, "item": item}
    yield {"type": "response.completed", "response": whole}


def _response(provider: str, request: dict[str, Any]) -> dict[str, Any]:
    items = _items(request)
    heard = " ".join(text.texts(text.contents(items)[-1])) if items else ""
    answer = text.reply(provider, request.get("model"), heard)
    part = {"type": "output_text", "text": answer, "annotations": [], "logprobs": []}
    message = {"type": "message", "status": "completed", "role": "assistant", "content": [part]}
    read, written = text.count_words(items), len(answer.split())
    return {
        "id": f"resp_{uuid.uuid4().hex}",
        "object": "response",
        "created_at": int(time.time()),
        "status": "completed",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "metadata": {},
        "model": request.get("model"),
        "output": [{"id": f"msg_{uuid.uuid4().hex}", **message}],
        "previous_response_id": None,
        "store": False,
        "text": {"format": {"type": "text"}},
        "tools": [],
        "truncation": "disabled",
        "usage": {
            "input_tokens": read,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": written,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": read + written,
        },
        "user": None,
        **{"parallel_tool_calls": True, "tool_choice": "auto"},
        **{name: request[name] for name in _ECHOED if request.get(name) is not None},
    }


def _items(request: dict[str, Any]) -> list[Any]:
    given = request.get("input")
    return given if isinstance(given, list) else [{"role": "user", "content": given}]
