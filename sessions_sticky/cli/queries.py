"""The subcommands that read: list, show, stats, operations, tail, doctor."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any

import msgspec

from sessions_sticky.cli import rows
from sessions_sticky.cli.errors import INTERRUPTED, UNHEALTHY, WRONG_USAGE, Error, no_session
from sessions_sticky.cli.formatting import describe_finding, describe_spill_over, describe_totals, pluralize
from sessions_sticky.cli.output import Output, Table
from sessions_sticky.conf import conf
from sessions_sticky.exceptions import SessionNotSupported, SessionStoreUnavailable
from sessions_sticky.identity.stored import read_session_id
from sessions_sticky.jobs.service import jobs
from sessions_sticky.manager import sessions
from sessions_sticky.queries.doctor import examine
from sessions_sticky.queries.filters import Filters
from sessions_sticky.queries.pages import MAX_PAGE, Page, entry_json
from sessions_sticky.queries.query import SessionQuery
from sessions_sticky.queries.server_info import Level
from sessions_sticky.session import Entry
from sessions_sticky.stores.history import Event, EventFilter

POLL_SECONDS = 0.5
"""Interval of `tail --follow`."""

BEGINNING = "0-0"
"""A position before all events."""

STYLES = {Level.OK: "SUCCESS", Level.NOTE: "NOTICE", Level.WARNING: "WARNING", Level.ERROR: "ERROR"}


def list_sessions(output: Output, *, limit: int, all: bool, search: str | None, **options: Any) -> None:
    """Print sessions in pages: the most recent, all in no order, or matches of a search."""
    filters = Filters.of(options)
    if search is not None and (all or filters != Filters()):
        raise Error("--search cannot be combined with filters or --all", WRONG_USAGE)
    if not all and filters.conditions:
        raise Error(
            f"--{next(iter(filters.conditions)).replace('_', '-')} needs --all: it reads every session", WRONG_USAGE
        )
    table = Table(output, *rows.SESSION_TITLES, right=rows.SESSION_TIMES)
    query = sessions.all().filter(**filters.fields)
    if all:
        entries = iter(query)
        while batch := list(islice(entries, MAX_PAGE)):
            table.add([rows.session_row(entry) for entry in batch])
            output.print_json(map(entry_json, batch))
        return
    found: list[Entry] = []
    more = False
    for page in _pages(limit, query, search):
        table.add([rows.session_row(entry) for entry in page.entries])
        found += page.entries
        more = page.next_cursor is not None
    output.print_json([{"sessions": list(map(entry_json, found)), "more": more}])
    if more and not output.as_json:
        output.print_err(f"Only the first {limit:,} are shown; use --limit N or --all for more")


def show(output: Output, *, ID: str, **_: Any) -> None:
    """Print a session, its last turns and its history; only the history if there is no session."""
    entry, trail = sessions.inspect(ID), sessions.trail(ID)
    try:
        events = sessions.history(ID)
    except SessionNotSupported as exc:
        events, no_history = None, str(exc)
    history = None if events is None else [rows.event_json(event) for event in events]
    model = entry.session.model if entry else None
    stored = read_session_id(ID, model=model, scope=conf.conversation_scope)
    output.print_json(
        [
            {
                "session": entry and entry_json(entry),
                "identity": stored._asdict(),
                "trail": msgspec.to_builtins(trail),
                "history": history,
            }
        ]
    )
    if entry:
        fields = [title.lower() for title in rows.SESSION_TITLES]
        parts = {"kind": stored.kind, "client_id": stored.client_id, "requested_model": stored.model}
        cells = [
            *zip(fields, rows.session_row(entry), strict=True),
            *((name, value) for name, value in parts.items() if value),
        ]
        Table(output, "FIELD", "VALUE", fold=True).add(cells)
        output.print("")
    if trail.turns:
        Table(output, *rows.TURN_TITLES, right=rows.TURN_NUMBERS, fold=True).add(
            [rows.turn_row(turn) for turn in trail.turns]
        )
        output.print("\n".join([describe_totals(trail.totals), *map(describe_spill_over, trail.spill_overs), ""]))
    if events:
        # All rows have the same id; omit it to leave room for the reasons.
        titles, *listed = [(*row[:2], *row[3:]) for row in (rows.EVENT_TITLES, *map(rows.event_row, events))]
        Table(output, *titles, right=rows.EVENT_TIMES, fold=True).add(listed)
    else:
        output.print(no_history if events is None else "No history for this conversation")
    if not entry:
        raise no_session(ID)


def stats(output: Output, **_: Any) -> None:
    """Print the counts, and what the turns of the last day used."""
    counted, used = sessions.stats(), sessions.usage().routes
    usage = [{**route._asdict(), "totals": msgspec.structs.asdict(route.totals)} for route in used]
    routes = [route._asdict() for route in counted.routes]
    output.print_json([{"sessions": counted.sessions, "routes": routes, "usage": usage}])
    numbers = ("SESSIONS", "NEW_LAST_HOUR", "NEW_LAST_DAY")
    cells = [[route.provider, route.model, *(f"{number:,}" for number in route[2:])] for route in counted.routes]
    sums = [sum(column) for column in zip(*(route[2:] for route in counted.routes), strict=True)] or [0, 0, 0]
    total = ["(all)", "", *(f"{number:,}" for number in sums)]
    Table(output, "PROVIDER", "MODEL", *numbers, right=numbers).add([*cells, total])
    if used:
        output.print("\nTurns of the last day:")
        Table(output, *rows.USAGE_TITLES, right=rows.USAGE_TITLES[3:]).add([rows.usage_row(route) for route in used])


def operations(output: Output, **_: Any) -> None:
    """Print the bulk operations of the last day."""
    found = jobs.recent()
    output.print_json([{"operations": [rows.operation_json(job) for job in found]}])
    table = Table(output, *rows.OPERATION_TITLES, right=("DONE", "EXPECTED"), fold=True)
    table.add([rows.operation_row(job) for job in found])


def tail(output: Output, *, lines: int, follow: bool, **options: Any) -> None:
    """Print the end of the history; with `follow`, also new events."""
    table = Table(output, *rows.EVENT_TITLES)
    event_filter = EventFilter(options["kind"], options["provider"], options["actor"])
    events = sessions.recent(limit=lines if event_filter == EventFilter() else MAX_PAGE)
    after = BEGINNING
    is_first = True
    try:
        while True:
            shown = [event for event in events if event_filter.match(event)]
            shown = shown[-lines:] if is_first else shown
            is_first = False
            table.add([rows.event_row(event) for event in shown])
            output.print_json(map(rows.event_json, shown))
            if not follow:
                return
            after = events[-1].position if events else after
            if len(events) < MAX_PAGE:  # otherwise read on at once, before a move of many sessions trims the history
                time.sleep(POLL_SECONDS)
            events = _further(output, after)
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None  # the normal end: no error


def doctor(output: Output, **_: Any) -> None:
    """Print the findings, one a line."""
    findings = examine()
    output.print_json([{"findings": [finding._asdict() for finding in findings]}])
    for finding in findings:
        styled = getattr(output.style, STYLES[finding.level])
        output.print(f"{styled(f'{finding.level.upper():<8}')} {describe_finding(finding)}")
    counts = Counter(finding.level for finding in findings)
    errors = pluralize(counts[Level.ERROR], "error")
    output.print(f"{errors}, {pluralize(counts[Level.WARNING], 'warning')}")
    if counts[Level.ERROR]:
        raise Error(f"doctor found {errors}", UNHEALTHY)


def _further(output: Output, after: str) -> list[Event]:
    """Return the next events; retry while the store is unavailable."""
    notified = False
    while True:
        try:
            return sessions.recent(after=after, limit=MAX_PAGE)
        except SessionStoreUnavailable as exc:
            if not notified:
                output.print_err(f"{exc}; retrying")
            notified = True
            time.sleep(POLL_SECONDS)


def _pages(limit: int, query: SessionQuery, search: str | None) -> Iterator[Page]:
    """Yield pages of up to `limit` sessions in total."""
    cursor, left = None, limit
    while True:
        size = min(left, MAX_PAGE)
        if search is None:
            page = query.page(cursor=cursor, limit=size)
        else:
            page = sessions.search(search, cursor=cursor, limit=size)
        cursor = page.next_cursor
        left -= len(page.entries)
        yield page
        if cursor is None or left == 0:
            return
