"""`manage.py apikeys list|limit|pause|resume|revoke`."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError

from sentinel_project.gateway.management.limits import add_limits, limits_in
from sentinel_project.gateway.models import ApiKey, ApiKeyQuerySet
from sessions_sticky.cli.output import Output, Table

CHANGES = {
    "limit": "set or lift limits",
    "pause": "refuse requests until the key is resumed",
    "resume": "let a paused key work again",
    "revoke": "refuse requests permanently",
}
FIELDS = ("hint", "owner", "state", "last_used_at", *ApiKey.LIMITS)


class Command(BaseCommand):
    """Shows and changes keys; prints only their public prefixes."""

    help = "List API keys; limit, pause, resume or revoke them. Workers follow within 5 seconds."

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the subcommands."""
        commands = parser.add_subparsers(dest="command", required=True)
        listing = commands.add_parser("list", help="print the keys")
        listing.add_argument("--owner", help="only the keys of this owner")
        listing.add_argument("--format", choices=["table", "json"], default="table")
        for name, text in CHANGES.items():
            change = commands.add_parser(name, help=text)
            which = change.add_mutually_exclusive_group(required=True)
            which.add_argument("--key", metavar="PREFIX", help="the key with this prefix, such as sk-sentinel-vABF")
            which.add_argument("--owner", help="all keys of this owner")
            if name == "limit":
                add_limits(change)

    def handle(self, *args: Any, command: str, owner: str | None, **options: Any) -> None:
        """Run a subcommand."""
        try:
            if command == "list":
                found = ApiKey.objects.all() if owner is None else ApiKey.objects.of(owner)
                self._print(found.order_by("owner", "pk"), options["format"])
            else:
                self._change(command, owner, options)
        except DatabaseError as exc:
            raise CommandError(f"The database cannot be used: {str(exc).strip()}") from exc

    def _change(self, command: str, owner: str | None, options: dict[str, Any]) -> None:
        live = ApiKey.objects.filter(revoked_at=None)
        if owner is None:
            prefix = options["key"].removesuffix("...").encode("ascii", "replace").decode()
            chosen, name = live.filter(hint=f"{prefix}..."), f"prefix {options['key']!r}"
        else:
            chosen, name = live.of(owner), f"owner {owner!r}"
        number = chosen.count()
        if not number:
            raise CommandError(f"No working API key has the {name}")
        if owner is None and number > 1:
            raise CommandError(f"{number} API keys have the {name}; choose by --owner")
        if command != "limit":
            changed = getattr(chosen, command)()
        elif limits := limits_in(options):
            changed = chosen.limit(**limits)
        else:
            names = ", ".join(f"--{name.replace('_', '-')}" for name in ApiKey.LIMITS)
            raise CommandError(f"limit needs at least one of {names}")
        self.stdout.write(f"Changed {changed} of {number} API keys")

    def _print(self, found: ApiKeyQuerySet, layout: str) -> None:
        rows = [{name: getattr(key, name) for name in FIELDS} for key in found]
        if layout == "json":
            self.stdout.write(json.dumps(rows, default=str, ensure_ascii=False))
            return
        out = Output(self.stdout, self.stderr)  # type: ignore[arg-type]  # a wrapper of the stream
        table = Table(out, *(name.replace("_", " ") for name in FIELDS), fold=True)
        table.add([["-" if value is None else str(value) for value in row.values()] for row in rows])
