"""OpenAI's chat completions, the API of most clients and providers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from sentinel_project.gateway.apis import events, json_text
from sentinel_project.gateway.apis.base import Api, Reference, Stage, require_messages
from sentinel_project.gateway.apis.body import Body
from sentinel_project.gateway.apis.upstream_objects import OPENAI_FILE, file_references
from sessions_sticky.identity.apis import Prompt, chat_prompt

_FINISHED = re.compile(rb'"finish_reason"\s*:\s*"')


class _Choice(msgspec.Struct):
    delta: dict[str, Any] | None = None
    finish_reason: str | None = None
    text: str | None = None


class _Chunk(msgspec.Struct):
    """The fields of a chunk that show whether it contains an answer; https://platform.openai.com/docs/api-reference.

    Other providers send null for those that they leave out: https://github.com/pydantic/pydantic-ai/pull/5170.
    """

    choices: list[_Choice] | None = None
    error: msgspec.Raw = msgspec.Raw(b"null")


_decode_chunk = msgspec.json.Decoder(_Chunk).decode


class ChatCompletions(Api):
    """`POST /v1/chat/completions`."""

    name = "chat"
    path = "/chat/completions"
    answer_field = "choices"
    end_marker = b"[DONE]"
    asks_for_usage = True

    def check(self, body: Body) -> None:
        """Require messages."""
        require_messages(body)

    def prompt(self, body: Mapping[str, Any]) -> Prompt:
        """Read the messages."""
        return chat_prompt(body)

    def stage(self, event: bytes) -> Stage:
        """Read one chunk. A chunk that only names the role, or has no choices (Azure's filter results), is prelude."""
        data = events.data(event)
        if data == b"[DONE]":
            return Stage.END
        if not data:
            return Stage.PRELUDE
        chunk = json_text.read(_decode_chunk, data, None)
        if chunk is None:
            return Stage.CONTENT  # unknown shape: forward it
        if bytes(chunk.error) != b"null" or events.name(event) == b"error":
            return Stage.ERROR
        has_answer = any(
            choice.finish_reason
            or choice.text
            or any(value for key, value in (choice.delta or {}).items() if key != "role")
            for choice in chunk.choices or []
        )
        return Stage.CONTENT if has_answer else Stage.PRELUDE

    def references(self, body: Body) -> list[Reference]:
        """Return a file of the messages."""
        return file_references(body, OPENAI_FILE)

    def may_end_after(self, whole_events: bytes) -> bool:
        """Some providers omit `[DONE]` after the chunk with the `finish_reason`."""
        return _FINISHED.search(whole_events) is not None


CHAT = ChatCompletions()
