"""Filters as Django people write them."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest
from django.core.cache.backends.locmem import LocMemCache

from sessions_sticky import SessionManager, SessionNotSupported, sessions
from sessions_sticky.queries.filters import Filters
from tests.sessions_sticky.calls import PROPOSAL
from tests.sessions_sticky.indexed import fill, ids, on_real, on_valkey

HOUR = 3600


@pytest.fixture
def mixed(manager):
    """Four sessions of two providers, two models and two owners."""
    for conversation_id, *names in (
        ("1", "openai", "gpt-4", "ann"),
        ("2", "openai", "gpt-5", "bob"),
        ("3", "azure", "gpt-4", "ann"),
        ("4", "azure", "gpt-5", ""),
    ):
        manager.create(conversation_id, *names)


def found(query):
    return sorted(entry.session.id for entry in query)


@on_real
@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"provider": "openai"}, "12"),
        ({"model": "gpt-4"}, "13"),
        ({"owner": "ann"}, "13"),
        ({"owner": ""}, "4"),
        ({"owner": "ann", "provider": "azure"}, "3"),
        ({"provider": "azur"}, ""),
        ({"provider": "\ud800"}, ""),
    ],
)
def test_filter_matches_what_equals_all_given(manager, mixed, fields, expected):
    query = manager.filter(**fields)
    assert found(query) == list(expected)
    assert query.count() == len(expected)
    assert sorted(ids([entry.session for entry in query.page().entries])) == list(expected)


@on_real
def test_filter_narrows_a_query_and_leaves_it_as_it_was(manager, mixed):
    azure = manager.filter(provider="azure")
    assert found(azure.filter(owner="ann").filter(model="gpt-4")) == ["3"]
    assert found(azure) == ["3", "4"]
    assert repr(azure) == f"<SessionQuery {Filters('azure')}>"


@on_valkey
async def test_query_has_async_forms(manager):
    await manager.acreate("1", "openai", "gpt-4", "ann")
    openai = manager.filter(provider="openai")
    assert await openai.acount() == 1
    assert [entry.session.id for entry in (await openai.apage()).entries] == ["1"]
    assert await openai.arebind(to_provider="azure", reason="a test") == 1
    assert await manager.filter(provider="azure").adelete() == 1
    assert await manager.all().acount() == 0
    assert openai.acount.__doc__.startswith("Return the number of sessions")


@on_valkey
@pytest.mark.parametrize("number", [0, 1, 100, 101, 250])
async def test_query_yields_each_session_once_to_async_for(manager, number):
    fill(manager, number)
    assert len({entry.session.id async for entry in manager.all()}) == number


def test_is_everything_is_true_only_without_a_filter(manager):
    assert manager.all().is_everything
    assert not manager.filter(owner="").is_everything


async def test_async_for_raises_like_the_methods():
    with pytest.raises(SessionNotSupported):
        _ = [entry async for entry in SessionManager(LocMemCache("not-redis", {})).all()]


@on_real
def test_query_deletes_and_rebinds_only_what_matches(manager, mixed):
    progress = []
    assert manager.filter(owner="ann").rebind(to_provider="p", to_model="m", reason="a test") == 2
    assert found(manager.filter(provider="p", model="m")) == ["1", "3"]
    assert manager.filter(provider="p").delete(progress=lambda *step: progress.append(step)) == 2
    assert progress[-1] == (2, 2)
    assert found(manager.all()) == ["2", "4"]
    assert manager.all().delete() == 2


@on_real
@pytest.mark.parametrize("idle_for", [timedelta(hours=2), 2 * HOUR])
def test_idle_for_matches_sessions_not_used_for_that_time(manager, raw, idle_for):
    for conversation_id, idle_seconds in (("new", 0), ("old", 2 * HOUR + 1), ("young", 2 * HOUR - 60)):
        manager.create(conversation_id, **PROPOSAL)
        raw.expire(f"sentinel:session:{conversation_id}", manager.ttl_seconds - idle_seconds)
    manager.create("0123456789ab:content:1234@gpt-4", **PROPOSAL)
    raw.expire("sentinel:session:0123456789ab:content:1234@gpt-4", 60)  # their idle time is another one
    manager.create("immortal", **PROPOSAL)
    raw.persist("sentinel:session:immortal")
    assert found(manager.all().filter(idle_for=idle_for)) == ["old"]
    assert manager.filter(idle_for=idle_for, provider="openai").count() == 1
    assert manager.filter(idle_for=idle_for).delete() == 1
    assert manager.all().count() == 4


@on_real
def test_created_before_matches_older_sessions(manager, raw):
    now = int(time.time())
    for conversation_id, age in (("old", 100), ("new", 10)):
        session = manager.create(conversation_id, **PROPOSAL)
        raw.set(f"sentinel:session:{conversation_id}", session.to_json().replace(b"%d" % now, b"%d" % (now - age)))
    for border in (now - 50, datetime.fromtimestamp(now - 50, UTC)):
        assert found(manager.filter(created_before=border)) == ["old"]
    assert manager.filter(created_before=now - 50).rebind(to_provider="p", reason="a test") == 1
    assert manager.get("new").provider == "openai"


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({}, "needs one of provider, model, owner"),
        ({"provider": None}, "provider must be a string, not None"),
        ({"provider": "openai", "owner": None}, "owner must be a string, not None"),
        ({"provider": "openai", "idle_for": None}, "idle_for must be a time or a number of seconds"),
        ({"provider": 5}, "provider must be a string, not 5"),
        ({"owner": b"ann"}, "owner must be a string"),
        ({"idle_for": "2h"}, "idle_for must be a time or a number of seconds of at least 0, not '2h'"),
        ({"idle_for": True}, "idle_for must be a time"),
        ({"idle_for": float("nan")}, "idle_for must be a time"),
        ({"created_before": -1}, "created_before must be a time or a number of seconds"),
        ({"created_before": datetime(2026, 1, 1)}, "time zone"),
    ],
)
def test_filter_refuses_what_cannot_be_a_filter(fields, error):
    with pytest.raises(ValueError, match=error):
        sessions.filter(**fields)


def test_filter_refuses_an_unknown_name_and_one_that_is_set():
    with pytest.raises(TypeError, match="Unknown filters: external_id, provder; allowed are provider"):
        sessions.filter(provder="openai", external_id="ann")
    for fields in ({"provider": "a"}, {"owner": ""}, {"idle_for": 0}, {"created_before": 5}):
        with pytest.raises(ValueError, match="already filtered by"):
            sessions.filter(**fields).filter(**fields)


@on_valkey
def test_page_refuses_filters_by_time(manager):
    with pytest.raises(ValueError, match="iterate"):
        manager.filter(idle_for=5).page()


@on_valkey
def test_query_follows_the_settings_when_they_change(manager, settings):
    query = sessions.filter(**{"provider": "openai"})
    fill(manager, 2)
    assert query.count() == 2
    settings.SESSIONS_STICKY = {"INDEX": False}
    with pytest.raises(SessionNotSupported, match="INDEX"):
        query.count()
