"""The subcommands that change: touch, rebind, delete, drain, reindex."""

from __future__ import annotations

import getpass
from collections.abc import Callable
from typing import Any

import msgspec

from sessions_sticky.cli.errors import NOT_DONE, WRONG_USAGE, Error
from sessions_sticky.cli.formatting import described, place, several
from sessions_sticky.cli.output import Screen
from sessions_sticky.cli.progress import Report, reporting
from sessions_sticky.manager import SessionManager, sessions
from sessions_sticky.queries.filters import Filters
from sessions_sticky.session import Session


def touch(screen: Screen, *, ID: list[str], dry_run: bool, **_: Any) -> None:
    """Extend sessions."""
    _each(screen, "Touch", ID, sessions.touch, sessions.get, dry_run=dry_run)


def rebind(
    screen: Screen, *, ID: str, to_provider: str, to_model: str | None, reason: str, dry_run: bool, **_: Any
) -> None:
    """Move one conversation."""
    session = sessions.get(ID)
    if session is None:
        raise Error(f"there is no session {ID!r}: missing, expired or unreadable", NOT_DONE)
    model = session.model if to_model is None else to_model
    moves = (session.provider, session.model) != (to_provider, model)
    moved = Session(session.id, to_provider, model, session.external_id, session.created_at)
    if moves and not dry_run:
        moved = _operator().rebind(session, provider=to_provider, model=model, reason=reason)
    screen.documents([{"dry_run": dry_run, "moved": int(moves), "session": msgspec.structs.asdict(moved)}])
    target = place(to_provider, model)
    if moves:
        screen.say(f"{_did('Move', 1, dry_run=dry_run)} from {place(session.provider, session.model)} to {target}")
    else:
        screen.say(f"It is bound to {target} already")


def delete(
    screen: Screen, *, ID: list[str], everything: bool, dry_run: bool, yes: bool, owner: str | None, **options: Any
) -> None:
    """Delete sessions by id, or all that the filters mean."""
    filters = Filters(options["provider"], options["model"], owner)
    if [bool(ID), filters != Filters(), everything].count(True) != 1:
        raise Error("say which: ids, or --provider, --model and --owner, or --everything", WRONG_USAGE)
    if ID:
        _each(screen, "Delete", ID, _operator().delete, sessions.get_raw, dry_run=dry_run)  # what is unreadable, too
        return

    def run(report: Report) -> int:
        return _operator().all().filter(**filters.fields).delete(progress=report)

    _all(screen, "Delete", filters, described(filters), run, dry_run=dry_run, yes=yes)


def drain(screen: Screen, *, PROVIDER: str, to_provider: str, to_model: str | None, **options: Any) -> None:
    """Move all conversations of a provider, or of one of its models."""
    filters = Filters(PROVIDER, options["model"])
    if to_provider == PROVIDER and to_model in (None, filters.model):
        raise Error("nothing would move: --to-provider is where they are", WRONG_USAGE)

    def run(report: Report) -> int:
        found = _operator().filter(**filters.fields)
        return found.rebind(to_provider=to_provider, to_model=to_model, reason=options["reason"], progress=report)

    way = f"from {place(PROVIDER, filters.model)} to {place(to_provider, to_model)}"
    _all(screen, "Move", filters, way, run, dry_run=options["dry_run"], yes=options["yes"])


def reindex(screen: Screen, **_: Any) -> None:
    """Rebuild the index."""
    with reporting(screen) as report:
        number = sessions.reindex(report)
        report(report.expected, report.expected)  # it was an estimate
    screen.documents([{"sessions": number}])
    screen.say(f"The index has {several(number)}")


def _each(
    screen: Screen,
    verb: str,
    ids: list[str],
    change: Callable[[str], bool],
    look: Callable[[str], object],
    *,
    dry_run: bool,
) -> None:
    """Change sessions one by one; those that are missing do not keep the others from it."""
    there = (lambda conversation_id: look(conversation_id) is not None) if dry_run else change
    ids = list(dict.fromkeys(ids))
    missing = [conversation_id for conversation_id in ids if not there(conversation_id)]
    done = len(ids) - len(missing)
    screen.documents([{"dry_run": dry_run, _past(verb): done, "missing": missing}])
    screen.say(_did(verb, done, dry_run=dry_run))
    if missing:
        raise Error(f"there is no session {', '.join(map(repr, missing))}", NOT_DONE)


def _all(
    screen: Screen,
    verb: str,
    filters: Filters,
    which: str,
    run: Callable[[Report], int],
    *,
    dry_run: bool,
    yes: bool,
) -> None:
    """Change many sessions, after a question."""
    number = sessions.all().filter(**filters.fields).count()
    if not number and filters != Filters():
        raise Error(f"the index has no conversations {described(filters)}; see also: sessions reindex", NOT_DONE)
    if not (dry_run or yes):
        screen.confirm(f"{verb} {several(number)} {which}?")
    if not dry_run:
        with reporting(screen) as report:
            number = run(report)
    screen.documents([{"dry_run": dry_run, _past(verb): number}])
    screen.say(f"{_did(verb, number, dry_run=dry_run)} {which}")


def _operator() -> SessionManager:
    """The manager, for the user of the operating system; a container may have none."""
    try:
        return sessions.acting_as(f"cli:{getpass.getuser()}")
    except (KeyError, OSError):
        return sessions.acting_as("cli")


def _past(verb: str) -> str:
    return {"Touch": "touched"}.get(verb, f"{verb.lower()}d")


def _did(verb: str, number: int, *, dry_run: bool) -> str:
    words = f"Would {verb.lower()}" if dry_run else _past(verb).capitalize()
    return f"{words} {several(number)}"
