"""Items, objects and events of OpenAI's Responses."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from tests.clients.account import Account, new_id
from tests.clients.http_api import ApiError, pieces

ENCRYPTED = "reasoning.encrypted_content"
OUTPUT_TOKENS = 7
REASONING_TOKENS = 3
NO_PART_OF_THE_PROMPT = ("annotations", "encrypted_content", "id", "logprobs", "phase", "status", "summary")


def input_items(given: str | list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    """Return a request's input as items, each with an id."""
    if given is None:
        return []
    if isinstance(given, str):
        given = [{"role": "user", "content": [{"type": "input_text", "text": given}]}]
    return [{"type": "message", "id": new_id("msg"), **item} for item in given]


def resolve(account: Account, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the items with references resolved; raise on what this account did not store or seal."""
    stored = {item["id"]: item for response in account.responses.values() for item in response["response"]["output"]}
    resolved = []
    for item in items:
        sealed = item.get("encrypted_content")
        if sealed is not None and not account.has_sealed(sealed):
            message = (
                f"The encrypted content for item {item['id']} could not be verified. "
                "Reason: Encrypted content could not be decrypted or parsed."
            )
            raise ApiError(400, message, code="invalid_encrypted_content")
        by_reference = item["type"] == "item_reference" or (item["type"] == "reasoning" and sealed is None)
        if by_reference and item["id"] not in stored:
            message = f"Item with id '{item['id']}' not found. Items are not persisted when `store` is set to false."
            raise ApiError(404, message, param="input")
        resolved.append(stored[item["id"]] if by_reference else item)
    return resolved


def output_items(account: Account, body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the output of a new response: a message, after reasoning where that was asked for."""
    encrypted = ENCRYPTED in (body.get("include") or ())
    part = {"type": "output_text", "text": account.answer(body["model"]), "annotations": [], "logprobs": []}
    message = {"id": new_id("msg"), "type": "message", "status": "completed", "role": "assistant", "content": [part]}
    if not encrypted and not body.get("reasoning"):
        return [message]
    reasoning: dict[str, Any] = {"id": new_id("rs"), "type": "reasoning", "summary": []}
    if encrypted:
        reasoning["encrypted_content"] = account.seal()
    return [reasoning, message]


def usage(account: Account, body: dict[str, Any], context: list[dict[str, Any]], output: list[Any]) -> dict[str, Any]:
    """Return the figures of OpenAI, whose `input_tokens` contain the cached ones."""
    reasoned = REASONING_TOKENS if output[0]["type"] == "reasoning" else 0
    total, cached, written = account.cache.read(body["model"], prompt(body, context))
    return {
        "input_tokens": total,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written},
        "output_tokens": OUTPUT_TOKENS + reasoned,
        "output_tokens_details": {"reasoning_tokens": reasoned},
        "total_tokens": total + OUTPUT_TOKENS + reasoned,
    }


def prompt(body: dict[str, Any], context: list[dict[str, Any]]) -> Any:
    """Return what the model reads, the same whether the client or the account kept the conversation."""
    return [body.get("tools") or [], body.get("instructions"), [_read(item) for item in context]]


def _read(item: dict[str, Any]) -> Any:
    if item["type"] == "message":
        content = item["content"]
        return [
            item["role"],
            content if isinstance(content, str) else "".join(part.get("text", "") for part in content),
        ]
    return {name: value for name, value in item.items() if name not in NO_PART_OF_THE_PROMPT}


def new_response(body: dict[str, Any], output: list[dict[str, Any]], figures: dict[str, Any]) -> dict[str, Any]:
    """Return a completed response."""
    conversation = body.get("conversation")
    return {
        "id": new_id("resp"),
        "object": "response",
        "created_at": int(time.time()),
        "status": "completed",
        "background": bool(body.get("background")),
        "conversation": {"id": conversation} if conversation else None,
        "error": None,
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "metadata": body.get("metadata") or {},
        "model": body["model"],
        "output": output,
        "parallel_tool_calls": body.get("parallel_tool_calls", True),
        "previous_response_id": body.get("previous_response_id"),
        "reasoning": body.get("reasoning") or {"effort": None, "summary": None},
        "service_tier": "default",
        "store": body.get("store") is not False,
        "temperature": 1.0,
        "text": body.get("text") or {"format": {"type": "text"}},
        "tool_choice": body.get("tool_choice", "auto"),
        "tools": body.get("tools") or [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": figures,
        "user": None,
    }


def unfinished(response: dict[str, Any], status: str) -> dict[str, Any]:
    """Return what the response is before it is completed."""
    return {**response, "status": status, "output": [], "usage": None}


def events(response: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the events of a response, numbered."""
    for number, event in enumerate(_events(response)):
        yield {**event, "sequence_number": number}


def _events(response: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield {"type": "response.created", "response": unfinished(response, "in_progress")}
    yield {"type": "response.in_progress", "response": unfinished(response, "in_progress")}
    for index, item in enumerate(response["output"]):
        if item["type"] == "message":
            yield from _message_events(index, item)
        else:
            yield {"type": "response.output_item.added", "output_index": index, "item": item}
            yield {"type": "response.output_item.done", "output_index": index, "item": item}
    yield {"type": "response.completed", "response": response}


def _message_events(index: int, item: dict[str, Any]) -> Iterator[dict[str, Any]]:
    begun = {**item, "status": "in_progress", "content": []}
    yield {"type": "response.output_item.added", "output_index": index, "item": begun}
    for at, part in enumerate(item["content"]):
        where = {"item_id": item["id"], "output_index": index, "content_index": at}
        yield {"type": "response.content_part.added", **where, "part": {**part, "text": ""}}
        for piece in pieces(part["text"]):
            yield {"type": "response.output_text.delta", **where, "delta": piece, "logprobs": []}
        yield {"type": "response.output_text.done", **where, "text": part["text"], "logprobs": []}
        yield {"type": "response.content_part.done", **where, "part": part}
    yield {"type": "response.output_item.done", "output_index": index, "item": item}


def page(items: list[dict[str, Any]], *, order: str | None) -> dict[str, Any]:
    """Return a list object, newest first unless the order is "asc"."""
    data = items if order == "asc" else items[::-1]
    first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return {"object": "list", "data": data, "first_id": first, "last_id": last, "has_more": False}
