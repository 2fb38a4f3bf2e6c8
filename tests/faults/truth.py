"""What must hold of a store whatever has happened to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sessions_sticky import Session, keys

if TYPE_CHECKING:
    from collections.abc import Iterable

    import redis

    from sessions_sticky import Event, SessionManager


def stored(raw: redis.Redis) -> dict[str, Session]:
    """Return the sessions of a store by id, all of them readable and under their own keys."""
    names = list(raw.scan_iter(f"{keys.session_prefix()}*", count=1_000))
    found = [Session.from_json(value) for value in raw.mget(names)] if names else []
    assert [keys.session(session.id).encode() for session in found] == names
    return {session.id: session for session in found}


def check_expiries(raw: redis.Redis, ttl_seconds: int) -> int:
    """Assert that every session key has an expiry within the idle time; return how many there are."""
    names = list(raw.scan_iter(f"{keys.session_prefix()}*", count=1_000))
    with raw.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.pttl(name)
        left = {name: each for name, each in zip(names, pipeline.execute(), strict=True) if each != -2}
    assert all(0 <= each <= ttl_seconds * 1000 for each in left.values()), left
    return len(left)


def check_sound(manager: SessionManager, raw: redis.Redis, *, reindexed: bool = False) -> None:
    """Assert that no session is half there: what is shown and counted is what is stored, and all of it expires.

    With `reindexed` what is counted need be true only after that.
    """
    check_expiries(raw, manager.ttl_seconds)
    sessions = stored(raw)
    assert {entry.session.id: entry.session for entry in manager.all().page(limit=1_000).entries} == sessions
    assert not reindexed or manager.reindex() == len(sessions)
    assert manager.all().count() == manager.stats().sessions == len(sessions)
    for session in sessions.values():
        assert manager.get(session.id) == session


def check_chain(events: Iterable[Event]) -> tuple[str, str] | None:
    """Assert that each event begins where the one before it ended; return the provider and model at the end."""
    bound: tuple[str, str] | None = None
    for event in events:
        if event.kind == "rebound":
            assert (event.from_provider, event.from_model) == bound, event
        if event.kind == "deleted":
            assert (event.provider, event.model) == bound, event
        bound = None if event.kind == "deleted" else (event.provider, event.model)
    return bound
