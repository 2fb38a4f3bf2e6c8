"""Wrong and missing index entries are never shown, are removed when read, and disturb no method."""

from __future__ import annotations

import pytest

from sessions_sticky import Outcome, keys
from tests.sessions_sticky.calls import MOVE, PROPOSAL, sample
from tests.sessions_sticky.indexed import (
    entries,
    fill,
    forget_refreshes,
    ids,
    index_keys,
    on_real,
    pager,
    walk,
    write_raw,
)
from tests.waiting import wait_until

# Ghosts: entries whose session is gone, or elsewhere.

GHOSTS = {
    "deleted": lambda raw, key: raw.delete(key),
    "expired": lambda raw, key: raw.pexpire(key, 1) and wait_until(lambda: not raw.exists(key)),
    "no session": lambda raw, key: raw.set(key, "junk"),
    "another id": lambda raw, key: raw.set(key, sample("conv-9").to_json()),
    "another type": lambda raw, key: raw.delete(key) and raw.rpush(key, "x"),
}


@on_real
@pytest.mark.parametrize("ghost", GHOSTS)
def test_ghost_is_not_shown_and_removed_when_it_is_met(call, manager, raw, ghost):
    fill(manager, 3)
    GHOSTS[ghost](raw, keys.session("conv-1"))
    shown = [entry.session.id for entry in call("page", provider="openai").entries]
    assert sorted(shown) == ["conv-0", "conv-2"]
    assert sorted(ids(walk(pager(call), external_id="user-456"))) == ["conv-0", "conv-2"]
    assert all(b"conv-1" not in held for held in entries(raw).values())
    assert call("count") == call("count", provider="openai") == call("count", external_id="user-456") == 2


@on_real
def test_ghost_stays_away_from_its_old_places_when_another_program_has_moved_it(call, manager, raw):
    fill(manager, 2)
    write_raw(raw, "conv-1", provider="mistral", owner="another-owner")
    assert ids(walk(pager(call), provider="openai")) == ["conv-0"]
    assert ids(walk(pager(call), external_id="user-456")) == ["conv-0"]
    assert (
        ids(walk(pager(call), provider="mistral")) == ids(walk(pager(call), external_id="another-owner")) == ["conv-1"]
    )
    assert (call("count"), call("count", provider="openai"), call("count", external_id="user-456")) == (2, 1, 1)


@on_real
def test_session_is_listed_for_its_new_owner_when_the_old_one_s_list_is_read(call, manager, raw):
    fill(manager, 2)
    write_raw(raw, "conv-1", owner="another-owner")
    assert ids(walk(pager(call), external_id="user-456")) == ["conv-0"]
    assert ids(walk(pager(call), external_id="another-owner")) == ["conv-1"]
    assert sorted(ids(walk(pager(call)))) == ["conv-0", "conv-1"]


POISON = {
    "no UTF-8": {b"\xff\xfe": 9e9, b"\x80": 9e9},
    "never": {"conv-0": float("inf")},
    "long ago": {"conv-0": float("-inf"), "gone": float("-inf")},
    "far": {"conv-0": 1e300, "gone": -1e300, "conv-1": 1e21},
    "empty id": {"": 9e9},
    "control characters": {"a\nb\x00": 9e9},
}


@on_real
@pytest.mark.parametrize("poison", POISON)
@pytest.mark.parametrize("limit", [1, 50])
def test_walk_continues_when_another_program_has_written_into_the_index(call, manager, raw, poison, limit):
    fill(manager, 3)
    for key in entries(raw):
        raw.zadd(key, POISON[poison])
    for filters in ({}, {"provider": "openai"}, {"external_id": "user-456"}):
        assert sorted(ids(walk(pager(call), limit=limit, **filters))) == ["conv-0", "conv-1", "conv-2"]
    assert call("stats").sessions == call("count") == 3
    assert call("resolve", "conv-0", **PROPOSAL).outcome is Outcome.HIT


@on_real
def test_everything_continues_when_index_keys_have_another_type(call, manager, raw):
    fill(manager, 2)
    for key in (*index_keys(raw), keys.history(), keys.history_of("conv-0"), *raw.scan_iter("sentinel:created:*")):
        raw.delete(key)
        raw.set(key, "junk")
    assert call("page") == call("page", provider="openai") == call("page", external_id="user-456") == ([], None)
    assert call("page", provider="openai", model="gpt-4", external_id="user-456") == ([], None)
    assert call("count") == call("count", provider="openai", external_id="user-456") == call("stats").sessions == 0
    assert call("recent") == []
    assert [event.kind for event in call("history", "conv-0")] == ["created"]
    forget_refreshes(manager)
    assert call("resolve", "conv-0", **PROPOSAL).outcome is Outcome.HIT
    session, outcome = call("resolve", "conv-9", **PROPOSAL)
    assert outcome is Outcome.CREATED
    assert call("delete", call("rebind", session, **MOVE).id)
    assert call("delete_all") == 0
    assert call("reindex") == 2
    assert call("count") == call("stats").sessions == 2


@on_real
def test_entry_is_brought_up_to_date_when_it_lags_behind_and_is_met(call, manager, raw):
    """As after another program has used the session."""
    fill(manager, 1)
    for key, members in entries(raw).items():
        raw.zincrby(key, -100, next(iter(members)))
    behind = raw.zscore(keys.index_all(), "conv-0")
    assert ids(walk(pager(call))) == ["conv-0"]
    assert raw.zscore(keys.index_all(), "conv-0") > behind + 90
