"""A bulk operation: its plan, and the record of the job that carries it out; performs no I/O."""

from __future__ import annotations

import re
import time
from typing import Annotated, Literal, NamedTuple

import msgspec

from sessions_sticky.queries.bulk import Move
from sessions_sticky.queries.filters import MAX_REASON_LENGTH, Filters
from sessions_sticky.session import LATEST, Session
from sessions_sticky.turns import Seconds

Kind = Literal["delete", "rebind"]
State = Literal["running", "stopped", "done", "failed"]

PERMISSION: dict[Kind, Literal["delete", "change"]] = {"delete": "delete", "rebind": "change"}
"""The permission on sessions to start, stop or resume each kind of job."""
KEY = re.compile(r"[0-9a-f]{32}")
"""The form of the keys of jobs."""


class Plan(NamedTuple):
    """A bulk operation: delete, or with a `move` rebind, the matches of the filters or everything."""

    filters: Filters
    move: Move | None = None
    everything: bool = False

    @property
    def has_filter(self) -> bool:
        """Whether any filter is set."""
        return self.filters != Filters()

    def check(self) -> None:
        """Raise `ValueError` unless there is either a filter or `everything`, `InvalidSession` for impossible names."""
        if self.everything == self.has_filter:
            allowed = ", ".join(Filters._fields)
            raise ValueError(f"Either a filter ({allowed}) or everything=True is needed, not both")
        provider, model, owner = (name or "" for name in self.filters.indexed)
        Session("", provider, model, owner, 0).to_json()
        Session("", self.filters.moved_from or "", self.filters.operation or "", "", 0).to_json()
        Filters().narrowed(self.filters.fields)
        if self.move:
            self.move.check()
            if self.move.is_back and not self.filters.need_moves:
                raise ValueError("A move back needs a filter of moves: moved_from, moved_since or operation")

    @property
    def already_done(self) -> Filters | None:
        """The matches of the filters that are already at the target; None if there can be none, or it is not known."""
        if self.move is None or self.move.is_back or self.filters.provider not in (None, self.move.provider):
            return None
        model = self.filters.model if self.move.model is None else self.move.model
        if self.filters.model not in (None, model):
            return None
        return Filters(self.move.provider, model, self.filters.owner)


Time = Annotated[int, msgspec.Meta(ge=0, le=LATEST)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Job(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A bulk job.

    `done` and `expected` count sessions; `reason` is "" for `delete`. `to_provider` is None for `delete` and for a move
    back; `to_model` None keeps the model of each session. `detail` is the error message, else "". Times are in Unix
    seconds; `updated_at` is the last heartbeat. `idle_for` to `operation` are the conditions of `Filters`.

    `in_foreground`: a command runs it in its own process, and no other process takes it over.

    Version 0.1 knows no conditions, and could change too many sessions: it cannot read a job without `everything`.
    """

    key: str
    kind: Kind
    provider: str | None
    model: str | None
    owner: str | None = msgspec.field(name="external_id")  # as version 0.1 reads it
    everything: bool = False
    idle_for: Seconds | None = None
    created_before: Seconds | None = None
    moved_from: str | None = None
    moved_since: Seconds | None = None
    operation: str | None = None
    to_provider: str | None
    to_model: str | None
    reason: str
    actor: str
    state: State
    done: Count = 0
    expected: Count
    detail: str = ""
    started_at: Time
    updated_at: Time
    in_foreground: bool = False

    @classmethod
    def begin(cls, key: str, plan: Plan, *, actor: str, expected: int, in_foreground: bool = False) -> Job:
        """Return a new job."""
        now = int(time.time())
        to_provider, to_model, reason = plan.move or (None, None, "")
        return cls(
            key=key,
            kind="rebind" if plan.move else "delete",
            **plan.filters._asdict(),
            everything=plan.everything,
            to_provider=to_provider,
            to_model=to_model,
            reason=reason,
            actor=actor,
            state="running",
            expected=expected,
            started_at=now,
            updated_at=now,
            in_foreground=in_foreground,
        )

    @property
    def plan(self) -> Plan:
        """The plan of the job."""
        move = Move(self.to_provider, self.to_model, self.reason) if self.kind == "rebind" else None
        return Plan(self.filters, move, self.everything)

    @property
    def filters(self) -> Filters:
        """The filters of the plan."""
        return Filters.of(msgspec.structs.asdict(self))

    @property
    def ended_at(self) -> int | None:
        """When it was stopped or finished; None while it runs."""
        return None if self.state == "running" else self.updated_at

    @property
    def is_back(self) -> bool:
        """Whether it moves sessions back to where their last move came from."""
        return self.kind == "rebind" and self.to_provider is None

    @property
    def undo(self) -> Plan | None:
        """The plan that moves back what this job has moved and what is still there; None for other jobs."""
        if self.kind != "rebind" or not self.done or self.state == "running":
            return None
        there = Filters(self.to_provider, self.to_model, self.owner, operation=self.key)
        move = Move(None, None, f"move back: {self.reason}"[:MAX_REASON_LENGTH])
        return Plan(there, move)
