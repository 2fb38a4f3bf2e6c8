"""The records of jobs: bulk operations that outlive their request.

A job consists of a record, changed only by compare-and-set; a counter of changed sessions, incremented by the scripts
that change them; and the lease of its worker. A job in state "running" without a lease is taken over.
"""

from __future__ import annotations

import logging
import time
from typing import Any, NamedTuple

import msgspec

from sessions_sticky import keys
from sessions_sticky.connections.commands import Batch, Command, Script
from sessions_sticky.jobs.job import KEY, Job, State
from sessions_sticky.queries.index_reader import check_index
from sessions_sticky.session import plain_text
from sessions_sticky.stores.base import Store

logger = logging.getLogger("sessions_sticky")

KEPT_SECONDS = 86_400
"""How long a job is kept after its last change."""
MAX_LISTED = 100

WRITE = Script("job")
LEASE = Script("lease")


class Found(NamedTuple):
    """A job with its stored bytes, and whether a worker has its lease."""

    job: Job
    raw: bytes
    is_leased: bool


class Records:
    """The jobs in one store. Raises `SessionNotSupported` without an index."""

    def __init__(self, store: Store) -> None:
        check_index(store)
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


_ENCODER = msgspec.json.Encoder(enc_hook=plain_text)
_DECODER = msgspec.json.Decoder(Job)
