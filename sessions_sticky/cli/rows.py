"""Format sessions, events, turns and operations as rows of tables and as JSON; performs no I/O."""

from __future__ import annotations

from typing import Any

import msgspec

from sessions_sticky.cli.formatting import describe_filters, format_duration, format_share, format_time, pluralize
from sessions_sticky.jobs.job import Job
from sessions_sticky.queries.times import format_datetime
from sessions_sticky.queries.usage import RouteUsage
from sessions_sticky.session import Entry
from sessions_sticky.stores.history import Event
from sessions_sticky.turns import MILLION, RecordedTurn

SESSION_TITLES = ("CONVERSATION", "PROVIDER", "MODEL", "OWNER", "CREATED", "LEFT")
SESSION_TIMES = ("CREATED", "LEFT")
EVENT_TITLES = ("AT", "EVENT", "CONVERSATION", "PROVIDER", "MODEL", "FROM", "REASON", "ACTOR")
EVENT_TIMES = ("AT", "EVENT")
OPERATION_TITLES = (
    *("STARTED", "ENDED", "OPERATION", "SESSIONS_OF", "TO"),
    *("DONE", "EXPECTED", "STATE", "ACTOR", "REASON", "KEY"),
)
TURN_TITLES = (
    *("AT", "OUTCOME", "REASON", "PROVIDER", "MODEL", "BOUND"),
    *("STATUS", "FIRST_MS", "INPUT", "CACHED", "LOST", "FAILED"),
)
TURN_NUMBERS = ("STATUS", "FIRST_MS", "INPUT", "CACHED", "LOST")
USAGE_TITLES = ("PROVIDER", "MODEL", "OUTCOME", "TURNS", "INPUT", "CACHED", "OUTPUT", "SAVED", "LOST")


def session_row(entry: Entry) -> list[str]:
    """Return the cells of a session for `SESSION_TITLES`."""
    session = entry.session
    names = [session.id, session.provider, session.model, session.external_id]
    return [*names, format_time(session.created_at), format_duration(entry.expires_in)]


def operation_row(job: Job) -> tuple[str, ...]:
    """Return the cells of a bulk operation for `OPERATION_TITLES`."""
    target = "back" if job.is_back else job.to_provider or ""
    ended = "-" if job.ended_at is None else format_time(job.ended_at)
    which = "all sessions" if job.everything else describe_filters(job.filters).removeprefix("of ")
    return (
        *(format_time(job.started_at), ended, job.kind, which, target),
        *(f"{job.done:,}", f"{job.expected:,}", job.state, job.actor, job.reason, job.key),
    )


def turn_row(turn: RecordedTurn) -> tuple[str, ...]:
    """Return the cells of a turn for `TURN_TITLES`."""
    usage = turn.usage
    failed = ", ".join(f"{each.provider} {each.status} {each.code}".rstrip() for each in turn.attempts)
    return (
        *(format_datetime(turn.at), turn.outcome, turn.reason, turn.provider, turn.model),
        *(turn.bound_provider, str(turn.status), "-" if turn.first_byte_ms is None else f"{turn.first_byte_ms:,}"),
        *("-" if usage is None else f"{usage.input:,}", format_share(usage.read, usage.input) if usage else "-"),
        *(f"{turn.lost:,}", failed),
    )


def usage_row(route: RouteUsage) -> tuple[str, ...]:
    """Return the cells of a route's usage for `USAGE_TITLES`."""
    totals = route.totals
    return (
        *(route.provider, route.model, route.outcome, f"{totals.turns:,}", f"{totals.input:,}"),
        *(format_share(totals.read, totals.input), f"{totals.output:,}", f"{totals.saved / MILLION:,.2f}"),
        f"{totals.lost:,}",
    )


def operation_json(job: Job) -> dict[str, Any]:
    """Return the fields of a bulk operation; `external_id` is the former name of its filter `owner`."""
    return {**msgspec.structs.asdict(job), "external_id": job.owner, "ended_at": job.ended_at}


def event_json(event: Event) -> dict[str, Any]:
    """Return the fields of an event, with its time as the HTTP API has it."""
    return {**event._asdict(), "at": format_datetime(event.at, "milliseconds")}


def event_row(event: Event) -> tuple[str, ...]:
    """Return the cells of an event for `EVENT_TITLES`."""
    origin = "" if event.from_provider is None else f"{event.from_provider}/{event.from_model or '*'}"
    conversation = event.conversation_id or pluralize(event.sessions)
    at = format_datetime(event.at)
    return at, event.kind, conversation, event.provider, event.model, origin, event.reason, event.actor
