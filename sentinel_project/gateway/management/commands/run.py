"""`manage.py run`."""

from __future__ import annotations

import errno
import ipaddress
import json
import os
import shlex
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError, connection, connections, transaction
from django.db.migrations.executor import MigrationExecutor

from sentinel_project import embedded, locks
from sentinel_project.gateway import demo as demo_credentials
from sentinel_project.gateway.apis.base import ROOT
from sentinel_project.serving import listen, serve

if TYPE_CHECKING:
    import socket

DEMO_FILE = "demo.json"
MIGRATION_LOCK = int.from_bytes(b"sentinel")
"""The number of the advisory lock, a signed 64-bit integer as PostgreSQL wants it."""


class Command(BaseCommand):
    """Migrate and serve in one command."""

    help = "Serve the gateway. Without REDIS_URL it also runs an embedded store, which stops with the command."

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the arguments."""
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on, 127.0.0.1 by default")
        parser.add_argument("--port", type=int, default=8000, help="port to listen on, 8000 by default; 0: a free one")
        parser.add_argument("--workers", type=int, default=1, help="number of processes that serve, 1 by default")
        parser.add_argument(
            "--demo",
            action="store_true",
            help="make and print a superuser and an API key; only on loopback, with the built-in providers, in a "
            "database of SENTINEL_DATA_DIR that has no other users or keys",
        )

    def handle(self, *args: Any, host: str, port: int, workers: int, demo: bool, **options: Any) -> None:
        """Serve until stopped."""
        if workers < 1:
            raise CommandError(f"--workers must be at least 1, not {workers}")
        if not 0 <= port < 2**16:  # some systems would take the rest of a division
            raise CommandError(f"--port must be from 0 to {2**16 - 1}, not {port}")
        with suppress(KeyboardInterrupt), ExitStack() as stack:
            listener = stack.enter_context(_listen(host, port))
            if "REDIS_URL" not in os.environ:
                try:
                    stack.enter_context(embedded.running(settings.DATA_DIR))
                except embedded.StartFailed as exc:
                    raise CommandError(f"The embedded store did not start: {exc}") from exc
            # Another `run` of this project may be starting: two would migrate and make keys at the same time.
            with locks.exclusive(settings.DATA_DIR / "start.lock"):
                try:
                    self._migrate()
                    lines = _introduction(listener, host, demo=demo)
                except DatabaseError as exc:
                    raise CommandError(f"The database cannot be used: {str(exc).strip()}") from exc
            connections.close_all()
            served = serve(
                listener,
                workers=workers,
                debug=settings.DEBUG,
                drain_seconds=settings.SENTINEL_DRAIN_SECONDS,
                ready=lambda: self._say(lines),
            )
            if not served:
                raise CommandError("The gateway did not start: a worker failed, and logged its error above")

    def _migrate(self) -> None:
        with _one_at_a_time():
            executor = MigrationExecutor(connection)
            if plan := executor.migration_plan(executor.loader.graph.leaf_nodes()):
                with _all_or_nothing():
                    call_command("migrate", interactive=False, verbosity=0)
                self._say([f"Database: {len(plan)} migrations applied"])

    def _say(self, lines: list[str]) -> None:
        self.stdout.write("\n".join(lines))
        self.stdout.flush()  # a pipe would keep it until the end


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Migrate a PostgreSQL database under an advisory lock, because processes on other machines share no lock file.

    The lock belongs to the connection, so a process that is killed releases it.
    """
    if connection.vendor != "postgresql":
        yield
        return
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", [MIGRATION_LOCK])
        try:
            yield
        finally:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [MIGRATION_LOCK])


@contextmanager
def _all_or_nothing() -> Iterator[None]:
    """Make one transaction of several migrations, on SQLite.

    Django commits most migrations before it notes that they are applied; killed in between, it never gets over it.
    """
    if connection.vendor != "sqlite":
        yield
        return
    with connection.constraint_checks_disabled(), transaction.atomic():  # SQLite can disable them only outside
        yield


