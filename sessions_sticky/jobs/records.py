"""The records of jobs: bulk operations that outlive their request.

A job consists of a record, changed only by compare-and-set; a counter of changed sessions, incremented by the scripts
that change them; and the lease of its worker. A job in state "running" without a lease is taken over.
"""

from __future__ import annotations

import logging
import re
import time
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from sessions_sticky import keys
from sessions_sticky.connections.commands import Batch, Command, Script
from sessions_sticky.queries.bulk import Move
from sessions_sticky.queries.conditions import Conditions
from sessions_sticky.queries.filters import FilterFields, Filters
from sessions_sticky.session import LATEST, Session
from sessions_sticky.stores.base import Store
from sessions_sticky.turns import Seconds

logger = logging.getLogger("sessions_sticky")

Kind = Literal["delete", "rebind"]
State = Literal["running", "stopped", "done", "failed"]

KEPT_SECONDS = 86_400
"""How long a job is kept after its last change."""
MAX_LISTED = 100
MAX_REASON = 500

WRITE = Script("job")
LEASE = Script("lease")


class Plan(NamedTuple):
    """A bulk operation: delete, or with a `move` rebind, the matches of the filters or everything."""

    filters: Filters
    move: Move | None = None
    everything: bool = False
    conditions: Conditions = Conditions()

    @property
    def has_filter(self) -> bool:
        """Whether any filter is set."""
        return self.filters != Filters() or self.conditions != Conditions()

    @property
    def fields(self) -> FilterFields:
        """All filters as keyword arguments."""
        return {**self.filters.fields, **self.conditions.fields}

    def check(self) -> None:
        """Raise `ValueError` unless there is either a filter or `everything`, `InvalidSession` for impossible names."""
        if self.everything == self.has_filter:
            allowed = ", ".join((*Filters._fields, *Conditions._fields))
            raise ValueError(f"Either a filter ({allowed}) or everything=True is needed, not both")
        provider, model, owner = (name or "" for name in self.filters)
        Session("", provider, model, owner, 0).to_json()
        Session("", self.conditions.moved_from or "", self.conditions.operation or "", "", 0).to_json()
        Conditions().narrowed(self.conditions.fields)
        if self.move:
            self.move.check()
            if self.move.is_back and not self.conditions.need_moves:
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
    seconds; `updated_at` is the last heartbeat. `idle_for` to `operation` are the fields of `Conditions`.

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
            **plan.conditions._asdict(),
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
        return Plan(Filters(self.provider, self.model, self.owner), move, self.everything, self.conditions)

    @property
    def conditions(self) -> Conditions:
        """The filters that the index cannot answer."""
        return Conditions(self.idle_for, self.created_before, self.moved_from, self.moved_since, self.operation)

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
        there = Filters(self.to_provider, self.to_model, self.owner)
        move = Move(None, None, f"move back: {self.reason}"[:MAX_REASON])
        return Plan(there, move, conditions=Conditions(operation=self.key))


class Found(NamedTuple):
    """A job with its stored bytes, and whether a worker has its lease."""

    job: Job
    raw: bytes
    is_leased: bool


class Records:
    """The jobs in one store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def write(self, job: Job, expected: bytes = b"") -> bool:
        """Replace the record if it equals `expected`; return False if it has changed."""
        names = [keys.job(job.key), done_key(job.key), keys.jobs()]
        call = WRITE.call(names, expected, _ENCODER.encode(job), job.key, job.updated_at, KEPT_SECONDS)
        return bool(self._store.send(call))

    def change(self, key: str, states: tuple[State, ...], **changes: Any) -> bool:
        """Change the record of a job that is in one of the given states; return False otherwise."""
        while (found := self.find(key)) and found.job.state in states:
            if self.update(found, **changes):
                return True
        return False

    def update(self, found: Found, **changes: Any) -> bool:
        """Change the record of a job; return False if it has changed since it was read."""
        job = msgspec.structs.replace(found.job, updated_at=int(time.time()), **changes)
        return self.write(job, found.raw)

    def find(self, key: str) -> Found | None:
        """Return a job; None if there is none."""
        if not KEY.fullmatch(key):
            return None
        return _found(key, *self._store.send(Batch(_reading(key))))

    def recent(self) -> list[Found]:
        """Return the jobs with the latest changes, the most recently started first."""
        listed = self._store.send(Command[list[bytes]](("ZREVRANGE", keys.jobs(), 0, MAX_LISTED - 1)))
        names = [name.decode(errors="replace") for name in listed]
        names = [name for name in names if KEY.fullmatch(name)]
        replies = self._store.send(Batch([command for name in names for command in _reading(name)])) if names else []
        parts = zip(names, replies[::3], replies[1::3], replies[2::3], strict=True)
        jobs = [found for part in parts if (found := _found(*part))]
        return sorted(jobs, key=lambda found: found.job.started_at, reverse=True)

    def lease(self, key: str, token: str, seconds: float) -> bool:
        """Acquire, renew or (0 seconds) release the lease of a job; return False if another worker has it."""
        return bool(self._store.send(LEASE.call([_lease_key(key)], token, int(seconds * 1000))))


def done_key(key: str) -> str:
    """Return the key of the number of sessions that a job has changed."""
    return f"{keys.job(key)}:done"


def _lease_key(key: str) -> str:
    return f"{keys.job(key)}:runner"


def _reading(key: str) -> list[Command[Any]]:
    return [Command(("GET", keys.job(key))), Command(("GET", done_key(key))), Command(("EXISTS", _lease_key(key)))]


def _found(key: str, raw: bytes | None, done: bytes | None, leases: int) -> Found | None:
    if raw is None:
        return None
    try:
        job = _DECODER.decode(raw)
        number = int(done or 0)
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError) as exc:
        logger.error("unreadable job %r: %s", key, exc)
        return None
    job = msgspec.structs.replace(job, key=key, done=number)
    if job.in_foreground and job.state == "running" and not leases:
        job = msgspec.structs.replace(job, state="stopped", detail="Its command has ended.")
    return Found(job, raw, bool(leases))


KEY = re.compile(r"[0-9a-f]{32}")
"""The form of the keys of jobs."""
_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Job)
