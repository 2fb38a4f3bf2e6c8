"""Anthropic's Messages (https://docs.claude.com/en/api/messages): Claude Code and the Anthropic SDKs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from sentinel_project.gateway.apis import events, json_text
from sentinel_project.gateway.apis.base import Api, Reference, Repair, Stage, require_messages
from sentinel_project.gateway.apis.body import Body
from sentinel_project.gateway.apis.upstream_objects import ANTHROPIC_FILE, container_references, file_references
from sentinel_project.gateway.errors import ApiError
from sessions_sticky.identity.apis import Prompt, messages_prompt

ERROR_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
"""By status, as https://docs.claude.com/en/api/errors lists them. Any other 4xx is `invalid_request_error`, any other
5xx `api_error`."""

_EVENT_STAGES = {
    "message_start": Stage.PRELUDE,
    "ping": Stage.PRELUDE,
    "error": Stage.ERROR,
    "message_stop": Stage.END,
}
_INVALID_THINKING = re.compile(
    r"invalid `?(signature|data)`? in `?(redacted_)?thinking`? block|thinking\.signature: field required"
    r"|encrypted.content\b.{0,500}could not be verified",
    re.IGNORECASE | re.DOTALL,
)
"""How providers refuse thinking that another account signed, with and without the backticks. The second is Anthropic's
answer to thinking of a provider that signs nothing, the third that of providers whose signatures are OpenAI's encrypted
reasoning: https://github.com/Wei-Shaw/sub2api/issues/1820."""

_MARK = b'thinking"'
"""Every thinking block contains it, twice."""
MAX_MARKS = 20_000
"""Maximum number of marks in messages that are repaired."""


class _Event(msgspec.Struct):
    type: str = ""
    content_block: dict[str, Any] | None = None
    error: msgspec.Raw = msgspec.Raw(b"null")


class _Block(msgspec.Struct):
    type: str = ""


_decode_event = msgspec.json.Decoder(_Event).decode
_decode_block = msgspec.json.Decoder(_Block).decode


class Messages(Api):
    """`POST /v1/messages`."""

    name = "messages"
    path = "/messages"
    answer_field = "content"
    heartbeat = b'event: ping\ndata: {"type": "ping"}\n\n'
    end_marker = b"message_stop"
    input_is_uncached = True

    def check(self, body: Body) -> None:
        """Require messages; `max_tokens` is left to the provider."""
        require_messages(body)

    def prompt(self, body: Mapping[str, Any]) -> Prompt:
        """Read the system prompt and the messages."""
        return messages_prompt(body)

    def stage(self, event: bytes) -> Stage:
        """Read one event. The start of an empty block is prelude; a tool's name is content."""
        data = events.data(event)
        if not data:
            return Stage.PRELUDE
        decoded = json_text.read(_decode_event, data, None)
        if decoded is None:
            return Stage.ERROR if events.name(event) == b"error" else Stage.CONTENT
        if decoded.type == "content_block_start":
            has_content = any(value for name, value in (decoded.content_block or {}).items() if name != "type")
            return Stage.CONTENT if has_content else Stage.PRELUDE
        if not decoded.type and bytes(decoded.error) != b"null":
            return Stage.ERROR
        return _EVENT_STAGES.get(decoded.type or events.name(event).decode(errors="replace"), Stage.CONTENT)

    def render_error(self, error: ApiError) -> dict[str, Any]:
        """Return Anthropic's shape; the type follows from the status."""
        default = "invalid_request_error" if error.status < 500 else "api_error"
        fields = {"type": ERROR_TYPES.get(error.status, default), "message": error.message}
        return {"type": "error", "error": fields, "request_id": error.request_id}

    def error_event(self, error: ApiError, after: bytes = b"") -> bytes:
        """Return an error as Anthropic's last event: it has a name."""
        return events.encode(error.provider_body or self.render_error(error), "error")

    def is_error_shape(self, answer: dict[str, Any]) -> bool:
        """Require both types; a provider's front end may answer in OpenAI's shape."""
        has_types = answer.get("type") == "error" and isinstance((self.provider_error(answer) or {}).get("type"), str)
        return has_types and super().is_error_shape(answer)

    def repair(self, body: Body, error: ApiError) -> Repair | None:
        """Remove thinking, and messages of nothing else, if the provider refuses its signature."""
        if error.status != 400 or not _INVALID_THINKING.search(error.message):
            return None
        messages = bytes(body.fields["messages"])
        if messages.count(_MARK) > MAX_MARKS or messages.count(b",") > json_text.MAX_COMMAS:
            return None
        repaired = json_text.change_items(messages, _without_thinking)
        if repaired == messages or not repaired[1:-1].strip():
            return None
        return Repair(body.replace({"messages": repaired}), "thinking")

    def references(self, body: Body) -> list[Reference]:
        """Return the container of the request and a file of its messages."""
        return [*container_references(body), *file_references(body, ANTHROPIC_FILE)]


class CountTokens(Messages):
    """`POST /v1/messages/count_tokens`."""

    path = "/messages/count_tokens"
    answer_field = "input_tokens"
    binds = False
    streams = False


def _without_thinking(message: bytes) -> bytes | None:
    """Return a message without its thinking blocks; None if nothing else is left: Anthropic refuses empty messages."""
    if _MARK not in message:
        return message

    def change(content: bytes) -> bytes | None:
        if not content.startswith(b"["):
            return content
        left = json_text.change_items(content, _unless_thinking)
        return left if left == content or left[1:-1].strip() else None

    return json_text.change_field(message, "content", change)


def _unless_thinking(block: bytes) -> bytes | None:
    if _MARK not in block:
        return block
    is_thinking = json_text.read(_decode_block, block, _Block()).type in ("thinking", "redacted_thinking")
    return None if is_thinking else block


MESSAGES = Messages()
COUNT_TOKENS = CountTokens()
