"""The subcommand `doctor`."""

from __future__ import annotations

from collections import Counter
from typing import Any

from django.core.management.color import color_style

from sessions_sticky.cli.errors import UNHEALTHY, Error
from sessions_sticky.cli.formatting import several, visible
from sessions_sticky.cli.output import Screen
from sessions_sticky.queries.doctor import examine
from sessions_sticky.queries.server_info import Finding, Level

STYLES = {Level.OK: "SUCCESS", Level.NOTE: "NOTICE", Level.WARNING: "WARNING", Level.ERROR: "ERROR"}


def doctor(screen: Screen, **_: Any) -> None:
    """Print the findings, one a line."""
    findings = examine()
    screen.documents([{"findings": [finding._asdict() for finding in findings]}])
    for finding in findings:
        screen.say(f"{_level(screen, finding)} {_words(finding)}")
    counts = Counter(finding.level for finding in findings)
    errors = several(counts[Level.ERROR], "error")
    screen.say(f"{errors}, {several(counts[Level.WARNING], 'warning')}")
    if counts[Level.ERROR]:
        raise Error(f"doctor found {errors}", UNHEALTHY)


def _level(screen: Screen, finding: Finding) -> str:
    text = f"{finding.level.upper():<8}"
    if screen.no_color or not screen.out.isatty():
        return text
    styled: str = getattr(color_style(), STYLES[finding.level])(text)
    return styled


def _words(finding: Finding) -> str:
    sentences = [sentence.rstrip(".") for sentence in (f"{finding.subject}: {finding.message}", finding.hint)]
    return visible(". ".join(filter(None, sentences)))
