"""Format words and numbers; performs no I/O."""

from __future__ import annotations

from sessions_sticky.queries.filters import Filters
from sessions_sticky.queries.server_info import Finding
from sessions_sticky.queries.times import format_any, format_datetime, format_instant
from sessions_sticky.turns import MILLION, SpillOver, TurnTotals


def escape(text: str) -> str:
    """Escape characters that a terminal would interpret or hide: controls, bidi overrides, line ends."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def truncate(text: str, width: int) -> str:
    """Truncate the text to `width` characters."""
    return text if len(text) <= width else f"{text[: width - 1]}…"


def format_time(unix_seconds: int) -> str:
    """Return a time as `2026-11-22T19:12:07Z`, or the number if there is no such date."""
    return format_any(unix_seconds) or str(unix_seconds)


def format_duration(seconds: float | None) -> str:
    """Return a duration as `23:59:07`, a dash for None."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def format_share(part: int, whole: int) -> str:
    """Return a part as `84.6%`, a dash where there is no whole."""
    return f"{part / whole:.1%}" if whole else "-"


def describe_totals(totals: TurnTotals) -> str:
    """Return the totals of a trail as a sentence."""
    return "; ".join(
        [
            f"{pluralize(totals.turns, 'turn')}, {totals.unknown:,} without usage",
            f"{totals.input:,} input tokens, {format_share(totals.read, totals.input)} from cache",
            f"saved {totals.saved / MILLION:,.4f}",
            f"moves lost {totals.lost:,} tokens ({totals.lost_money / MILLION:,.4f})",
        ]
    )


def describe_spill_over(spill_over: SpillOver) -> str:
    """Return a spill-over as a sentence."""
    provider, bound, first, last, turns, reason = spill_over
    times = " to ".join(map(format_datetime, dict.fromkeys((first, last))))
    why = f" ({reason})" if reason else ""
    return escape(f"{pluralize(turns, 'turn')} answered by {provider} instead of {bound}{why}: {times}")


def describe_finding(finding: Finding) -> str:
    """Return a finding of the doctor and its hint as sentences."""
    message = f"{finding.subject}: {finding.message}".rstrip(".").replace("\xa0", " ")  # of numbers and their units
    if not finding.hint:
        return escape(message)
    stop = "" if message.endswith(("?", "!")) else "."
    return escape(f"{message}{stop} {finding.hint.rstrip('.')}")


def pluralize(number: int, noun: str = "conversation") -> str:
    """Return `12,345 conversations`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def format_route(provider: str, model: str | None) -> str:
    """Return provider and model as text."""
    return escape(provider if model is None else f"{provider}, model {model}")


def describe_filters(filters: Filters) -> str:
    """Return the filters as text: `of provider a, owner b, idle for 12:00:00`."""
    names = {"provider": filters.provider, "model": filters.model, "owner": filters.owner}
    given = ", ".join(f"{name} {escape(value)}" for name, value in names.items() if value is not None)
    return f"of {given or 'all providers'}{describe_conditions(filters)}"


def describe_conditions(filters: Filters) -> str:
    """Return the conditions as text that follows other words."""
    texts = {
        "idle for": None if filters.idle_for is None else format_duration(filters.idle_for),
        "created before": _instant(filters.created_before),
        "moved from": filters.moved_from,
        "moved since": _instant(filters.moved_since),
        "moved by operation": filters.operation,
    }
    return "".join(f", {name} {escape(text)}" for name, text in texts.items() if text is not None)


def _instant(unix_seconds: float | None) -> str | None:
    return None if unix_seconds is None else format_instant(unix_seconds)
