"""The providers inside the process, which repeat what they hear: they need no key and no network, and store nothing.

Each API's answer is made whole; a stream is the same answer as events, a word each. Tokens are words. Content of an
unknown kind is read as empty text.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import struct
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

import msgspec

from sentinel_project.gateway.apis import events
from sentinel_project.gateway.apis.base import ApiRequest
from sentinel_project.gateway.apis.body import Body, not_json
from sentinel_project.gateway.errors import ApiError

Fields = dict[str, Any]

DIMENSIONS = 8
"""Of embeddings."""
_WORD = re.compile(r"\s*\S+|\s+$")
_REPEATED = {"max_output_tokens", "parallel_tool_calls", "reasoning", "temperature", "tool_choice", "top_p"}
"""Fields of a request that its response has too."""


def answer(provider: str, request: ApiRequest, body: Body) -> bytes | AsyncGenerator[bytes]:
    """Return the answer to a request with `body`: a stream if it asks for one. Raises `ApiError`."""
    if request.path == "/responses/compact":
        raise ApiError(400, f"Provider {provider!r} does not support compaction", code="unsupported")
    if request.path not in ANSWERS:
        raise ApiError(404, "Echo providers store no responses and no conversations")
    if request.path == "/responses":
        for reference in request.api.references(body):
            raise reference.not_found
    make, split = ANSWERS[request.path]
    raw = body.encode()
    try:
        fields = msgspec.json.decode(raw, type=Fields)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as exc:
        raise not_json(raw, exc) from exc
    whole = make(f"{provider} ({fields.get('model')}) heard: ", fields)
    if request.is_stream and split is not None:
        return _stream(split(whole, fields), ends_with_marker=request.api.end_marker == b"[DONE]")
    return msgspec.json.encode(whole)


async def _stream(parts: Iterator[Fields], *, ends_with_marker: bool) -> AsyncGenerator[bytes]:
    for event in parts:
        yield events.encode(event, event.get("type", ""))
        await asyncio.sleep(0)
    if ends_with_marker:
        yield b"data: [DONE]\n\n"


def _chat(prefix: str, request: Fields) -> Fields:
    text = prefix + " ".join(_texts(_contents(request["messages"])[-1]))
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    usage = _usage("prompt_tokens", "completion_tokens", _count(request["messages"]), text)
    return _openai("chatcmpl", "chat.completion", request, choices=[choice], usage=usage)


def _chat_events(whole: Fields, request: Fields) -> Iterator[Fields]:
    chunk = {**whole, "object": "chat.completion.chunk", "choices": []}
    usage, message = chunk.pop("usage"), whole["choices"][0]["message"]
    deltas = [{"role": "assistant", "content": ""}, *({"content": word} for word in _WORD.findall(message["content"]))]
    for delta, finish in [*((delta, None) for delta in deltas), ({}, "stop")]:
        yield {**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
    if isinstance(options := request.get("stream_options"), dict) and options.get("include_usage"):
        yield {**chunk, "usage": usage}


def _completion(prefix: str, request: Fields) -> Fields:
    given = request["prompt"]
    prompt = " ".join(each for each in (given if isinstance(given, list) else [given]) if isinstance(each, str))
    choice = {"index": 0, "text": prefix + prompt, "logprobs": None, "finish_reason": "stop"}
    usage = _usage("prompt_tokens", "completion_tokens", len(prompt.split()), prefix + prompt)
    return _openai("cmpl", "text_completion", request, choices=[choice], usage=usage)


def _completion_events(whole: Fields, request: Fields) -> Iterator[Fields]:
    (choice,) = whole["choices"]
    for word, finish in [*((word, None) for word in _WORD.findall(choice["text"])), ("", "stop")]:
        chunk = {**whole, "choices": [{**choice, "text": word, "finish_reason": finish}]}
        del chunk["usage"]
        yield chunk


def _embeddings(prefix: str, request: Fields) -> Fields:
    """Return a vector for each input, the same whenever the input is the same."""
    given = request["input"]
    inputs = given if isinstance(given, list) and not all(isinstance(each, int) for each in given) else [given]
    data = [{"object": "embedding", "index": at, "embedding": _vector(request, each)} for at, each in enumerate(inputs)]
    read = _count([{"content": each} for each in inputs])
    usage = {"prompt_tokens": read, "total_tokens": read}
    return {"object": "list", "data": data, "model": request["model"], "usage": usage}


def _vector(request: Fields, value: Any) -> list[float] | str:
    digest = hashlib.sha256(msgspec.json.encode(value)).digest()
    numbers = [byte / 255 for byte in digest[:DIMENSIONS]]
    if request.get("encoding_format") == "base64":
        return base64.b64encode(struct.pack(f"<{DIMENSIONS}f", *numbers)).decode()
    return numbers


def _message(prefix: str, request: Fields) -> Fields:
    """Repeat only the user's last text: Claude Code puts reminders before it, and a system message behind it."""
    by_user = [each for each in request["messages"] if isinstance(each, dict) and each.get("role") == "user"]
    texts = [text for content in _contents(by_user)[-1:] for text in _texts(content)]
    text = prefix + (texts[-1] if texts else "")
    cache = {"cache_read_input_tokens": 0, "cache_creation_input_tokens": 0}
    return {
        "id": f"msg_{uuid.uuid4().hex}",
        "type": "message",
        "role": "assistant",
        "model": request["model"],
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": _token_count(prefix, request) | cache | {"output_tokens": len(text.split())},
    }


