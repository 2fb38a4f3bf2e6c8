"""Anthropic's Messages: thinking blocks whose signature only the account that made them accepts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aiohttp import web

from tests.clients.account import Account, new_id
from tests.clients.http_api import ApiError, parse, pieces, send_events

OUTPUT_TOKENS = 7
BILLING = "x-anthropic-billing-header:"
"""How a system block of Claude Code begins that is new on each request and no part of the prompt."""


class MessagesApi:
    """`/v1/messages` and `/v1/messages/count_tokens`."""

    def __init__(self, account: Account) -> None:
        self.account = account

    def routes(self) -> list[web.RouteDef]:
        """Return its paths."""
        return [
            web.post("/v1/messages", self.create),
            web.post("/v1/messages/count_tokens", self.count_tokens),
        ]

    async def create(self, request: web.Request) -> web.StreamResponse:
        """Answer with a text, after a thinking block where thinking is on."""
        body = await self._parse(request, "max_tokens", "messages", "model")
        message = {
            "id": new_id("msg"),
            "type": "message",
            "role": "assistant",
            "model": body["model"],
            "content": self._content(body),
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": self._usage(body),
        }
        return await send_events(request, _events(message)) if body.get("stream") else web.json_response(message)

    async def count_tokens(self, request: web.Request) -> web.Response:
        """Count without computing anything."""
        body = await self._parse(request, "messages", "model")
        total, _, _ = self.account.cache.read(body["model"], _prompt(body), write=False)
        return web.json_response({"input_tokens": total})

    async def _parse(self, request: web.Request, *required: str) -> dict[str, Any]:
        if "anthropic-version" not in request.headers:
            raise ApiError(400, "anthropic-version: header is required")
        body = await parse(request, *required)
        if body["model"] not in self.account.models:
            raise ApiError(404, f"model: {body['model']}")
        for at, message in enumerate(body["messages"]):
            for index, block in enumerate(_blocks(message["content"])):
                sealed = {"thinking": "signature", "redacted_thinking": "data"}.get(block["type"])
                if sealed and not self.account.has_sealed(block.get(sealed)):
                    where = f"messages.{at}.content.{index}"
                    raise ApiError(400, f"{where}: Invalid `{sealed}` in `{block['type']}` block")
        return body

    def _content(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        text = {"type": "text", "text": self.account.answer(body["model"])}
        if (body.get("thinking") or {}).get("type") not in ("enabled", "adaptive"):
            return [text]
        return [{"type": "thinking", "thinking": "Who am I?", "signature": self.account.seal()}, text]

    def _usage(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the figures of Anthropic, whose `input_tokens` are those that were neither read nor written."""
        total, read, written = self.account.cache.read(body["model"], _prompt(body), write=_wants_cache(body))
        return {
            "input_tokens": total - read - written,
            "cache_read_input_tokens": read,
            "cache_creation_input_tokens": written,
            "cache_creation": {"ephemeral_5m_input_tokens": written, "ephemeral_1h_input_tokens": 0},
            "output_tokens": OUTPUT_TOKENS,
            "service_tier": "standard",
        }


def _blocks(content: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _plain(block: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in block.items() if name not in ("cache_control", "signature")}


def _prompt(body: dict[str, Any]) -> Any:
    system = [block for block in _blocks(body.get("system") or []) if not str(block.get("text")).startswith(BILLING)]
    return [
        [_plain(tool) for tool in body.get("tools") or []],
        [_plain(block) for block in system],
        [[message["role"], [_plain(block) for block in _blocks(message["content"])]] for message in body["messages"]],
    ]


def _wants_cache(body: dict[str, Any]) -> bool:
    blocks = [*(body.get("tools") or []), *_blocks(body.get("system") or [])]
    blocks += [block for message in body["messages"] for block in _blocks(message["content"])]
    return "cache_control" in body or any("cache_control" in block for block in blocks)


def _events(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    begun = {**message, "content": [], "stop_reason": None, "usage": {**message["usage"], "output_tokens": 1}}
    yield {"type": "message_start", "message": begun}
    for index, block in enumerate(message["content"]):
        yield from _block_events(index, block)
        if index == 0:
            yield {"type": "ping"}
    names = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "output_tokens")
    usage = {name: message["usage"][name] for name in names}
    yield {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": usage}
    yield {"type": "message_stop"}


def _block_events(index: int, block: dict[str, Any]) -> Iterator[dict[str, Any]]:
    kind = block["type"]
    empty = {**block, **{name: "" for name in block if name != "type"}}
    yield {"type": "content_block_start", "index": index, "content_block": empty}
    deltas = [{"type": f"{kind}_delta", kind: piece} for piece in pieces(block[kind])]
    if kind == "thinking":
        deltas.append({"type": "signature_delta", "signature": block["signature"]})
    for delta in deltas:
        yield {"type": "content_block_delta", "index": index, "delta": delta}
    yield {"type": "content_block_stop", "index": index}
