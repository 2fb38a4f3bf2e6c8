"""Mask a provider's secrets (`Provider.secrets`) in its answers to clients; performs no I/O.

Use `mask` on text and on decoded JSON, `mask_body` on the bytes of an answer that is passed on undecoded.
"""

from __future__ import annotations

import html
import re
from functools import lru_cache
from typing import Any

MASK = "***"
MIN_BODY_SECRET_LENGTH = 20
"""Characters of a secret that is looked for in answers: placeholders such as `EMPTY` or `not-needed` are words of
answers, the keys of all hosted providers are longer."""


def mask(value: Any, secrets: tuple[str, ...]) -> Any:
    """Return text, or decoded JSON, with secrets replaced in every string, however often they were escaped."""
    if not secrets:
        return value
    match value:
        case str():
            return _pattern(secrets).sub(MASK, value)
        case list():
            return [mask(each, secrets) for each in value]
        case dict():
            return {mask(name, secrets): mask(each, secrets) for name, each in value.items()}
    return value


def mask_body(body: bytes, secrets: tuple[str, ...]) -> bytes:
    """Return whole JSON texts or events with those secrets replaced that are long enough to be secret."""
    words = _longest_words(secrets)
    # The pattern takes 20 ns a byte. Without a secret's longest word its letters have to be escaped themselves.
    if not words or (b"\\u00" not in body and not any(word in body for word in words)):
        return body
    long = tuple(secret for secret in secrets if len(secret) >= MIN_BODY_SECRET_LENGTH)
    return _pattern(long).sub(MASK, body.decode("latin-1")).encode("latin-1")


@lru_cache(maxsize=128)
def _longest_words(secrets: tuple[str, ...]) -> tuple[bytes, ...]:
    long = (secret for secret in secrets if len(secret) >= MIN_BODY_SECRET_LENGTH)
    return tuple(max(re.split("[^A-Za-z0-9]", secret), key=len).encode() for secret in long)


@lru_cache(maxsize=128)
def _pattern(secrets: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted(secrets, key=len, reverse=True)
    return re.compile("|".join("".join(map(_spellings, secret)) for secret in longest_first))


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
