"""`manage.py createkey OWNER`."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError

from sentinel_project.gateway.management.limits import add_limits, limits_in
from sentinel_project.gateway.models import ApiKey, is_owner


class Command(BaseCommand):
    """Prints the new key alone on the last line of standard output."""

    help = "Create an API key for an owner and print it. It is shown once: only its hash is stored."

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the arguments."""
        parser.add_argument("owner", help="the owner whose conversations this key can use, 1 to 256 characters")
        add_limits(parser)

    def handle(self, *args: Any, owner: str, **options: Any) -> None:
        """Create the key."""
        if not is_owner(owner):
            raise CommandError(f"OWNER must have 1 to 256 printable characters, not {owner!r}")
        try:
            self.stdout.write(ApiKey.objects.issue(owner, **limits_in(options)))
        except DatabaseError as exc:
            raise CommandError(f"The database cannot be used: {str(exc).strip()}") from exc
