"""The APIs whose conversations are recognized by their content: how each has the system prompt and the turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from sessions_sticky.identity.sources import decode

_MAX_COMMAS = 1_000_000
"""Maximum number of commas in a list of turns or parts; longer lists, which would take seconds, have no fingerprint."""

_LIST = msgspec.json.Decoder(list[msgspec.Raw])
_TEXT_OR_LIST = msgspec.json.Decoder(str | list[msgspec.Raw])

Prompt = tuple[Sequence[Any], Sequence[Any]]
"""The contents of the system prompt, and the turns: objects with a `role` (`user`, `assistant`) and a `content`."""


class ContentApi(Protocol):
    """An API whose conversations are recognized by their content."""

    @property
    def name(self) -> str:
        """Its name for `identify` and for `manage.py sessions identify --api`."""

    @property
    def path(self) -> str:
        """A part of its request paths. The first API whose `path` is in the path of a request is used."""

    def prompt(self, body: Mapping[str, Any], /) -> Prompt | None:
        """Return the system prompt and the turns; None if the content is not to be recognized.

        Translate other names of roles and contents: all APIs give one conversation one id. `msgspec.MsgspecError`,
        `TypeError` and `ValueError` count as None.
        """


def chat_prompt(body: Mapping[str, Any]) -> Prompt:
    """Read a chat completion request, whose system prompt is among its messages."""
    return (), read_list(body.get("messages"))


def messages_prompt(body: Mapping[str, Any]) -> Prompt:
    """Read a request of Anthropic's Messages."""
    return [body.get("system")], read_list(body.get("messages"))


def responses_prompt(body: Mapping[str, Any]) -> Prompt:
    """Read a request of Responses; without turns if its beginning is stored at the provider."""
    if any(decode(body.get(name)) is not None for name in ("previous_response_id", "conversation")):
        return (), ()
    items = body.get("input")
    if isinstance(items, msgspec.Raw):
        items = _TEXT_OR_LIST.decode(items)
    if isinstance(items, str):
        items = [{"role": "user", "content": items}]
    return [body.get("instructions")], read_list(items)


def read_list(value: Any) -> Sequence[Any]:
    """Return a list of turns or parts, undecoded if it was; raise `ValueError` or `TypeError` for anything else."""
    if isinstance(value, msgspec.Raw):
        if bytes(value).count(b",") > _MAX_COMMAS:
            raise ValueError("the list is too long")
        return _LIST.decode(value)
    if not isinstance(value, list):
        raise TypeError("turns are a list")
    return value


def _no_prompt(body: Mapping[str, Any]) -> None:
    """Return None: requests of this API are not recognized by their content."""


class _Api(NamedTuple):
    name: str
    path: str
    prompt: Callable[[Mapping[str, Any]], Prompt | None]


APIS: tuple[ContentApi, ...] = (
    _Api("chat", "/chat/completions", chat_prompt),
    _Api("responses", "/responses", responses_prompt),
    _Api("messages", "/messages", messages_prompt),
    _Api("completions", "/completions", _no_prompt),
    _Api("embeddings", "/embeddings", _no_prompt),
)
"""The APIs that `identify` knows by name."""
