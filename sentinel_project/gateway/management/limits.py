"""Options for the limits of API keys."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Mapping
from typing import Any

from django.core.management.base import CommandParser

from sentinel_project.gateway.models import MAX_LIMIT, ApiKey


def add_limits(parser: CommandParser) -> None:
    """Add an option for each limit."""
    for name in ApiKey.LIMITS:
        text = f"limit of {name.replace('_', ' ')}, or none"
        parser.add_argument(f"--{name.replace('_', '-')}", type=_limit, default=..., metavar="N", help=text)


def limits_in(options: Mapping[str, Any]) -> dict[str, int | None]:
    """Return the limits that were given; None lifts one."""
    return {name: options[name] for name in ApiKey.LIMITS if options[name] is not ...}


def _limit(text: str) -> int | None:
    if text == "none":
        return None
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MAX_LIMIT):
        raise ArgumentTypeError(f"must be a whole number from 1 to {MAX_LIMIT} or none, not {text!r}")
    return int(text)
