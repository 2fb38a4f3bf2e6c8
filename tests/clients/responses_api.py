"""OpenAI's Responses and Conversations, which this account stores and no other knows."""

from __future__ import annotations

import time
from typing import Any

from aiohttp import web

from tests.clients.account import Account, new_id
from tests.clients.chat_api import check_model
from tests.clients.http_api import ApiError, parse, send_events
from tests.clients.response_items import (
    events,
    input_items,
    new_response,
    output_items,
    page,
    prompt,
    resolve,
    unfinished,
    usage,
)

BACKGROUND_SECONDS = 0.3
"""How long a response in the background takes."""


class ResponsesApi:
    """`/v1/responses` and below, `/v1/conversations` and below."""

    def __init__(self, account: Account) -> None:
        self.account = account

    def routes(self) -> list[web.RouteDef]:
        """Return its paths."""
        one, conversation = "/v1/responses/{id}", "/v1/conversations/{id}"
        return [
            web.post("/v1/responses", self.create),
            web.post("/v1/responses/compact", self.compact),
            web.post("/v1/responses/input_tokens", self.input_tokens),
            web.get(one, self.retrieve),
            web.delete(one, self.delete),
            web.post(f"{one}/cancel", self.cancel),
            web.get(f"{one}/input_items", self.input_items),
            web.post("/v1/conversations", self.create_conversation),
            web.get(conversation, self.retrieve_conversation),
            web.delete(conversation, self.delete_conversation),
            web.get(f"{conversation}/items", self.conversation_items),
            web.post(f"{conversation}/items", self.add_items),
        ]

    async def create(self, request: web.Request) -> web.StreamResponse:
        """Answer, and store the response unless `store` is false."""
        body = await parse(request, "model")
        check_model(self.account, body)
        given, context = self._context(body)
        output = output_items(self.account, body)
        response = new_response(body, output, usage(self.account, body, context, output))
        stored = {"response": response, "context": context, "given": given, "ready_at": 0.0}
        if response["store"]:
            self.account.responses[response["id"]] = stored
        if response["conversation"]:
            self.account.conversations[response["conversation"]["id"]]["items"] += [*given, *output]
        if body.get("stream"):
            return await send_events(request, events(response))
        if response["background"]:
            stored["ready_at"] = time.monotonic() + BACKGROUND_SECONDS
            return web.json_response(unfinished(response, "queued"))
        return web.json_response(response)

    async def compact(self, request: web.Request) -> web.Response:
        """Replace a conversation by its user messages and one item that this account alone can read."""
        body = await parse(request, "model")
        check_model(self.account, body)
        _, context = self._context(body)
        kept = [item for item in context if item.get("role") == "user"]
        output = [*kept, {"id": new_id("cmp"), "type": "compaction", "encrypted_content": self.account.seal()}]
        compacted = {"id": new_id("resp"), "object": "response.compaction", "created_at": int(time.time())}
        return web.json_response({**compacted, "output": output, "usage": usage(self.account, body, context, output)})

    async def input_tokens(self, request: web.Request) -> web.Response:
        """Count without computing anything."""
        body = await parse(request, "model")
        _, context = self._context(body)
        total, _, _ = self.account.cache.read(check_model(self.account, body), prompt(body, context), write=False)
        return web.json_response({"object": "response.input_tokens", "input_tokens": total})

    async def retrieve(self, request: web.Request) -> web.StreamResponse:
        """Return a stored response, or its events after the one numbered `starting_after`."""
        stored = self._stored(request)
        if request.query.get("stream") == "true":
            after = int(request.query.get("starting_after", -1))
            return await send_events(request, (e for e in events(stored["response"]) if e["sequence_number"] > after))
        return web.json_response(_now(stored))

    async def delete(self, request: web.Request) -> web.Response:
        """Forget a response."""
        response = self._stored(request)["response"]
        del self.account.responses[response["id"]]
        return web.json_response({"id": response["id"], "object": "response", "deleted": True})

    async def cancel(self, request: web.Request) -> web.Response:
        """Cancel a response in the background."""
        stored = self._stored(request)
        if not stored["response"]["background"]:
            raise ApiError(400, "Cannot cancel a synchronous response.")
        if stored["ready_at"] > time.monotonic():
            stored.update(response=unfinished(stored["response"], "cancelled"), ready_at=0.0)
        return web.json_response(_now(stored))

    async def input_items(self, request: web.Request) -> web.Response:
        """List what a response was given."""
        return web.json_response(page(self._stored(request)["given"], order=request.query.get("order")))

    async def create_conversation(self, request: web.Request) -> web.Response:
        """Begin a conversation, with items where some are given."""
        body = await parse(request)
        created = {"id": new_id("conv"), "object": "conversation", "created_at": int(time.time())}
        created["metadata"] = body.get("metadata") or {}
        self.account.conversations[created["id"]] = {"conversation": created, "items": input_items(body.get("items"))}
        return web.json_response(created)

    async def retrieve_conversation(self, request: web.Request) -> web.Response:
        """Return a conversation."""
        return web.json_response(self._conversation(request.match_info["id"])["conversation"])

    async def delete_conversation(self, request: web.Request) -> web.Response:
        """Forget a conversation."""
        conversation_id = request.match_info["id"]
        self._conversation(conversation_id)
        del self.account.conversations[conversation_id]
        return web.json_response({"id": conversation_id, "object": "conversation.deleted", "deleted": True})

    async def conversation_items(self, request: web.Request) -> web.Response:
        """List a conversation."""
        items = self._conversation(request.match_info["id"])["items"]
        return web.json_response(page(items, order=request.query.get("order")))

    async def add_items(self, request: web.Request) -> web.Response:
        """Add to a conversation."""
        body = await parse(request, "items")
        added = input_items(body["items"])
        self._conversation(request.match_info["id"])["items"] += added
        return web.json_response(page(added, order="asc"))

    def _context(self, body: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Return the items that the request gives, and these after those that it continues."""
        given = resolve(self.account, input_items(body.get("input")))
        previous, conversation = body.get("previous_response_id"), body.get("conversation")
        if previous is not None:
            stored = self.account.responses.get(previous)
            if stored is None:
                message = f"Previous response with id '{previous}' not found."
                raise ApiError(400, message, code="previous_response_not_found", param="previous_response_id")
            return given, [*stored["context"], *stored["response"]["output"], *given]
        if conversation is not None:
            body["conversation"] = conversation if isinstance(conversation, str) else conversation["id"]
            return given, [*self._conversation(body["conversation"])["items"], *given]
        return given, given

    def _stored(self, request: web.Request) -> dict[str, Any]:
        response_id = request.match_info["id"]
        if response_id not in self.account.responses:
            raise ApiError(404, f"Response with id '{response_id}' not found.")
        return self.account.responses[response_id]

    def _conversation(self, conversation_id: str) -> dict[str, Any]:
        if conversation_id not in self.account.conversations:
            raise ApiError(404, f"Conversation with id '{conversation_id}' not found.")
        return self.account.conversations[conversation_id]


def _now(stored: dict[str, Any]) -> dict[str, Any]:
    """Return a stored response as it is by now."""
    response: dict[str, Any] = stored["response"]
    return unfinished(response, "in_progress") if stored["ready_at"] > time.monotonic() else response
