"""`GET /v1/models`, in OpenAI's shape, or in Anthropic's for its clients: https://docs.claude.com/en/api/models-list."""

from __future__ import annotations

from typing import Any

from sentinel_project.gateway.apis import is_anthropic
from sentinel_project.gateway.apis.messages import MESSAGES
from sentinel_project.gateway.auth import authenticate
from sentinel_project.gateway.calls import Call
from sentinel_project.gateway.endpoint import endpoint
from sentinel_project.gateway.errors import ApiError
from sentinel_project.gateway.providers.current import providers
from sentinel_project.gateway.replies import Reply, json_reply
from sentinel_project.gateway.routing.errors import unknown_model

DEFAULT_LIMIT = 20
MAX_LIMIT = 1000
"""Anthropic's; OpenAI's list has no pages."""


@endpoint("GET")
async def models(call: Call) -> Reply:
    """List the models that the client can use."""
    await authenticate(call.headers)
    names = _usable(call)
    if is_anthropic(call.headers):
        return json_reply(_anthropic_page(names, call))
    return json_reply({"object": "list", "data": [_openai_model(name) for name in names]})


@endpoint("GET")
async def model(call: Call, name: str) -> Reply:
    """Describe one model."""
    await authenticate(call.headers)
    if name not in _usable(call):
        raise unknown_model(name)
    return json_reply(_anthropic_model(name) if is_anthropic(call.headers) else _openai_model(name))


def _usable(call: Call) -> list[str]:
    """Return the models of all providers; for Anthropic's clients, only of those that support Messages."""
    only = MESSAGES.name if is_anthropic(call.headers) else None
    return sorted({model for each in providers() if only is None or only in each.apis for model in each.models})


def _openai_model(name: str) -> dict[str, Any]:
    owners = ",".join(provider.name for provider in providers() if name in provider.models)
    return {"id": name, "object": "model", "created": 0, "owned_by": owners}


def _anthropic_model(name: str) -> dict[str, Any]:
    """Return a model; its release date is unknown, for which Anthropic documents the epoch."""
    return {"type": "model", "id": name, "display_name": name, "created_at": "1970-01-01T00:00:00Z"}


def _anthropic_page(names: list[str], call: Call) -> dict[str, Any]:
    """Return the page that `limit` and `after_id` or `before_id` ask for; `has_more` looks in the same direction."""
    limit, after, before = _limit(call.parameter("limit")), call.parameter("after_id"), call.parameter("before_id")
    if before:
        names = [name for name in names if name < before]
        page = names[-limit:]
    else:
        names = [name for name in names if not after or name > after]
        page = names[:limit]
    return {
        "data": [_anthropic_model(name) for name in page],
        "has_more": len(page) < len(names),
        "first_id": page[0] if page else None,
        "last_id": page[-1] if page else None,
    }


def _limit(text: str | None) -> int:
    if text is None:
        return DEFAULT_LIMIT
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(MAX_LIMIT)) and 1 <= int(text) <= MAX_LIMIT):
        raise ApiError(400, f"limit must be a number from 1 to {MAX_LIMIT}, not {text[:20]!r}", param="limit")
    return int(text)
