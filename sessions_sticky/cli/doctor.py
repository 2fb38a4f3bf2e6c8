"""The subcommand `doctor`."""

from __future__ import annotations

from collections import Counter
from typing import Any

from sessions_sticky.cli.errors import UNHEALTHY, Error
from sessions_sticky.cli.formatting import escape, pluralize
from sessions_sticky.cli.output import Output
from sessions_sticky.queries.doctor import examine
from sessions_sticky.queries.server_info import Finding, Level

STYLES = {Level.OK: "SUCCESS", Level.NOTE: "NOTICE", Level.WARNING: "WARNING", Level.ERROR: "ERROR"}


def doctor(output: Output, **_: Any) -> None:
    """Print the findings, one a line."""
    findings = examine()
    output.print_json([{"findings": [finding._asdict() for finding in findings]}])
    for finding in findings:
        styled = getattr(output.style, STYLES[finding.level])
        output.print(f"{styled(f'{finding.level.upper():<8}')} {_words(finding)}")
    counts = Counter(finding.level for finding in findings)
    errors = pluralize(counts[Level.ERROR], "error")
    output.print(f"{errors}, {pluralize(counts[Level.WARNING], 'warning')}")
    if counts[Level.ERROR]:
        raise Error(f"doctor found {errors}", UNHEALTHY)


def _words(finding: Finding) -> str:
    message = f"{finding.subject}: {finding.message}".rstrip(".").replace("\xa0", " ")  # of numbers and their units
    if not finding.hint:
        return escape(message)
    stop = "" if message.endswith(("?", "!")) else "."
    return escape(f"{message}{stop} {finding.hint.rstrip('.')}")
