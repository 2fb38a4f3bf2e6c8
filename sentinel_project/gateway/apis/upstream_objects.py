"""Objects that exist at one provider only: references in requests, and new ones in answers.

Responses have the most kinds; chat completions and Messages refer to files and containers. Bytes are searched before
anything is decoded, for an input may be megabytes. A field's name inside a text is not found:
its quotes are escaped.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from itertools import chain, islice

import msgspec

from sentinel_project.gateway.apis import events, json_text
from sentinel_project.gateway.apis.base import Reference
from sentinel_project.gateway.apis.body import Body
from sentinel_project.gateway.errors import ApiError

MAX_REFERENCES = 8
"""How many objects of one request are looked up; all are at the same provider, or no provider could answer."""
MAX_SEARCHED = 1_000
"""How many mentions of objects are read to find `MAX_REFERENCES` of them."""
MAX_ITEMS = 20_000
"""Maximum number of items of an input that is read."""

_COMPACTED = ("compaction", "compaction_summary")
_MARKS = (b'"compaction', b'"item_reference"')
"""Every item that refers to another contains one of these, or is reasoning that is not encrypted."""
_REASONING = b'"reasoning"'
_ENCRYPTED = re.compile(rb'"encrypted_content"\s*:\s*"[^"]')
_VALUE = rb'"\s*:\s*(?:"([^"\\]{1,256})"|\[([^\[\]{}\\]{1,4096})\])'
_IDS = {
    "File": re.compile(rb'"file_ids?' + _VALUE),
    "Container": re.compile(rb'"container' + _VALUE),
    "Vector store": re.compile(rb'"vector_store_ids' + _VALUE),
}
"""Separate patterns: a search for a fixed beginning is fast."""
_MADE = re.compile(rb'"(?:response|conversation|compaction(?:_summary)?)"')
"""Not in the deltas of a stream, whose types are `response.` and more."""
_STRING = re.compile(rb'"([^"\\]{1,256})"')
OPENAI_FILE = re.compile(rb'"file_id"\s*:\s*"([^"\\]{1,256})"')
ANTHROPIC_FILE = re.compile(rb'"file_id"\s*:\s*"(file_[A-Za-z0-9_-]{1,250})"')
"""Only with Anthropic's prefix: the input of a tool is an object, and may have a `file_id` of its own."""


class Head(msgspec.Struct):
    """The fields that identify an item."""

    type: str | None = None
    id: str | None = None
    encrypted_content: str | None = None
    content: msgspec.Raw = msgspec.Raw(b"null")

    @property
    def is_stored_reasoning(self) -> bool:
        """Whether it is reasoning of which only the id is sent: other items carry theirs, encrypted or as text."""
        has_own = self.encrypted_content or bytes(self.content) not in (b"null", b"[]")
        return self.type == "reasoning" and bool(self.id) and not has_own


class _Made(msgspec.Struct):
    """A response, a conversation or a compaction; `store` None: as the request says."""

    id: str = ""
    object: str = ""
    store: bool | None = None
    output: list[msgspec.Raw] = []


class _Answer(_Made):
    """A plain answer, or an event with a response or an item."""

    response: _Made | None = None
    item: msgspec.Raw = msgspec.Raw(b"{}")


_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_head = msgspec.json.Decoder(Head).decode


def references(body: Body) -> list[Reference]:
    """Return what a request refers to, the stored response or conversation that it continues first."""
    found: dict[str, Reference] = {}
    for reference in chain(_continued(body), islice(_referred(body), MAX_SEARCHED)):
        found.setdefault(reference.id, reference)
    return list(islice(found.values(), MAX_REFERENCES))


def file_references(body: Body, pattern: re.Pattern[bytes]) -> list[Reference]:
    """Return the first file of the messages: all are at one provider, or none could answer."""
    found = pattern.search(body.fields.get("messages", b""))
    return [] if found is None else [_refer("File", found[1].decode(), "messages")]


