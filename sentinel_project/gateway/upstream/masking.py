"""Keeping the gateway's key for a provider from clients, to whom a provider may repeat it.

Pure. Use `mask` on text and on decoded JSON, `mask_body` on the bytes of an answer that is passed on undecoded.
"""

from __future__ import annotations

import html
import re
from functools import lru_cache
from typing import Any

MASK = "***"
MIN_BODY_SECRET_LENGTH = 20
"""Characters of a key that is looked for in answers: placeholders such as `EMPTY` or `not-needed` are words of answers,
the keys of all hosted providers are longer."""


def mask(value: Any, secret: str | None) -> Any:
    """Return text, or decoded JSON, with `secret` replaced in every string, however often it was escaped."""
    if not secret:
        return value
    match value:
        case str():
            return _pattern(secret).sub(MASK, value)
        case list():
            return [mask(each, secret) for each in value]
        case dict():
            return {mask(name, secret): mask(each, secret) for name, each in value.items()}
    return value


def mask_body(body: bytes, secret: str | None) -> bytes:
    """Return whole JSON texts or events with `secret` replaced, if it is long enough to be one."""
    if not secret or len(secret) < MIN_BODY_SECRET_LENGTH:
        return body
    # The pattern takes 20 ns a byte. Without the longest word of the key its letters have to be escaped themselves.
    if _longest_word(secret) not in body and b"\\u00" not in body:
        return body
    return _pattern(secret).sub(MASK, body.decode("latin-1")).encode("latin-1")


@lru_cache(maxsize=128)
def _longest_word(secret: str) -> bytes:
    return max(re.split("[^A-Za-z0-9]", secret), key=len).encode()


@lru_cache(maxsize=128)
def _pattern(secret: str) -> re.Pattern[str]:
    return re.compile("".join(map(_spellings, secret)))


def _spellings(character: str) -> str:
    """Return a pattern of a printable ASCII character, plain and as JSON, URLs, HTML and programs escape it.

    Numbers of repetitions are bounded: a provider must not make the search slow.
    """
    code = ord(character)
    digits = f"(?i:{code:02x})"
    patterns = [
        rf"\\{{0,8}}{re.escape(character)}",
        rf"\\{{1,8}}(?:u00|x|u\{{0{{0,4}}){digits}\}}?",
        f"%(?:25){{0,3}}{digits}",
        f"&(?:amp;){{0,3}}#(?:0{{0,4}}{code}|[xX]0{{0,4}}{digits});?",
    ]
    if (named := html.escape(character)) != character:
        patterns.insert(0, f"&(?:amp;){{0,3}}{named[1:]}")
    return f"(?:{'|'.join(patterns)})"
