"""Files and containers in chat completions and Messages, which exist at the provider where they were uploaded or made.

Bytes are searched before anything is decoded, for messages may be megabytes. A field's name inside a text is not found:
its quotes are escaped.
"""

from __future__ import annotations

import re

from sentinel_project.gateway.apis.base import Reference
from sentinel_project.gateway.apis.body import Body
from sentinel_project.gateway.apis.response_objects import not_found

OPENAI_FILE = re.compile(rb'"file_id"\s*:\s*"([^"\\]{1,256})"')
ANTHROPIC_FILE = re.compile(rb'"file_id"\s*:\s*"(file_[A-Za-z0-9_-]{1,250})"')
"""Only with Anthropic's prefix: the input of a tool is an object that may have its own `file_id`."""


def file_references(body: Body, pattern: re.Pattern[bytes]) -> list[Reference]:
    """Return the first file of the messages: all are at one provider, or none could answer."""
    found = pattern.search(body.fields.get("messages", b""))
    return [] if found is None else [_reference("File", found[1].decode(), "body.messages")]


def container_references(body: Body) -> list[Reference]:
    """Return the container that the request continues, which Messages names by its id or an object with one."""
    container = body.get("container")
    if isinstance(container, dict):
        container = container.get("id")
    return [_reference("Container", container, "body.container")] if isinstance(container, str) else []


def _reference(kind: str, object_id: str, source: str) -> Reference:
    return Reference(object_id, source, not_found(kind, object_id), is_kept=False)
