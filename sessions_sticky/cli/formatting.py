"""Words and numbers for people; pure."""

from __future__ import annotations

from datetime import UTC, datetime

from sessions_sticky.queries.filters import Filters


def visible(text: str) -> str:
    """Return the text with escapes for all that a terminal would obey or hide: controls, bidi overrides, line ends."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def cut(text: str, width: int) -> str:
    """Return the text in at most `width` characters."""
    return text if len(text) <= width else f"{text[: width - 1]}…"


def moment(unix_seconds: int) -> str:
    """Return a time as `2026-11-22T19:12:07Z`; the number itself where there is no such date."""
    try:
        return datetime.fromtimestamp(unix_seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return str(unix_seconds)


def duration(seconds: float | None) -> str:
    """Return a span as `23:59:07`, a dash for None."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def several(number: int, noun: str = "conversation") -> str:
    """Return `12,345 conversations`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def place(provider: str, model: str | None) -> str:
    """Return where a conversation is, or goes to."""
    return visible(provider if model is None else f"{provider}, model {model}")


def described(filters: Filters) -> str:
    """Return which conversations are meant: `of provider a, owner b`."""
    names = {"provider": filters.provider, "model": filters.model, "owner": filters.external_id}
    given = ", ".join(f"{name} {visible(value)}" for name, value in names.items() if value is not None)
    return f"of {given}" if given else "of all providers"
