"""The state of the providers, on the overview in Django admin."""

from __future__ import annotations

import time

import pytest
import redis
from django.core.cache import cache
from django.test import Client
from pytest_django import Settings

from sentinel_project.gateway import provider_panel
from sentinel_project.gateway.providers import health_sync
from sentinel_project.gateway.providers.config import Provider
from sentinel_project.gateway.providers.failures import Cools
from sentinel_project.gateway.providers.health import LOST_SECONDS, Health
from sentinel_project.gateway.providers.reload import providers
from sentinel_project.gateway.providers.slots import ACCOUNT, PROVIDER, Failure, SlotState, model_slot
from sentinel_project.gateway.routing import plan as routing
from sessions_sticky import cache_config
from tests.servers import start_server

NOW = 1_000.0
DOWN = Failure(Cools.PROVIDER)
NORTH = Provider(name="north", base_url="https://north.invalid/v1", api_key=None, models=("a", "b"), weight=1)
PAGE = "/admin/sessions_sticky/session/overview/"


@pytest.fixture
def health(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> Health:
    """What this process knows: nothing yet. One provider is configured."""
    settings.SENTINEL_PROVIDERS = (NORTH,)
    fresh = Health(30, providers)
    monkeypatch.setattr(routing, "health", fresh)
    return fresh


def share(health: Health) -> None:
    """Store what a process knows, as `share_forever` does."""
    health_sync.write("default", {"north": health_sync.record(health.states["north"], health.now())})


@pytest.mark.parametrize(
    ("slot", "state", "expected", "left"),
    [
        (PROVIDER, SlotState(), "healthy", 0),
        (PROVIDER, SlotState(failures=1, cooling_until=NOW + 20), "cooling", 20),
        (ACCOUNT, SlotState(failures=1, cooling_until=NOW + 20), "cooling", 20),
        (model_slot("b"), SlotState(failures=1, cooling_until=NOW + 20), "cooling", 20),
        (PROVIDER, SlotState(failures=1, cooling_until=NOW - 1), "trial", 0),
        (PROVIDER, SlotState(failures=1, cooling_until=NOW + 20, failing_since=NOW - 80, failed_at=NOW), "cooling", 20),
        (
            PROVIDER,
            SlotState(failures=4, cooling_until=NOW, failing_since=NOW - LOST_SECONDS, failed_at=NOW),
            "lost",
            0,
        ),
    ],
)
def test_row_shows_the_state_of_a_provider(slot: str, state: SlotState, expected: str, left: int):
    health = Health(30, lambda: [NORTH], lambda: NOW)
    health.states = {"north": {slot: state}}
    row = provider_panel.row(NORTH, health)
    assert (row.state, row.seconds_left) == (expected, left)
    assert row.cooling_models == (["b"] if slot == model_slot("b") else [])
    assert (row.cooling_until is not None) is (left > 0)
    assert (row.failing_since is not None) is bool(state.failing_since)


def test_health_is_that_of_the_process_that_knows_it_newest(session_cache: redis.Redis, health: Health):
    other = Health(30, providers)
    other.failed("north", "a", DOWN)
    share(other)
    assert provider_panel.latest_health().seconds_left("north") > 25
    time.sleep(0.01)  # the age of a shared record is known to the millisecond
    health.answered("north", "a", health.now())  # nothing to end
    health.failed("north", "a", DOWN)
    health.answered("north", "a", health.now())
    assert provider_panel.latest_health().failing() == []
    assert health.states["north"][PROVIDER].failures == 0


@pytest.mark.parametrize("junk", ["text", {"slots": "many"}, [1]])
def test_health_leaves_out_a_record_that_is_not_one(session_cache: redis.Redis, health: Health, junk: object):
    cache.set("sentinel:provider:north", junk)
    assert provider_panel.latest_health().failing() == []


def test_health_is_that_of_this_process_when_the_cache_is_down(health: Health, settings: Settings):
    health.failed("north", "a", DOWN)
    with start_server() as server:
        settings.CACHES = {"default": cache_config(server.url)}
        server.kill()
        assert provider_panel.latest_health().failing() == ["north"]


@pytest.mark.django_db
def test_overview_shows_a_provider_that_cools_down(session_cache: redis.Redis, health: Health, admin_client: Client):
    assert "Healthy" in admin_client.get(PAGE).text
    health.failed("north", "b", Failure(Cools.MODEL))
    assert "Only these models: b" in admin_client.get(PAGE).text
    health.failed("north", "a", DOWN)
    page = admin_client.get(PAGE).text
    assert "Cooling down" in page
    assert "Only these models" not in page
    assert "No requests until" in page
    assert "No sign of life (since" in page
    now = health.now()
    health.states["north"] = {PROVIDER: SlotState(failures=2, failing_since=now - 200, failed_at=now - 100)}
    assert "Its conversations move to other providers" in admin_client.get(PAGE).text


@pytest.mark.django_db
def test_drain_offers_the_configured_providers(session_cache: redis.Redis, health: Health, admin_client: Client):
    page = admin_client.get("/admin/sessions_sticky/session/drain/").text
    assert '<option value="north">' in page
    assert '<option value="b">' in page