def _message_events(whole: Fields, request: Fields) -> Iterator[Fields]:
    (block,), usage = whole["content"], whole["usage"]
    begun = {**whole, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
    yield {"type": "message_start", "message": begun}
    yield {"type": "content_block_start", "index": 0, "content_block": {**block, "text": ""}}
    yield {"type": "ping"}
    for word in _WORD.findall(block["text"]):
        yield {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}}
    yield {"type": "content_block_stop", "index": 0}
    end = {"stop_reason": "end_turn", "stop_sequence": None}
    yield {"type": "message_delta", "delta": end, "usage": {"output_tokens": usage["output_tokens"]}}
    yield {"type": "message_stop"}


def _token_count(prefix: str, request: Fields) -> Fields:
    return {"input_tokens": _count([{"content": request.get("system")}, *request["messages"]])}


def _response(prefix: str, request: Fields) -> Fields:
    items = _items(request)
    text = prefix + (" ".join(_texts(_contents(items)[-1])) if items else "")
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    message = {"type": "message", "status": "completed", "role": "assistant", "content": [part]}
    details = {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
    return {
        "id": f"resp_{uuid.uuid4().hex}",
        "object": "response",
        "created_at": int(time.time()),
        "status": "completed",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": request.get("instructions"),
        "metadata": {},
        "model": request.get("model"),
        "output": [{"id": f"msg_{uuid.uuid4().hex}", **message}],
        "previous_response_id": None,
        "store": False,
        "text": {"format": {"type": "text"}},
        "tools": [],
        "truncation": "disabled",
        "usage": _usage("input_tokens", "output_tokens", _count(items), text) | details,
        "user": None,
        **{"parallel_tool_calls": True, "tool_choice": "auto"},
        **{name: value for name, value in request.items() if name in _REPEATED and value is not None},
    }


def _response_events(whole: Fields, request: Fields) -> Iterator[Fields]:
    (item,) = whole["output"]
    (part,) = item["content"]
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    empty = {**item, "status": "in_progress", "content": []}
    at = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    deltas = [{"delta": word, "logprobs": []} for word in _WORD.findall(part["text"])]
    said: list[Fields] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": empty},
        {"type": "response.content_part.added", **at, "part": {**part, "text": ""}},
        *({"type": "response.output_text.delta", **at, **delta} for delta in deltas),
        {"type": "response.output_text.done", **at, "text": part["text"], "logprobs": []},
        {"type": "response.content_part.done", **at, "part": part},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": whole},
    ]
    return ({**event, "sequence_number": number} for number, event in enumerate(said))


def _input_tokens(prefix: str, request: Fields) -> Fields:
    return {"object": "response.input_tokens", "input_tokens": _count(_items(request))}


def _items(request: Fields) -> list[Any]:
    given = request.get("input")
    return given if isinstance(given, list) else [{"role": "user", "content": given}]


def _openai(id_prefix: str, kind: str, request: Fields, **fields: Any) -> Fields:
    head = {"id": f"{id_prefix}-{uuid.uuid4().hex}", "object": kind, "created": int(time.time())}
    return {**head, "model": request["model"], **fields}


def _usage(input_name: str, output_name: str, read: int, text: str) -> Fields:
    written = len(text.split())
    return {input_name: read, output_name: written, "total_tokens": read + written}


def _texts(content: Any) -> Iterator[str]:
    """Yield the texts of a message's content: a string, or a list of parts of which some have a `text`."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        yield from (part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str))


def _contents(messages: list[Any]) -> list[Any]:
    """Return the content of each message; None for a message without content."""
    return [message.get("content") if isinstance(message, dict) else None for message in messages]


def _count(messages: list[Any]) -> int:
    return sum(len(text.split()) for content in _contents(messages) for text in _texts(content))


ANSWERS: dict[str, tuple[Callable[[str, Fields], Fields], Callable[[Fields, Fields], Iterator[Fields]] | None]] = {
    "/chat/completions": (_chat, _chat_events),
    "/completions": (_completion, _completion_events),
    "/embeddings": (_embeddings, None),
    "/messages": (_message, _message_events),
    "/messages/count_tokens": (_token_count, None),
    "/responses": (_response, _response_events),
    "/responses/input_tokens": (_input_tokens, None),
}
"""By path: what makes an answer of the text before what was heard and the request, and what makes its events."""
