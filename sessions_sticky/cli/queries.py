"""The subcommands that look: list, show, stats, tail."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

import msgspec

from sessions_sticky.cli.errors import NOT_DONE, WRONG_USAGE, Error
from sessions_sticky.cli.formatting import duration, moment, several
from sessions_sticky.cli.output import Screen, Table
from sessions_sticky.conf import conf
from sessions_sticky.exceptions import SessionNotSupported, SessionStoreUnavailable
from sessions_sticky.identity.stored import read_session_id
from sessions_sticky.manager import sessions
from sessions_sticky.queries.filters import MAX_PAGE, Page
from sessions_sticky.queries.query import SessionQuery
from sessions_sticky.session import Entry
from sessions_sticky.stores.history import Event

POLL_SECONDS = 0.5
"""How often `tail --follow` looks."""

BEGINNING = "0-0"
"""A position before all events."""

SESSION_TITLES = ("CONVERSATION", "PROVIDER", "MODEL", "OWNER", "CREATED", "LEFT")
SESSION_TIMES = ("CREATED", "LEFT")
EVENT_TITLES = ("AT", "EVENT", "CONVERSATION", "PROVIDER", "MODEL", "FROM", "REASON", "ACTOR")
EVENT_TIMES = ("AT", "EVENT")


def list_sessions(screen: Screen, *, limit: int, all: bool, search: str | None, **options: Any) -> None:
    """Print sessions as they come: the latest, all in no order, or those that a text finds."""
    if search is not None and (all or any(options[name] is not None for name in ("provider", "model", "owner"))):
        raise Error("--search cannot be combined with --provider, --model, --owner or --all", WRONG_USAGE)
    table = Table(screen, *SESSION_TITLES, right=SESSION_TIMES)
    asked = sessions.all().filter(provider=options["provider"], model=options["model"], owner=options["owner"])
    if all:
        entries = iter(asked)
        while batch := list(islice(entries, MAX_PAGE)):
            table.add([_cells(entry) for entry in batch])
            screen.documents(map(entry_json, batch))
        return
    found: list[Entry] = []
    more = False
    for page in _pages(limit, asked, search):
        table.add([_cells(entry) for entry in page.sessions])
        found += page.sessions
        more = page.next_cursor is not None
    screen.documents([{"sessions": list(map(entry_json, found)), "more": more}])
    if more and not screen.as_json:
        screen.remark(f"There are more than these {limit:,}: --limit N or --all shows them")


def show(screen: Screen, *, ID: str, **_: Any) -> None:
    """Print all that is known of a session; of one that is gone, its history."""
    entry = sessions.inspect(ID)
    try:
        events = sessions.history(ID)
    except SessionNotSupported as exc:
        events, no_history = None, str(exc)
    history = None if events is None else [event_json(event) for event in events]
    model = entry.session.model if entry else None
    stored = read_session_id(ID, model=model, scope=conf.conversation_scope)
    screen.documents([{"session": entry and entry_json(entry), "identity": stored._asdict(), "history": history}])
    if entry:
        fields = [title.lower() for title in SESSION_TITLES]
        parts = {"kind": stored.kind, "client_id": stored.client_id, "requested_model": stored.model}
        cells = [*zip(fields, _cells(entry), strict=True), *((name, value) for name, value in parts.items() if value)]
        Table(screen, "FIELD", "VALUE", fold=True).add(cells)
        screen.say("")
    if events:
        # One conversation's: its id would take the width that the reasons need.
        titles, *rows = [(*row[:2], *row[3:]) for row in (EVENT_TITLES, *map(event_row, events))]
        Table(screen, *titles, right=EVENT_TIMES, fold=True).add(rows)
    else:
        screen.say(no_history if events is None else "The history has nothing of it")
    if not entry:
        raise Error(f"there is no session {ID!r}: missing, expired or unreadable", NOT_DONE)


def stats(screen: Screen, **_: Any) -> None:
    """Print the counts."""
    counted = sessions.stats()
    screen.documents([{"sessions": counted.sessions, "routes": [route._asdict() for route in counted.routes]}])
    numbers = ("SESSIONS", "NEW_LAST_HOUR", "NEW_LAST_DAY")
    rows = [[route.provider, route.model, *(f"{number:,}" for number in route[2:])] for route in counted.routes]
    sums = [sum(column) for column in zip(*(route[2:] for route in counted.routes), strict=True)] or [0, 0, 0]
    total = ["(all)", "", *(f"{number:,}" for number in sums)]
    Table(screen, "PROVIDER", "MODEL", *numbers, right=numbers).add([*rows, total])


def tail(screen: Screen, *, lines: int, follow: bool, **_: Any) -> None:
    """Print the end of the history, and with `follow` what is added to it."""
    table = Table(screen, *EVENT_TITLES)
    events = sessions.recent(limit=lines)
    after = BEGINNING
    while True:
        table.add([event_row(event) for event in events])
        screen.documents(map(event_json, events))
        if not follow:
            return
        after = events[-1].position if events else after
        if len(events) < MAX_PAGE:  # else there are more, which a drain soon pushes out of the history
            time.sleep(POLL_SECONDS)
        events = _further(screen, after)


def _further(screen: Screen, after: str) -> list[Event]:
    """Return the next events; while the store is away, wait for it as long as it takes."""
    told = False
    while True:
        try:
            return sessions.recent(after=after, limit=MAX_PAGE)
        except SessionStoreUnavailable as exc:
            if not told:
                screen.remark(f"{exc}; trying again")
            told = True
            time.sleep(POLL_SECONDS)


def _pages(limit: int, asked: SessionQuery, search: str | None) -> Iterator[Page]:
    """Yield pages, of at most `limit` sessions in all; a search reads on until it has them."""
    cursor, left = None, limit
    while True:
        size = min(left, MAX_PAGE)
        if search is None:
            page = asked.page(cursor=cursor, limit=size)
        else:
            page = sessions.search(search, cursor=cursor, limit=size)
        cursor = page.next_cursor
        left -= len(page.sessions)
        yield page
        if cursor is None or left == 0:
            return


def _cells(entry: Entry) -> list[str]:
    session = entry.session
    names = [session.id, session.provider, session.model, session.external_id]
    return [*names, moment(session.created_at), duration(entry.expires_in)]


def entry_json(entry: Entry) -> dict[str, Any]:
    """Return a session's fields with `expires_in`, the idle time left in seconds."""
    return {**msgspec.structs.asdict(entry.session), "expires_in": entry.expires_in}


def event_json(event: Event) -> dict[str, Any]:
    """Return an event's fields, its time as text."""
    return {**event._asdict(), "at": event.at.isoformat()}


def event_row(event: Event) -> tuple[str, ...]:
    """Return an event's cells under `EVENT_TITLES`."""
    origin = "" if event.from_provider is None else f"{event.from_provider}/{event.from_model or '*'}"
    at = event.at.strftime("%Y-%m-%dT%H:%M:%SZ")
    conversation = event.conversation_id or several(event.sessions)
    return at, event.kind, conversation, event.provider, event.model, origin, event.reason, event.actor