def _listen(host: str, port: int) -> socket.socket:
    try:
        return listen(host, port)
    except OSError as exc:
        if exc.errno == errno.EADDRINUSE:
            raise CommandError(f"Port {port} is in use on {host}; choose another with --port") from exc
        raise CommandError(f"Cannot listen on {host}, port {port}: {exc.strerror}") from exc


def _introduction(listener: socket.socket, host: str, *, demo: bool) -> list[str]:
    """Return the lines to print at the start; create the credentials of a demo."""
    address, port = listener.getsockname()[:2]
    site = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    store = urlsplit(os.environ.get("REDIS_URL") or embedded.url(settings.DATA_DIR))
    without_password = f"{store.scheme}://{store.netloc.rpartition('@')[2]}{store.path}"
    lines = ["", f"Serving on {site}, Ctrl-C to stop", f"Store: {without_password}"]
    if not demo or (obstacle := _demo_obstacle(address)):
        if demo:
            lines.append(f"No demo credentials: {obstacle}")
        return [*lines, "API keys: manage.py createkey OWNER", f"Admin: {site}/admin/ (manage.py createsuperuser)"]
    kept = demo_credentials.ensure_credentials(settings.DATA_DIR / DEMO_FILE)
    password = f"password {kept.admin_password}" if kept.admin_password else "(password changed)"
    lines += [f"Admin: {site}/admin/ user {demo_credentials.ADMIN} {password}", "Try:"]
    for api, line in (("chat", _curl), ("messages", _claude), ("responses", _codex), ("chat", _opencode)):
        models = (each.models[0] for each in settings.SENTINEL_PROVIDERS if api in each.apis)
        lines.extend(line(site, kept.api_key, model) for model in islice(models, 1))
    return [*lines, ""]


def _demo_obstacle(address: str) -> str | None:
    """Return the reason why demo credentials are refused, or None."""
    if not ipaddress.ip_address(address).is_loopback:
        return f"other machines can reach {address}"
    for variable in ("SENTINEL_PROVIDERS", "DATABASE_URL"):
        if variable in os.environ:
            return f"{variable} is set"
    if demo_credentials.is_in_use(settings.DATA_DIR / DEMO_FILE):
        return "the database has other users or API keys"
    return None


def _claude(site: str, api_key: str, model: str) -> str:
    """Return a line that starts Claude Code."""
    variables = {"ANTHROPIC_BASE_URL": site, "ANTHROPIC_AUTH_TOKEN": api_key, "ANTHROPIC_MODEL": model}
    return " ".join([*(f"{name}={shlex.quote(value)}" for name, value in variables.items()), "claude"])


def _codex(site: str, api_key: str, model: str) -> str:
    """Return a line that starts Codex; the gateway has no WebSockets, which custom providers do not use by default."""
    provider = f'{{name="gateway",base_url="{site}{ROOT}",env_key="GATEWAY_KEY",wire_api="responses"}}'
    options = ["-m", model, "-c", "model_provider=gateway", "-c", f"model_providers.gateway={provider}"]
    return f"GATEWAY_KEY={shlex.quote(api_key)} codex {shlex.join(options)}"


def _opencode(site: str, api_key: str, model: str) -> str:
    """Return a line that starts OpenCode; the configuration replaces its file."""
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "options": {"baseURL": f"{site}{ROOT}", "apiKey": api_key},
        "models": {model: {}},
    }
    names = {"model": f"gateway/{model}", "small_model": f"gateway/{model}", "enabled_providers": ["gateway"]}
    config = json.dumps({**names, "provider": {"gateway": provider}})
    return f"OPENCODE_CONFIG_CONTENT={shlex.quote(config)} opencode"


def _curl(site: str, api_key: str, model: str) -> str:
    body = {
        "model": model,
        "conversation_id": "demo",
        "messages": [{"role": "user", "content": "Hello"}],
    }
    headers = ["-H", f"Authorization: Bearer {api_key}", "-H", "Content-Type: application/json"]
    return shlex.join(["curl", f"{site}{ROOT}/chat/completions", *headers, "-d", json.dumps(body)])