def container_references(body: Body) -> list[Reference]:
    """Return the container that the request continues, which Messages names by its id or an object with one."""
    container = body.get("container")
    if isinstance(container, dict):
        container = container.get("id")
    return [_refer("Container", container, "container")] if isinstance(container, str) else []


def made(body: Body, answer: bytes) -> list[str]:
    """Return the ids of a stored response, a conversation and each compacted history in a plain answer or an event."""
    if not _MADE.search(answer):
        return []
    read = json_text.read(_decode_answer, events.data(answer) or answer, _Answer())
    response = read.response or read
    is_stored = _asks_to_store(body) if response.store is None else response.store
    kept = ("conversation", "response") if is_stored else ("conversation",)
    stored = [response.id] if response.id and response.object in kept else []
    heads = [head(raw) for raw in (read.item, *response.output)]
    return stored + [_compacted_id(each) for each in heads if each.type in _COMPACTED]


def items(body: Body) -> list[msgspec.Raw]:
    """Return the undecoded items of a request's input; none for text and for a list that is too long."""
    given = bytes(body.fields.get("input", b""))
    is_read = given.startswith(b"[") and given.count(b",") <= json_text.MAX_COMMAS
    found = json_text.read(json_text.decode_items, given, []) if is_read else []
    return found if len(found) <= MAX_ITEMS else []


def head(raw: bytes | msgspec.Raw) -> Head:
    """Return the head of an item; an empty one if it cannot be read."""
    return json_text.read(_decode_head, raw, Head())


def not_found(kind: str, object_id: str) -> ApiError:
    """Return OpenAI's error for an object that does not exist."""
    return ApiError(404, f"{kind} with id '{object_id}' not found.")


def _continued(body: Body) -> Iterator[Reference]:
    previous, conversation = body.get("previous_response_id"), body.get("conversation")
    if isinstance(previous, str):
        message, field = f"Previous response with id '{previous}' not found.", "previous_response_id"
        unknown = ApiError(400, message, param=field, code="previous_response_not_found")
        yield Reference(previous, f"body.{field}", unknown, continues=True)
    if isinstance(conversation, dict):
        conversation = conversation.get("id")
    if isinstance(conversation, str):
        yield Reference(conversation, "body.conversation", not_found("Conversation", conversation), continues=True)


def _referred(body: Body) -> Iterator[Reference]:
    """Yield the compacted histories, stored items, files, containers and vector stores."""
    given = bytes(body.fields.get("input", b""))
    reasoning = given.count(_REASONING) if _asks_to_store(body) else 0  # what is not stored is at no provider
    has_bare_reasoning = reasoning > 0 and reasoning > len(_ENCRYPTED.findall(given))
    if has_bare_reasoning or any(mark in given for mark in _MARKS):
        for item in map(head, items(body)):
            if item.type in _COMPACTED:
                unknown = not_found("Item", str(item.id))
                yield Reference(_compacted_id(item), "body.input", unknown, is_account_wide=True)
            elif item.type == "item_reference" or (has_bare_reasoning and item.is_stored_reasoning):
                yield _refer("Item", str(item.id), "input")
    for field, value in (("input", given), ("tools", bytes(body.fields.get("tools", b"")))):
        for kind, pattern in _IDS.items():
            for match in pattern.finditer(value):
                for raw in [match[1]] if match[1] else _STRING.findall(match[2]):
                    yield _refer(kind, raw.decode(), field)


def _asks_to_store(body: Body) -> bool:
    return bytes(body.fields.get("store", b"null")) != b"false"


def _refer(kind: str, object_id: str, field: str) -> Reference:
    """Return a reference to an object of which the gateway does not know where it was made."""
    return Reference(object_id, f"body.{field}", not_found(kind, object_id), is_kept=False)


def _compacted_id(item: Head) -> str:
    """Return an id for a compacted history: clients need not send the provider's back."""
    return f"compaction:{hashlib.sha256((item.encrypted_content or '').encode()).hexdigest()}"
