"""Requests of the three APIs that begin the same conversation, and `identify` with the tests' arguments."""

from __future__ import annotations

from typing import Any

import msgspec

from sessions_sticky.identity import Identity, identify

KEY = b"a key of the tests"
SYSTEM = "You are a travel agent."
QUESTION = "Where shall I go?"
ANSWER = "To Lisbon."
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0", "detail": "low"}}

CHAT = {
    "messages": [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": ANSWER},
        {"role": "user", "content": "And then?"},
    ]
}
RESPONSES = {
    "instructions": SYSTEM,
    "input": [
        {"role": "user", "content": QUESTION},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": ANSWER}]},
        {"role": "user", "content": "And then?"},
    ],
}
MESSAGES = {"system": SYSTEM, "messages": CHAT["messages"][1:]}
BODIES: dict[str, dict[str, Any]] = {"chat": CHAT, "responses": RESPONSES, "messages": MESSAGES}


def raw(body: Any) -> dict[str, msgspec.Raw]:
    """Return a body as the gateway has it: only the top level is decoded."""
    return msgspec.json.decode(msgspec.json.encode(body), type=dict[str, msgspec.Raw])


def identity(headers: dict[str, str] | None = None, body: Any = None, **options: Any) -> Identity:
    """Return the identity of a request of `acme` for `gpt-5`."""
    arguments = {"owner": "acme", "model": "gpt-5", "api": "chat", "key": KEY} | options
    return identify(headers or {}, body or {}, **arguments)


def turn(*messages: tuple[str, Any], **fields: Any) -> dict[str, Any]:
    """Return a chat request of messages given as role and content."""
    return {"messages": [{"role": role, "content": content} for role, content in messages], **fields}
