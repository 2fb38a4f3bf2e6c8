"""Read the environment; an invalid value ends the program with one line instead of a traceback."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from sessions_sticky.setting_values import ALLOWED_TTL, parse_ttl_seconds

T = TypeVar("T")

_SPLIT_RIGHT = re.compile(r"[A-Za-z0-9+.-]+://([^/?#@]*@)?[^@]*")
"""A URL without an `@` in its path or query."""
YES, NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def read(name: str, parse: Callable[[str], T], *, default: T, allowed: str | None = None) -> T:
    """Return variable `name` as read by `parse`, or `default` when it is not set.

    When `parse` raises `ValueError` the program ends with one line: the name, the value and what is `allowed`, or the
    error's message if that is None.
    """
    text = os.environ.get(name)
    if text is None:
        return default
    try:
        return parse(text)
    except ValueError as exc:
        raise SystemExit(f"{name} must be {allowed}, not {text!r}" if allowed else f"Invalid {name}: {exc}") from None


def read_url(name: str, parse: Callable[[str], T], *, default: str, allowed: str, shows_reason: bool = False) -> T:
    """Like `read`, for URLs, which may contain a password: the message only shows the scheme.

    `shows_reason`: it also has the text of `parse`'s `ValueError`, which names parts of the URL, but never those before
    an `@`. It is left out where a password has characters that end the host's part of a URL.
    """
    url = os.environ.get(name, default)
    try:
        return parse(url)
    except Exception as exc:  # URL parsers raise different errors
        scheme = re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", url)
        is_shown = shows_reason and isinstance(exc, ValueError) and _SPLIT_RIGHT.fullmatch(url)
        reason = f": {exc}" if is_shown else ""
        raise SystemExit(f"{name} must be {allowed}, not {scheme[0] if scheme else ''}...{reason}") from None


def folder(name: str, *, default: Path) -> Path:
    """Return variable `name` as a directory, created for its owner alone if missing."""
    path = read(name, Path, default=default).resolve()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise SystemExit(f"{name} must be a directory that can be created, not {str(path)!r}: {exc.strerror}") from None
    return path


def boolean(name: str, *, default: bool) -> bool:
    """Return variable `name` as a truth value."""
    value = read(name, lambda text: (*YES, *NO).index(text.lower()), default=-1, allowed="1 or 0, true or false")
    return default if value < 0 else value < len(YES)


def number(name: str, *, default: int, least: int, most: int) -> int:
    """Return variable `name` as a whole number from `least` to `most`."""

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
            raise ValueError
        return int(text)

    return read(name, parse, default=default, allowed=f"a whole number from {least} to {most}")


def ttl_seconds(name: str, *, default: int) -> int:
    """Return variable `name` as a time to live."""
    return read(name, parse_ttl_seconds, default=default, allowed=ALLOWED_TTL)


def choice(name: str, options: tuple[str, ...], *, default: str) -> str:
    """Return variable `name`, one of `options`."""
    return read(name, lambda text: options[options.index(text)], default=default, allowed=" or ".join(options))


def items(name: str, *, default: Sequence[str], pattern: str, allowed: str) -> list[str]:
    """Return variable `name`, a list with commas between its items, each of which matches `pattern`."""

    def parse(text: str) -> list[str]:
        found = [item.strip() for item in text.split(",") if item.strip()]
        if not found or not all(re.fullmatch(pattern, item) for item in found):
            raise ValueError
        return found

    return read(name, parse, default=list(default), allowed=allowed)
