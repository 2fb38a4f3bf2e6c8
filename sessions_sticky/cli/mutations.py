"""The subcommands that change sessions: touch, rebind, delete, drain, reindex."""

from __future__ import annotations

import getpass
from collections.abc import Callable
from typing import Any

import msgspec

from sessions_sticky.cli.errors import NOT_DONE, WRONG_USAGE, Error
from sessions_sticky.cli.formatting import describe_filters, escape, format_route, pluralize
from sessions_sticky.cli.output import Output
from sessions_sticky.cli.progress import Report, reporting
from sessions_sticky.conf import check_target, conf
from sessions_sticky.manager import SessionManager, sessions
from sessions_sticky.queries.filters import Filters
from sessions_sticky.session import Session


def touch(output: Output, *, ID: list[str], dry_run: bool, **_: Any) -> None:
    """Extend sessions."""
    _each(output, "Touch", ID, sessions.touch, sessions.get, dry_run=dry_run)


def rebind(
    output: Output, *, ID: str, to_provider: str, to_model: str | None, reason: str, dry_run: bool, **_: Any
) -> None:
    """Move one conversation."""
    check_target(to_provider)
    session = sessions.get(ID)
    if session is None:
        raise Error(f"no session {ID!r}: it does not exist, has expired or is unreadable", NOT_DONE)
    model = session.model if to_model is None else to_model
    moves = (session.provider, session.model) != (to_provider, model)
    moved = Session(session.id, to_provider, model, session.external_id, session.created_at)
    if moves and not dry_run:
        moved = _operator().rebind(session, provider=to_provider, model=model, reason=reason)
    output.print_json([{"dry_run": dry_run, "moved": int(moves), "session": msgspec.structs.asdict(moved)}])
    target = format_route(to_provider, model)
    if moves:
        output.print(
            f"{_did('Move', 1, dry_run=dry_run)} from {format_route(session.provider, session.model)} to {target}"
        )
    else:
        output.print(f"Already bound to {target}")


def delete(
    output: Output, *, ID: list[str], everything: bool, dry_run: bool, yes: bool, owner: str | None, **options: Any
) -> None:
    """Delete sessions by id, or all that match the filters."""
    filters = Filters(options["provider"], options["model"], owner)
    if [bool(ID), filters != Filters(), everything].count(True) != 1:
        raise Error("specify ids, filters (--provider, --model, --owner) or --everything", WRONG_USAGE)
    if ID:
        _each(output, "Delete", ID, _operator().delete, sessions.get_raw, dry_run=dry_run)  # unreadable ones too
        return

    def run(report: Report) -> int:
        return _operator().all().filter(**filters.fields).delete(progress=report)

    _all(output, "Delete", filters, describe_filters(filters), run, dry_run=dry_run, yes=yes)


def drain(output: Output, *, PROVIDER: str, to_provider: str, to_model: str | None, **options: Any) -> None:
    """Move all conversations of a provider, or of one of its models."""
    filters = Filters(PROVIDER, options["model"])
    if to_provider == PROVIDER and to_model in (None, filters.model):
        raise Error("source and target are the same provider and model", WRONG_USAGE)

    check_target(to_provider)

    def run(report: Report) -> int:
        found = _operator().filter(**filters.fields)
        return found.rebind(to_provider=to_provider, to_model=to_model, reason=options["reason"], progress=report)

    if conf.providers is None and not sessions.filter(provider=to_provider).count():
        output.print_err(f"No session is on {escape(to_provider)} now: check its spelling")

    way = f"from {format_route(PROVIDER, filters.model)} to {format_route(to_provider, to_model)}"
    _all(output, "Move", filters, way, run, dry_run=options["dry_run"], yes=options["yes"])


def reindex(output: Output, **_: Any) -> None:
    """Rebuild the index."""
    with reporting(output) as report:
        number = sessions.reindex(report)
        report(report.expected, report.expected)  # it was an estimate
    output.print_json([{"sessions": number}])
    output.print(f"Indexed {pluralize(number, 'session')}")


def _each(
    output: Output,
    verb: str,
    ids: list[str],
    change: Callable[[str], bool],
    look: Callable[[str], object],
    *,
    dry_run: bool,
) -> None:
    """Change sessions one by one; missing ones do not stop the others."""
    there = (lambda conversation_id: look(conversation_id) is not None) if dry_run else change
    ids = list(dict.fromkeys(ids))
    missing = [conversation_id for conversation_id in ids if not there(conversation_id)]
    done = len(ids) - len(missing)
    output.print_json([{"dry_run": dry_run, _past(verb): done, "missing": missing}])
    output.print(_did(verb, done, dry_run=dry_run))
    if missing:
        raise Error(f"no session {', '.join(map(repr, missing))}", NOT_DONE)


def _all(
    output: Output,
    verb: str,
    filters: Filters,
    which: str,
    run: Callable[[Report], int],
    *,
    dry_run: bool,
    yes: bool,
) -> None:
    """Change many sessions after confirmation."""
    number = sessions.all().filter(**filters.fields).count()
    if not number and filters != Filters():
        raise Error(
            f"no indexed conversations {describe_filters(filters)}; if other programs wrote some run: sessions reindex",
            NOT_DONE,
        )
    if not (dry_run or yes):
        output.confirm(f"{verb} {pluralize(number)} {which}?")
    if not dry_run:
        with reporting(output) as report:
            number = run(report)
    output.print_json([{"dry_run": dry_run, _past(verb): number}])
    output.print(f"{_did(verb, number, dry_run=dry_run)} {which}")


def _operator() -> SessionManager:
    """Return the manager that acts as the user of the operating system; a container may have none."""
    try:
        return sessions.acting_as(f"cli:{getpass.getuser()}")
    except (KeyError, OSError):
        return sessions.acting_as("cli")


def _past(verb: str) -> str:
    return {"Touch": "touched"}.get(verb, f"{verb.lower()}d")


def _did(verb: str, number: int, *, dry_run: bool) -> str:
    words = f"Would {verb.lower()}" if dry_run else _past(verb).capitalize()
    return f"{words} {pluralize(number)}"
