"""Texts and token counts of the echo. Unknown content is read as empty text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

_WORD = re.compile(r"\s*\S+|\s+$")


def reply(provider: str, model: Any, heard: str) -> str:
    """Return the text of an answer."""
    return f"{provider} ({model}) heard: {heard}"


def words(text: str) -> list[str]:
    """Split a text into the pieces of a stream: words with the space before them."""
    return _WORD.findall(text)


def texts(content: Any) -> Iterator[str]:
    """Yield the texts of a message's content: a string, or a list of parts of which some have a `text`."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        yield from (part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str))


def contents(messages: Any) -> list[Any]:
    """Return the content of each message; None for a message without content."""
    return [message.get("content") if isinstance(message, dict) else None for message in messages]


def count_words(messages: Any) -> int:
    """Return how many words all messages have: the echo has no tokens."""
    return sum(len(text.split()) for content in contents(messages) for text in texts(content))
