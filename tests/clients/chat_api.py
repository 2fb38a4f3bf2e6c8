"""Chat completions, and the older and simpler APIs of OpenAI beside it."""

from __future__ import annotations

import base64
import struct
import time
from collections.abc import Iterator
from typing import Any

from aiohttp import web

from tests.clients.account import Account, new_id
from tests.clients.http_api import ApiError, parse, pieces, send_events

OUTPUT_TOKENS = 7


class ChatApi:
    """`/v1/chat/completions`, `/v1/completions`, `/v1/embeddings`."""

    def __init__(self, account: Account) -> None:
        self.account = account

    def routes(self) -> list[web.RouteDef]:
        """Return its paths."""
        return [
            web.post("/v1/chat/completions", self.chat),
            web.post("/v1/completions", self.complete),
            web.post("/v1/embeddings", self.embed),
        ]

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """Answer with one choice."""
        body = await parse(request, "messages", "model")
        model = check_model(self.account, body)
        usage = self._usage(model, [body.get("tools"), [_said(message) for message in body["messages"]]])
        text = self.account.answer(model)
        envelope = {"id": new_id("chatcmpl"), "created": int(time.time()), "model": model, "service_tier": "default"}
        if body.get("stream"):
            usage_wanted = bool((body.get("stream_options") or {}).get("include_usage"))
            chunks = _chunks({**envelope, "object": "chat.completion.chunk"}, text, usage if usage_wanted else None)
            return await send_events(request, chunks, done=b"data: [DONE]\n\n")
        message = {"role": "assistant", "content": text, "refusal": None, "annotations": []}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        return web.json_response(
            {**envelope, "object": "chat.completion", "choices": [choice], "usage": usage, "system_fingerprint": None}
        )

    async def complete(self, request: web.Request) -> web.StreamResponse:
        """Answer a prompt without roles."""
        body = await parse(request, "model", "prompt")
        model = check_model(self.account, body)
        usage = self._usage(model, body["prompt"])
        text = self.account.answer(model)
        envelope = {"id": new_id("cmpl"), "object": "text_completion", "created": int(time.time()), "model": model}
        if body.get("stream"):
            choices = ({"index": 0, "text": piece, "logprobs": None, "finish_reason": None} for piece in pieces(text))
            events = ({**envelope, "choices": [choice]} for choice in choices)
            return await send_events(request, events, done=b"data: [DONE]\n\n")
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": "stop"}
        return web.json_response({**envelope, "choices": [choice], "usage": usage})

    async def embed(self, request: web.Request) -> web.Response:
        """Answer with a vector of three numbers for each input."""
        body = await parse(request, "input", "model")
        model = check_model(self.account, body)
        inputs = body["input"] if isinstance(body["input"], list) else [body["input"]]
        vector: Any = [0.5, 0.25, 0.125]
        if body.get("encoding_format") == "base64":
            vector = base64.b64encode(struct.pack("<3f", *vector)).decode()
        data = [{"object": "embedding", "index": at, "embedding": vector} for at, _ in enumerate(inputs)]
        total, _, _ = self.account.cache.read(model, inputs, write=False)
        usage = {"prompt_tokens": total, "total_tokens": total}
        return web.json_response({"object": "list", "data": data, "model": model, "usage": usage})

    def _usage(self, model: str, prompt: Any) -> dict[str, Any]:
        total, cached, _ = self.account.cache.read(model, prompt)
        return {
            "prompt_tokens": total,
            "completion_tokens": OUTPUT_TOKENS,
            "total_tokens": total + OUTPUT_TOKENS,
            "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
        }


def check_model(account: Account, body: dict[str, Any]) -> str:
    """Return the request's model, which must be one of the account's."""
    model = str(body["model"])
    if model not in account.models:
        message = f"The model `{model}` does not exist or you do not have access to it."
        raise ApiError(404, message, code="model_not_found")
    return model


def _said(message: dict[str, Any]) -> list[Any]:
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(part["text"] for part in content if part.get("type") == "text")
    return [message["role"], content, message.get("tool_calls")]


def _chunks(envelope: dict[str, Any], text: str, usage: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        event = {**envelope, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]}
        return event if usage is None else {**event, "usage": None}

    yield chunk({"role": "assistant", "content": "", "refusal": None})
    for piece in pieces(text):
        yield chunk({"content": piece})
    yield chunk({}, "stop")
    if usage is not None:
        yield {**envelope, "choices": [], "usage": usage}
