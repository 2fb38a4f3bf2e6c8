"""Parts of the JSON output; performs no I/O."""

from __future__ import annotations

from typing import Any

import msgspec

from sessions_sticky.jobs.records import Job
from sessions_sticky.session import Entry, Session
from sessions_sticky.stores.history import Event


def session_json(session: Session) -> dict[str, Any]:
    """Return the fields of a session, and its owner also under that name."""
    return {**msgspec.structs.asdict(session), "owner": session.owner}


def entry_json(entry: Entry) -> dict[str, Any]:
    """Return the fields of a session and `expires_in`, the remaining idle time in seconds."""
    return {**session_json(entry.session), "expires_in": entry.expires_in}


def event_json(event: Event) -> dict[str, Any]:
    """Return the fields of an event, with its time as the HTTP API has it."""
    return {**event._asdict(), "at": f"{event.at.replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"}


def operation_json(job: Job) -> dict[str, Any]:
    """Return the fields of a bulk operation; `external_id` is the former name of its filter `owner`."""
    return {**msgspec.structs.asdict(job), "external_id": job.owner, "ended_at": job.ended_at}
