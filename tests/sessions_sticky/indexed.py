"""Helpers for tests of the index: complete walks, stale entries, checks of its keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sessions_sticky import SessionManager, keys
from tests.conftest import SHARDED_STORES
from tests.sessions_sticky.calls import PROPOSAL, sample

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis

    from sessions_sticky import Session

on_real = pytest.mark.parametrize("store_name", SHARDED_STORES, indirect=True)
on_valkey = pytest.mark.parametrize("store_name", ["valkey"], indirect=True)

HOSTILE = [
    "a:b:{c}",
    'say "hi" \\ [*?]',
    "\U0001f600" * 256,
    "zebra",
    "zebras",
    "Zebra",
    "zébra",
    "ß",
    "ss",
    "-",
    "a b",
    "ab",
    "*",
    "[a-z]*",
    "\uffff",
    "\U00010000",
]
"""Names that have caused bugs: separators, quotes, globs, length, and where bytes and locales sort differently."""


def pager(call: Callable[..., Any]) -> Callable[..., Any]:
    """Return the method `page`, or its twin."""
    return lambda **kwargs: call("page", **kwargs)


def walk(page: Callable[..., Any], *, limit: int = 50, **filters: str) -> list[Session]:
    """Take all pages; return their sessions."""
    found, cursor = [], None
    while True:
        part = page(cursor=cursor, limit=limit, **filters)
        assert len(part.entries) <= limit
        found += [entry.session for entry in part.entries]
        if part.next_cursor is None:
            return found
        cursor = part.next_cursor


def ids(sessions: list[Session]) -> list[str]:
    """Return the ids of sessions."""
    return [session.id for session in sessions]


def fill(manager: SessionManager, number: int, **fields: str) -> list[Session]:
    """Create some sessions, `conv-0` and so on."""
    return [manager.create(f"conv-{n}", **{**PROPOSAL, **fields}, replace=True) for n in range(number)]


def forget_refreshes(manager: SessionManager) -> None:
    """Make the process forget when it refreshed entries, as after a minute or in another process."""
    manager._store.refresh_tracker.__init__()


def index_keys(raw: redis.Redis) -> list[str]:
    """Return the keys of the index proper: neither counters nor history."""
    return sorted(key.decode() for key in raw.scan_iter("sentinel:{index}:*"))


def entries(raw: redis.Redis) -> dict[str, dict[bytes, float]]:
    """Return the entries of the index by key."""
    return {key: dict(raw.zrange(key, 0, -1, withscores=True)) for key in index_keys(raw)}


def age(raw: redis.Redis) -> None:
    """Make all entries ten seconds older, so that using a session moves it, however fast the test is."""
    for key, members in entries(raw).items():
        for member in members:
            raw.zincrby(key, -10, member)


def lose_index(raw: redis.Redis) -> None:
    """Delete the index and nothing else."""
    if found := index_keys(raw):
        raw.delete(*found)


def write_raw(raw: redis.Redis, conversation_id: str, ttl: int = 86_400, **fields: Any) -> Session:
    """Write a session as another program does: the key alone."""
    session = sample(conversation_id, **fields)
    raw.set(keys.session(conversation_id), session.to_json(), ex=ttl)
    return session


def places(session: Session) -> set[str]:
    """Return the index keys that hold an entry of a session."""
    return {keys.index_all(), keys.owner(session.external_id), keys.route(session.provider, session.model)}


def check(raw: redis.Redis, sessions: list[Session]) -> None:
    """Assert that the index holds just these sessions, each in its places, and dies with them."""
    held = entries(raw)
    routes = held.pop(keys.index_routes(), {})
    expected: dict[str, set[bytes]] = {}
    for session in sessions:
        for place in places(session):
            expected.setdefault(place, set()).add(session.id.encode())
    assert {key: set(members) for key, members in held.items()} == expected
    assert {keys.route_name(s.provider, s.model).encode() for s in sessions} <= set(routes)
    for key in index_keys(raw):
        assert 0 < raw.pttl(key) <= (86_400 + 2 * 60) * 1000
