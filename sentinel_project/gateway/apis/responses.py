"""OpenAI's Responses: the API of Codex and the Agents SDK."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from sentinel_project.gateway.apis import events, json_text, upstream_objects
from sentinel_project.gateway.apis.base import Api, Reference, Repair, Stage, invalid_field
from sentinel_project.gateway.apis.body import Body
from sentinel_project.gateway.errors import ApiError
from sessions_sticky.identity.apis import Prompt, responses_prompt

INPUT = "text or a list of items"
CONTINUES = ("prompt", "previous_response_id", "conversation")
"""Fields that contain an input."""

_BEFORE_THE_ANSWER = frozenset({"response.created", "response.queued", "response.in_progress", "keepalive", "ping"})
_LAST = frozenset({"response.completed", "response.incomplete"})
_FAILED = frozenset({"error", "response.failed"})
_ADDED = frozenset(
    {"response.output_item.added", "response.content_part.added", "response.reasoning_summary_part.added"}
)
_UNREADABLE = re.compile(
    r"encrypted.content\b.{0,500}(could not be verified|could not be decrypted|not issued to)"
    r"|item with id '?rs_\w{1,500}'? not found",
    re.IGNORECASE | re.DOTALL,
)
"""How providers refuse reasoning of another account without OpenAI's code. Azure looks for its id, even if it is
encrypted: https://github.com/earendil-works/pi/pull/5524."""
_NUMBER = re.compile(rb'"sequence_number"\s*:\s*([0-9]{1,15})\b')


class _Item(msgspec.Struct):
    """An item of an input or output, or a part of one."""

    type: str = ""
    content: list[msgspec.Raw] | None = None
    summary: list[msgspec.Raw] | None = None
    text: str = ""


class _Event(msgspec.Struct):
    """The fields that show the meaning of an event; https://platform.openai.com/docs/api-reference/responses-streaming."""

    type: str = ""
    item: _Item | None = None
    part: _Item | None = None
    error: msgspec.Raw = msgspec.Raw(b"null")


_decode_event = msgspec.json.Decoder(_Event).decode


class Responses(Api):
    """`POST /v1/responses`."""

    name = "responses"
    path = "/responses"
    answer_field = "output"
    makes_objects = True
    end_marker = b'"response"'
    """The last event holds the whole response, deltas do not."""
    error_markers = (b"error", b"response.failed")
    end_is_answer = True

    def check(self, body: Body) -> None:
        """Require an input, or a field that brings one."""
        start = bytes(memoryview(body.fields.get("input", b"null"))[:4])
        if start == b"null" and any(body.get(name) for name in CONTINUES):
            return
        if start[:1] not in (b'"', b"["):
            raise invalid_field("input", body.get("input"), INPUT)

    def may_omit_model(self, body: Body) -> bool:
        """A prompt that is stored at the provider has a model."""
        return isinstance(body.get("prompt"), dict)

    def prompt(self, body: Mapping[str, Any]) -> Prompt:
        """Read the instructions and the input."""
        return responses_prompt(body)

    def stage(self, event: bytes) -> Stage:
        """Read one event. Those that only announce a response, an empty item or an empty part are prelude."""
        data = events.data(event)
        if not data or data == b"[DONE]":  # the latter from providers that serve chat completions too
            return Stage.PRELUDE
        read = json_text.read(_decode_event, data, None)
        if read is None:
            return Stage.CONTENT  # unknown shape: forward it
        if read.type in _LAST:
            return Stage.END
        if read.type in _FAILED or (not read.type and bytes(read.error) != b"null"):
            return Stage.ERROR
        is_empty = read.type in _ADDED and _is_empty(read.item or read.part)
        return Stage.PRELUDE if is_empty or read.type in _BEFORE_THE_ANSWER else Stage.CONTENT

    def is_error_shape(self, answer: dict[str, Any]) -> bool:
        """Require a complete plain answer, not an event or a failed response."""
        return (
            isinstance(answer.get("error"), dict) and "sequence_number" not in answer and super().is_error_shape(answer)
        )

    def provider_error(self, answer: dict[str, Any]) -> dict[str, Any] | None:
        """Return the fields of an error, of a failed response, or of an event `error`."""
        failed = answer.get("response")
        if isinstance(failed, dict):
            return super().provider_error(failed)
        if answer.get("type") == "error" and "error" not in answer:
            return {name: value for name, value in answer.items() if name not in ("type", "sequence_number")}
        return super().provider_error(answer)

    def error_event(self, error: ApiError, after: bytes = b"") -> bytes:
        """Return an event `error`, numbered after the events `after`.

        Its fields are those of the API's reference, and once more in an object `error`: so OpenAI itself sends them,
        and its SDK raises an exception for these only.
        """
        fields = self.provider_error(error.provider_body or {}) or self.render_error(error)["error"]
        numbers = _NUMBER.findall(after)
        flat = {name: fields.get(name) for name in ("code", "message", "param")}
        event = {"type": "error", **flat, "sequence_number": int(numbers[-1]) + 1 if numbers else 0}
        return events.encode({**event, "error": {"type": error.type, **flat, **fields}}, "error")

    def repair(self, body: Body, error: ApiError) -> Repair | None:
        """Remove the reasoning items when the provider cannot decrypt or find one."""
        if error.code != "invalid_encrypted_content" and not _UNREADABLE.search(error.message):
            return None
        reasoning = [_is_reasoning(item) for item in upstream_objects.items(body)]
        if not any(reasoning) or all(reasoning):
            return None
        kept = json_text.change_items(bytes(body.fields["input"]), lambda item: None if _is_reasoning(item) else item)
        return Repair(body.replace({"input": kept}), "encrypted_reasoning")

    def references(self, body: Body) -> list[Reference]:
        """Return what the request refers to, the stored response or conversation that it continues first."""
        return upstream_objects.references(body)

    def made(self, body: Body, answer: bytes) -> list[str]:
        """Return a stored response, and each compacted history."""
        return upstream_objects.made(body, answer)

    def may_repeat(self, body: Body) -> bool:
        """A background response is created even if its request fails."""
        return bytes(body.fields.get("background", b"null")) != b"true"


class Compact(Responses):
    """`POST /v1/responses/compact`: replaces a history by one that its account alone can read."""

    path = "/responses/compact"
    streams = False


class InputTokens(Responses):
    """`POST /v1/responses/input_tokens`: counts, and computes nothing."""

    path = "/responses/input_tokens"
    answer_field = "input_tokens"
    binds = False
    streams = False

    def may_omit_model(self, body: Body) -> bool:
        """Return True: the API requires no model."""
        return True


RESPONSES = Responses()
COMPACT = Compact()
INPUT_TOKENS = InputTokens()


def _is_reasoning(item: bytes | msgspec.Raw) -> bool:
    return upstream_objects.head(item).type == "reasoning"


def _is_empty(added: _Item | None) -> bool:
    """Return whether an item or a part has no content yet; a tool call is content, for its name is."""
    if added is None:
        return False
    is_text = added.type in ("message", "reasoning") or added.type.endswith("_text")
    return is_text and not (added.content or added.summary or added.text)
