"""Read and edit JSON text; unchanged parts keep their bytes, white space and repeated names included.

The text must be valid JSON without white space around it, as the values of `msgspec.Raw` are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import msgspec

_KEY = re.compile(rb'[ \t\r\n]*,?[ \t\r\n]*("(?:[^"\\]|\\.)*")[ \t\r\n]*:[ \t\r\n]*')
"""A name, with all that stands between its value and the one before."""
_TO_ITEM = re.compile(rb"[ \t\r\n,]*")
T = TypeVar("T")
D = TypeVar("D")
_decode_key = msgspec.json.Decoder(str).decode
decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
decode_items = msgspec.json.Decoder(list[msgspec.Raw]).decode

MAX_COMMAS = 300_000
"""Limit for lists that are decoded; a million tokens need less. A hostile list of 32 MB would take seconds."""


def read(decode: Callable[[bytes | msgspec.Raw], T], text: bytes | msgspec.Raw, default: D) -> T | D:
    """Return JSON text decoded; `default` when it is not valid, of another shape, or too deep."""
    try:
        return decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return default


class RepeatedName(ValueError):
    """An object has a name twice, so that its values cannot be located. `name` is None when it is not known."""

    def __init__(self, name: str | None) -> None:
        super().__init__(name)
        self.name = name


def locate(raw: bytes, fields: Mapping[str, msgspec.Raw]) -> dict[str, slice]:
    """Return where in an object's text the value of each field is. Raises `RepeatedName`.

    `fields` is the decoded object. For a repeated name it has one value, which does not match the text.
    """
    found = {}
    at, match_key = raw.index(b"{") + 1, _KEY.match
    for name, value in fields.items():
        match = match_key(raw, at)
        start = match.end() if match else 0
        if match is None or _decode_key(match[1]) != name or not raw.startswith(value, start):
            raise RepeatedName(name)
        at = start + len(value)
        found[name] = slice(start, at)
    if match_key(raw, at):
        raise RepeatedName(None)
    return found


def change_field(raw: bytes, name: str, change: Callable[[bytes], bytes | None]) -> bytes | None:
    """Return an object with one field's value changed; None when `change` returns None for it.

    Returns anything else unchanged: other values, an object without the field, ambiguous text.
    """
    try:
        where = locate(raw, decode_fields(raw)).get(name)
    except (RepeatedName, msgspec.MsgspecError, UnicodeError):
        return raw
    if where is None:
        return raw
    value = change(raw[where])
    return None if value is None else raw[: where.start] + value + raw[where.stop :]


def change_items(raw: bytes, change: Callable[[bytes], bytes | None]) -> bytes:
    """Return a list with each item changed, and without those for which `change` returns None."""
    items = list(_locate_items(raw))
    if not items:
        return raw
    changed, separator = bytearray(raw[: items[0].start]), b""
    ends = [*(following.start for following in items[1:]), items[-1].stop]
    for item, end in zip(items, ends, strict=True):
        value = change(raw[item])
        if value is not None:
            changed += separator + value
            separator = raw[item.stop : end]
    return bytes(changed + raw[items[-1].stop :])


def _locate_items(raw: bytes) -> Iterator[slice]:
    at = 1
    for item in decode_items(raw):
        start = _TO_ITEM.match(raw, at).end()  # type: ignore[union-attr]  # it always matches
        at = start + len(item)
        yield slice(start, at)
