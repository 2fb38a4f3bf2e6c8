"""The echo's Messages."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import msgspec

from sentinel_project.gateway.apis import events
from sentinel_project.gateway.apis.echo import text


def message(provider: str, request: dict[str, Any]) -> bytes:
    """Return a message as Anthropic's API would."""
    answer = _answer(provider, request)
    content = [{"type": "text", "text": answer}]
    usage = _usage(request, len(answer.split()))
    return msgspec.json.encode(_envelope(request, content=content, stop_reason="end_turn", usage=usage))


async def stream(provider: str, request: dict[str, Any]) -> AsyncGenerator[bytes]:
    """Yield the same answer as server-sent events, a word each."""
    for event in _events(provider, request):
        yield events.encode(event, event["type"])
        await asyncio.sleep(0)


def token_count(request: dict[str, Any]) -> bytes:
    """Return how many tokens a request has."""
    return msgspec.json.encode({"input_tokens": _input_words(request)})


def _events(provider: str, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    answer = _answer(provider, request)
    begun = _envelope(request, content=[], stop_reason=None, usage=_usage(request, 1))
    yield {"type": "message_start", "message": begun}
    yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    yield {"type": "ping"}
    for word in text.words(answer):
        yield {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}}
    yield {"type": "content_block_stop", "index": 0}
    end = {"stop_reason": "end_turn", "stop_sequence": None}
    yield {"type": "message_delta", "delta": end, "usage": {"output_tokens": len(answer.split())}}
    yield {"type": "message_stop"}


def _envelope(request: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "id": f"msg_{uuid.uuid4().hex}",
        "type": "message",
        "role": "assistant",
        "model": request["model"],
        "stop_sequence": None,
        **fields,
    }


def _answer(provider: str, request: dict[str, Any]) -> str:
    """Repeat only the user's last text: Claude Code puts reminders before it, and a system message behind it."""
    by_user = [each for each in request["messages"] if isinstance(each, dict) and each.get("role") == "user"]
    heard = [part for content in text.contents(by_user)[-1:] for part in text.texts(content)]
    return text.reply(provider, request["model"], heard[-1] if heard else "")


def _usage(request: dict[str, Any], output: int) -> dict[str, int]:
    unread = {"cache_read_input_tokens": 0, "cache_creation_input_tokens": 0}
    return {"input_tokens": _input_words(request), **unread, "output_tokens": output}


def _input_words(request: dict[str, Any]) -> int:
    system = [{"content": request.get("system")}]
    return text.count_words(system + request["messages"])
