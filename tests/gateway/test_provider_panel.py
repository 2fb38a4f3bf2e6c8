"""The condition of the providers, on the overview in Django admin."""

from __future__ import annotations

import time

import msgspec
import pytest
import redis
from django.core.cache import cache
from django.test import Client
from pytest_django import Settings

from sentinel_project.gateway import provider_panel
from sentinel_project.gateway.providers import health_sync as shared_health
from sentinel_project.gateway.providers.config import Provider
from sentinel_project.gateway.providers.health import LOST_SECONDS, Condition, Health
from sentinel_project.gateway.routing import plan as routing
from sessions_sticky import cache_config
from tests.servers import start_server

NOW = 1_800_000_000.0
NORTH = Provider(name="north", base_url="https://north.invalid/v1", api_key=None, models=("a", "b"), weight=1)
PAGE = "/admin/sessions_sticky/session/overview/"


@pytest.fixture
def health(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> Health:
    """What this process knows: nothing yet. One provider is configured."""
    settings.SENTINEL_PROVIDERS = (NORTH,)
    fresh = Health(30)
    monkeypatch.setattr(routing, "health", fresh)
    return fresh


@pytest.mark.parametrize(
    ("condition", "state", "left"),
    [
        (Condition(), "healthy", 0),
        (Condition(failures=1, cooling_until=NOW + 20), "cooling", 20),
        (Condition(failures=1, cooling_until=NOW - 1), "trial", 0),
        (Condition(failures=1, cooling_until=NOW + 20, failing_since=NOW - 80, failed_at=NOW), "cooling", 20),
        (Condition(failures=4, cooling_until=NOW, failing_since=NOW - LOST_SECONDS, failed_at=NOW), "lost", 0),
    ],
)
def test_row_tells_the_state_of_a_provider(condition: Condition, state: str, left: int):
    row = provider_panel.row(NORTH, condition, NOW)
    assert (row.state, row.seconds_left) == (state, left)
    assert (row.cooling_until is not None) is (left > 0)
    assert (row.failing_since is not None) is bool(condition.failing_since)


def test_conditions_are_those_of_the_process_that_knows_them_newest(session_cache: redis.Redis, health: Health):
    health.conditions["north"] = mine = Condition(failures=1, at=10)
    assert provider_panel.conditions() == {"north": mine}
    for at, expected in ((9, mine), (11, Condition(failures=2, at=11))):
        cache.set(shared_health._key("north"), msgspec.to_builtins(Condition(failures=2, at=at)))
        assert provider_panel.conditions() == {"north": expected}


@pytest.mark.parametrize("junk", ["text", {"failures": "many"}, [1]])
def test_conditions_leave_out_what_is_not_one(session_cache: redis.Redis, health: Health, junk: object):
    cache.set(shared_health._key("north"), junk)
    assert provider_panel.conditions() == {}


def test_conditions_are_those_of_this_process_when_the_cache_is_down(health: Health, settings: Settings):
    health.conditions["north"] = mine = Condition(failures=1, at=10)
    with start_server() as server:
        settings.CACHES = {"default": cache_config(server.url)}
        server.kill()
        assert provider_panel.conditions() == {"north": mine}


@pytest.mark.django_db
def test_overview_shows_a_provider_that_cools_down(session_cache: redis.Redis, health: Health, admin_client: Client):
    assert "Healthy" in admin_client.get(PAGE).text
    health.failed("north")
    page = admin_client.get(PAGE).text
    assert "Cooling down" in page
    assert "Nobody is sent there until" in page
    assert "No sign of life (since" in page
    health.conditions["north"] = Condition(2, 0, 0, time.time() - 200, time.time() - 100)
    assert "Its conversations move to other providers" in admin_client.get(PAGE).text


@pytest.mark.django_db
def test_drain_offers_the_configured_providers(session_cache: redis.Redis, health: Health, admin_client: Client):
    page = admin_client.get("/admin/sessions_sticky/session/drain/").text
    assert '<option value="north">' in page
    assert '<option value="b">' in page
