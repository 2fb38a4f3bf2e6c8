"""The subcommands that change sessions: touch, rebind, delete, move-all, move-back, reindex."""

from __future__ import annotations

import getpass
from collections.abc import Callable
from typing import Any

from sessions_sticky.cli.errors import NOT_DONE, WRONG_USAGE, Error, no_session
from sessions_sticky.cli.formatting import describe_conditions, describe_filters, escape, format_route, pluralize
from sessions_sticky.cli.output import Output
from sessions_sticky.cli.progress import reporting
from sessions_sticky.conf import check_target, conf
from sessions_sticky.jobs.job import Plan
from sessions_sticky.jobs.service import jobs
from sessions_sticky.manager import SessionManager, sessions
from sessions_sticky.queries.bulk import Move
from sessions_sticky.queries.filters import Filters
from sessions_sticky.queries.move_cost import MoveCost
from sessions_sticky.queries.pages import session_json


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
        raise no_session(ID)
    moved = Move(to_provider, to_model, reason).of(session)
    moves = moved != session
    if moves and not dry_run:
        moved = _operator().rebind(session, provider=moved.provider, model=moved.model, reason=reason)
    output.print_json([{"dry_run": dry_run, "moved": int(moves), "session": session_json(moved)}])
    origin, target = (format_route(each.provider, each.model) for each in (session, moved))
    if moves:
        output.print(f"{_did('Move', 1, dry_run=dry_run)} from {origin} to {target}")
    else:
        output.print(f"Already bound to {target}")


def delete(output: Output, *, ID: list[str], everything: bool, dry_run: bool, yes: bool, **options: Any) -> None:
    """Delete sessions by id, or all that match the filters."""
    plan = Plan(Filters.of(options), None, everything)
    if [bool(ID), plan.has_filter, everything].count(True) != 1:
        raise Error("specify ids, filters (--provider, --owner, --idle-for, ...) or --everything", WRONG_USAGE)
    if ID:
        _each(output, "Delete", ID, _operator().delete, sessions.get_raw, dry_run=dry_run)  # unreadable ones too
        return
    _all(output, "Delete", plan, describe_filters(plan.filters), dry_run=dry_run, yes=yes)


def move_all(output: Output, *, PROVIDER: str, to_provider: str, to_model: str | None, **options: Any) -> None:
    """Move all conversations of a provider, or of one of its models."""
    filters = Filters.of(options)._replace(provider=PROVIDER)
    if to_provider == PROVIDER and to_model in (None, filters.model):
        raise Error("source and target are the same provider and model", WRONG_USAGE)
    check_target(to_provider)
    if conf.providers is None and not sessions.filter(provider=to_provider).count():
        output.print_err(f"Warning: no session is on {escape(to_provider)} yet. Is the name right?")
    plan = Plan(filters, Move(to_provider, to_model, options["reason"]))
    which = describe_conditions(filters)
    way = f"from {format_route(PROVIDER, filters.model)} to {format_route(to_provider, to_model)}{which}"
    _all(output, "Move", plan, way, dry_run=options["dry_run"], yes=options["yes"])


def drain(output: Output, **options: Any) -> None:
    """Run `move-all` by its former name, which the next version removes."""
    output.print_err("Warning: `sessions drain` is now `sessions move-all`; the next version removes the former name")
    move_all(output, **options)


def move_back(output: Output, *, reason: str, dry_run: bool, yes: bool, **options: Any) -> None:
    """Move conversations back to where their last move came from."""
    filters = Filters.of(options)
    if not filters.need_moves:
        raise Error("specify --operation, --moved-from or --moved-since", WRONG_USAGE)
    plan = Plan(filters, Move(None, None, reason))
    _all(output, "Move", plan, f"back, {describe_filters(filters)}", dry_run=dry_run, yes=yes)


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


def _all(output: Output, verb: str, plan: Plan, which: str, *, dry_run: bool, yes: bool) -> None:
    """Change many sessions after confirmation, as an operation of this command."""
    number = jobs.count(plan)
    if not number and not plan.everything:
        hint = "" if plan.filters.conditions else "; if other programs wrote some run: sessions reindex"
        raise Error(f"no indexed conversations {describe_filters(plan.filters)}{hint}", NOT_DONE)
    if dry_run or not yes:
        _print_cost(output, jobs.cost(plan))
    if not (dry_run or yes):
        output.confirm(f"{verb} {pluralize(number)} {which}?")
    if not dry_run:
        with reporting(output) as report:
            number = jobs.run(plan, actor=actor(), progress=report)
    output.print_json([{"dry_run": dry_run, _past(verb): number}])
    output.print(f"{_did(verb, number, dry_run=dry_run)} {which}")


def _print_cost(output: Output, cost: MoveCost | None) -> None:
    if cost and cost.tokens:
        more = "" if cost.is_complete else ", by the most recently active ones"
        money = f", at a cost of about {cost.money:,.2f}" if cost.money else ""
        output.print(f"{pluralize(cost.sessions)} would lose about {cost.tokens:,} cached prompt tokens{money}{more}")


def _operator() -> SessionManager:
    return sessions.acting_as(actor())


def actor() -> str:
    """Return the user of the operating system as an actor; a container may have none."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):
        return "cli"


def _past(verb: str) -> str:
    return {"Touch": "touched"}.get(verb, f"{verb.lower()}d")


def _did(verb: str, number: int, *, dry_run: bool) -> str:
    words = f"Would {verb.lower()}" if dry_run else _past(verb).capitalize()
    return f"{words} {pluralize(number)}"
