"""A request's JSON object. Only the top level is decoded; values keep their bytes."""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from sentinel_project.gateway.apis import json_text
from sentinel_project.gateway.errors import ApiError

MAX_DECODED_BYTES = 64 * 1024
"""Maximum size of a value that `get` decodes; megabytes would block the event loop for seconds."""


class Body:
    """The top-level fields of a request's body, in the client's order.

    `fields` maps each name to the bytes of its value. msgspec limits the nesting to Python's recursion limit while it
    skips over a value, and builds no object for what is inside.
    """

    __slots__ = ("_original", "fields")

    def __init__(self, fields: Mapping[str, msgspec.Raw], original: bytes | None = None) -> None:
        self.fields = fields
        self._original = original

    @classmethod
    def parse(cls, raw: bytes) -> Body:
        """Read a body. Raises `ApiError` 400 when it is not UTF-8, not a JSON object, or names a field twice."""
        try:
            raw.isascii() or raw.decode()
            fields = json_text.decode_fields(raw)
        except msgspec.ValidationError as exc:
            raise ApiError(400, "The request body is not a JSON object", code="invalid_json") from exc
        except (msgspec.DecodeError, UnicodeError, RecursionError) as exc:
            raise not_json(raw, exc) from exc
        try:
            if not _is_compact(raw, fields):
                json_text.locate(raw, fields)
        except json_text.RepeatedName as exc:  # readers disagree on which value counts
            what = "a field" if exc.name is None else f"the field {exc.name!r}"
            message = f"The request body has {what} twice"
            raise ApiError(400, message, param=exc.name, code="duplicate_field") from exc
        return cls(fields, raw)

    def get(self, name: str) -> Any:
        """Return a decoded value; None when it is missing, null, too long to decode here, or cannot be decoded."""
        raw = self.fields.get(name)
        return None if raw is None or len(raw) > MAX_DECODED_BYTES else json_text.read(msgspec.json.decode, raw, None)

    def replace(self, changes: Mapping[str, bytes | None]) -> Body:
        """Return a copy with some values replaced or added, as JSON; None removes a field. Others keep their bytes."""
        fields = dict(self.fields)
        for name, value in changes.items():
            if value is not None:
                fields[name] = msgspec.Raw(value)
            elif name in fields:
                del fields[name]
        return self if fields == self.fields else Body(fields)

    def encode(self) -> bytes:
        """Return the JSON: the client's own bytes when nothing was replaced."""
        if self._original is not None:
            return self._original
        return msgspec.json.encode(self.fields)


_LONE_SURROGATE = re.compile(
    rb"\\u[dD][89abAB]..(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..)\\u[dD][c-fC-F]..", re.DOTALL
)
"""An escape of half a character, as text that was cut within an emoji has it."""


def not_json(raw: bytes, error: Exception) -> ApiError:
    """Return the error for a body that `error` reports as no JSON, with what is wrong."""
    return ApiError(400, _problem(raw, error), code="invalid_json")


def _problem(raw: bytes, error: Exception) -> str:
    if not raw.strip():
        return "The request body is not JSON: it is empty"
    if raw.startswith(codecs.BOM_UTF8):
        return "The request body is not JSON: it begins with a byte order mark, which RFC 8259 forbids"
    if isinstance(error, UnicodeDecodeError):
        return f"The request body is not UTF-8: byte 0x{raw[error.start]:02x} at position {error.start}"
    if isinstance(error, RecursionError):
        return "The request body is not supported: it is nested too deeply"
    if (found := _LONE_SURROGATE.search(raw)) is not None:
        half = found[0].decode(errors="replace")
        return f"The request body is not JSON: {half} at position {found.start()} is half of a surrogate pair"
    reason = "it ends too early" if str(error) == "Input data was truncated" else str(error)
    return f"The request body is not JSON: {reason}"


def _is_compact(raw: bytes, fields: Mapping[str, msgspec.Raw]) -> bool:
    """Return whether an object's text is as short as its fields allow: then no name in it is repeated.

    It has two quotes, a colon and a comma or brace for each field. Repeated or escaped names and white space only add.
    """
    names = "".join(fields).encode(errors="surrogatepass")
    return len(raw) == 1 + 4 * len(fields) + len(names) + sum(map(len, fields.values()))
