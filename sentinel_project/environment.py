"""Reading the environment: a value that cannot be used stops the start with one line, not with a traceback."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import urlsplit

T = TypeVar("T")

YES, NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def read(name: str, parse: Callable[[str], T], *, default: T, allowed: str) -> T:
    """Return variable `name` as read by `parse`, or `default` when it is not set.

    When `parse` raises `ValueError` the program ends, saying the name, the value and what is `allowed`.
    """
    text = os.environ.get(name)
    if text is None:
        return default
    try:
        return parse(text)
    except ValueError:
        raise SystemExit(f"Invalid {name}: {text!r}; allowed is {allowed}") from None


def read_url(name: str, parse: Callable[[str], T], *, default: str, allowed: str) -> T:
    """As `read`, for URLs: they may hold a password, so the message shows the scheme alone."""
    url = os.environ.get(name, default)
    try:
        return parse(url)
    except Exception:  # each URL parser has errors of its own
        raise SystemExit(f"Invalid {name}: {urlsplit(url).scheme}://...; allowed is {allowed}") from None


def boolean(name: str, *, default: bool) -> bool:
    """Return variable `name` as a truth value."""
    value = read(name, lambda text: (*YES, *NO).index(text.lower()), default=-1, allowed="1 or 0, true or false")
    return default if value < 0 else value < len(YES)


def number(name: str, *, default: int, least: int, most: int) -> int:
    """Return variable `name` as a whole number from `least` to `most`."""

    def parse(text: str) -> int:
        value = int(text)
        if not least <= value <= most:
            raise ValueError
        return value

    return read(name, parse, default=default, allowed=f"a whole number from {least} to {most}")


def choice(name: str, options: tuple[str, ...], *, default: str) -> str:
    """Return variable `name`, one of `options`."""
    return read(name, lambda text: options[options.index(text)], default=default, allowed=" or ".join(options))


def items(name: str, *, default: list[str]) -> list[str]:
    """Return variable `name`, a list with commas between its items."""
    return read(name, lambda text: [item.strip() for item in text.split(",") if item.strip()], default=default, allowed="")
