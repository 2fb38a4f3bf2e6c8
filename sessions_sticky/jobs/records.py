"""The records of bulk operations that run by themselves; see operations.py for the form.

A job is a record, changed by compare-and-set only; a number of sessions changed, which the scripts that change them
count; and a lease of whoever does it, without which a job that says "running" is taken over.
"""

from __future__ import annotations

import logging
import re
import time
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from sessions_sticky import keys
from sessions_sticky.connections.commands import Batch, Command, Script
from sessions_sticky.policy import Operation
from sessions_sticky.queries.bulk import Move
from sessions_sticky.queries.filters import Filters
from sessions_sticky.session import LATEST, Session

logger = logging.getLogger("sessions_sticky")

Kind = Literal["delete", "rebind"]
State = Literal["running", "stopped", "done", "failed"]

KEPT_SECONDS = 86_400
"""How long a job is kept after its last change."""
MAX_LISTED = 100

WRITE = Script("job")
LEASE = Script("lease")


class Plan(NamedTuple):
    """What a bulk operation is to do: delete, or with a `move` rebind, what the filters mean or everything."""

    filters: Filters
    move: Move | None = None
    everything: bool = False

    def check(self) -> None:
        """Raise `ValueError` unless there is either a filter or `everything`, `InvalidSession` for impossible names."""
        if self.everything != (self.filters == Filters()):
            raise ValueError("Either a filter (provider, model, external_id) or everything=True is needed, not both")
        provider, model, external_id = (name or "" for name in self.filters)
        Session("", provider, model, external_id, 0).to_json()
        if self.move:
            Session("", self.move.provider, self.move.model or "", self.move.reason, 0).to_json()

    @property
    def already_done(self) -> Filters | None:
        """Which of the sessions that the filters mean are where they are to be moved; None: none can be."""
        if self.move is None or self.filters.provider not in (None, self.move.provider):
            return None
        model = self.filters.model if self.move.model is None else self.move.model
        if self.filters.model not in (None, model):
            return None
        return Filters(self.move.provider, model, self.filters.external_id)


Time = Annotated[int, msgspec.Meta(ge=0, le=LATEST)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A bulk operation that runs by itself.

    `done` and `expected` count sessions; `reason` is "" and `to_provider` None for `delete`; `to_model` None keeps each
    session's own. `detail` says why it failed, else "". Times are in Unix seconds, `updated_at` that of the last sign
    of life.
    """

    key: str
    kind: Kind
    provider: str | None
    model: str | None
    external_id: str | None
    everything: bool
    to_provider: str | None
    to_model: str | None
    reason: str
    actor: str
    state: State = "running"
    done: Count = 0
    expected: Count
    detail: str = ""
    started_at: Time
    updated_at: Time

    @classmethod
    def begin(cls, key: str, plan: Plan, *, actor: str, expected: int) -> Job:
        """Return the job as it is when it begins."""
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
            expected=expected,
            started_at=now,
            updated_at=now,
        )

    @property
    def plan(self) -> Plan:
        """What it is to do."""
        move = Move(self.to_provider, self.to_model, self.reason) if self.to_provider is not None else None
        return Plan(Filters(self.provider, self.model, self.external_id), move, self.everything)


class Found(NamedTuple):
    """A job as it was found: its record's bytes, and whether somebody is doing it."""

    job: Job
    raw: bytes
    attended: bool


def tally(key: str) -> str:
    """Return the key of the number of sessions that a job has changed."""
    return f"{keys.job(key)}:done"


def write(job: Job, expected: bytes = b"") -> Operation[bool]:
    """Write a record in the place of the `expected` one; False when that is another by now."""
    names = [keys.job(job.key), tally(job.key), keys.JOBS]
    return bool((yield WRITE.call(names, expected, _ENCODER.encode(job), job.key, job.updated_at, KEPT_SECONDS)))


def change(key: str, states: tuple[State, ...], **changes: Any) -> Operation[bool]:
    """Change the record of a job that is in one of some states; False when it is not, or gone."""
    while (found := (yield from find(key))) and found.job.state in states:
        if (yield from update(found, **changes)):
            return True
    return False


def update(found: Found, **changes: Any) -> Operation[bool]:
    """Change the record of a job as it was found; False when it is another by now."""
    job = msgspec.structs.replace(found.job, updated_at=int(time.time()), **changes)
    return (yield from write(job, found.raw))


def find(key: str) -> Operation[Found | None]:
    """Read a job; None when there is none."""
    if not _KEY.fullmatch(key):
        return None
    return _found(key, *(yield Batch(_reading(key))))


def recent() -> Operation[list[Found]]:
    """Read the jobs with the latest changes, the last begun first."""
    listed = yield Command(("ZREVRANGE", keys.JOBS, 0, MAX_LISTED - 1))
    names = [name.decode(errors="replace") for name in listed]
    names = [name for name in names if _KEY.fullmatch(name)]
    if not names:
        return []
    replies = yield Batch([command for name in names for command in _reading(name)])
    parts = zip(names, replies[::3], replies[1::3], replies[2::3], strict=True)
    jobs = [found for part in parts if (found := _found(*part))]
    return sorted(jobs, key=lambda found: found.job.started_at, reverse=True)


def lease(key: str, token: str, seconds: float) -> Command:
    """Take, keep or, for 0 seconds, give back the lease of a job; see lease.lua."""
    return LEASE.call([_runner(key)], token, int(seconds * 1000))


def _runner(key: str) -> str:
    return f"{keys.job(key)}:runner"


def _reading(key: str) -> list[Command]:
    return [Command(("GET", keys.job(key))), Command(("GET", tally(key))), Command(("EXISTS", _runner(key)))]


def _found(key: str, raw: bytes | None, done: bytes | None, attended: int) -> Found | None:
    if raw is None:
        return None
    try:
        job = _DECODER.decode(raw)
        number = int(done or 0)
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError) as exc:
        logger.error("unreadable job %r: %s", key, exc)
        return None
    return Found(msgspec.structs.replace(job, key=key, done=number), raw, bool(attended))


_KEY = re.compile(r"[0-9a-f]{32}")
_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Job)
