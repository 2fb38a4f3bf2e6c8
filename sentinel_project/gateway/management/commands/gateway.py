"""`manage.py gateway providers [ACTION NAME]`."""

from __future__ import annotations

from datetime import datetime
from json import dumps
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from sentinel_project.gateway.provider_status import ProviderStatus, as_data, format_time, statuses
from sentinel_project.gateway.providers import actions
from sentinel_project.gateway.providers.actions import Action, ControlsUnavailable, UnknownProvider
from sessions_sticky.cli.errors import UNREACHABLE, WRONG_USAGE
from sessions_sticky.cli.mutations import actor
from sessions_sticky.cli.output import Output, Table

TITLES = ("provider", "state", "since (UTC)", "error", "req/min", "err/min", "p50 ms", "p95 ms", "weight", "flags")


class Command(BaseCommand):
    """Shows and changes the state of the providers."""

    help = (
        "Show the state of the providers, or change it in all workers: drain (no new conversations), try (end the"
        " cooldown), hold (conversations do not move), release (end drain and hold)."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the arguments."""
        parser.add_argument("subject", choices=["providers"])
        parser.add_argument("action", nargs="?", choices=[str(action) for action in Action])
        parser.add_argument("name", nargs="?", help="the name of the provider to act on")
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, action: str | None, name: str | None, json: bool, **options: Any) -> None:
        """Act if asked to, then print all providers."""
        if action is not None:
            self._act(Action(action), name)
        found = statuses()
        if json:
            rows = {"providers": [as_data(each) for each in found]}
            self.stdout.write(dumps(rows, default=datetime.isoformat))
        else:
            out = Output(self.stdout, self.stderr)  # type: ignore[arg-type]  # a wrapper of the stream
            Table(out, *TITLES, fold=True).add([_row(each) for each in found])

    def _act(self, action: Action, name: str | None) -> None:
        if name is None:
            raise CommandError(f"{action} needs the name of a provider", returncode=WRONG_USAGE)
        try:
            actions.act(name, action, by=actor())
        except UnknownProvider as exc:
            raise CommandError(str(exc), returncode=WRONG_USAGE) from exc
        except ControlsUnavailable as exc:
            raise CommandError(str(exc), returncode=UNREACHABLE) from exc


def _row(each: ProviderStatus) -> tuple[str, ...]:
    figures = each.figures
    flags = [name for name, is_set in (("drain", not each.takes_new), ("hold", each.is_held)) if is_set]
    numbers = ["-"] * 4
    if figures is not None:
        rates = (figures.requests_per_minute, figures.errors_per_minute)
        times = (figures.first_byte_p50_ms, figures.first_byte_p95_ms)
        numbers = [f"{rate:.1f}" for rate in rates] + ["-" if time is None else str(time) for time in times]
    since = "-" if each.failing_since is None else format_time(each.failing_since)
    weight = f"{each.weight:g} ({each.share:.0%})"
    return each.provider.name, str(each.state), since, each.error or "-", *numbers, weight, ", ".join(flags) or "-"
