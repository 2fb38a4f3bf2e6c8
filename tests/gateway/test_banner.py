"""The banner: whether customers are affected, and by which provider."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest
import redis
from django.core.cache import cache
from pytest_django import Settings

import sentinel_project.gateway.banner as banner_module
from sentinel_project.gateway.banner import Banner, banner
from sentinel_project.gateway.provider_status import State, status
from sentinel_project.gateway.providers.config import Provider
from sentinel_project.gateway.providers.failures import Cools
from sentinel_project.gateway.providers.health import Health
from sentinel_project.gateway.providers.slots import PROVIDER, Failure
from sentinel_project.gateway.recent import Recent
from sessions_sticky import Turn, cache_config, keys, sessions
from sessions_sticky.queries.server_info import Level
from tests.servers import free_port

NORTH, SOUTH = (
    Provider(name=name, base_url="https://a.invalid/v1", api_key=None, models=("m",), weight=1)
    for name in ("north", "south")
)
DOWN = Failure(Cools.PROVIDER, error="HTTP 503")


@pytest.fixture
def health(session_cache: redis.Redis) -> Health:
    return Health(30, lambda: (NORTH, SOUTH))


def shown(health: Health) -> Banner:
    return banner([status(each, health) for each in (NORTH, SOUTH)])


def record(outcome: str, bound: str = "north", provider: str = "south", **fields: Any) -> None:
    turn = Turn(conversation_id=None, at=1, model="m", outcome=outcome, bound_provider=bound, provider=provider)
    sessions.record_turn(turn)


def test_banner_is_calm_when_there_is_nothing(health: Health) -> None:
    assert shown(health) == (
        Level.OK,
        "Customers are not affected: no chats in the last 5 minutes.",
        ["All 2 providers are healthy."],
    )


ALL_DRAINED = "All providers are drained: new conversations are refused with 503."


def test_banner_warns_when_all_providers_are_drained(health: Health) -> None:
    drained = [status(each, health)._replace(is_drained=True) for each in (NORTH, SOUTH)]
    assert banner(drained) == (Level.WARNING, ALL_DRAINED, [])
    record("hit")
    assert banner(drained) == (Level.WARNING, ALL_DRAINED, [])
    record("unanswered", "", "")
    level, headline, lines = banner(drained)
    assert level is Level.ERROR
    assert headline == "Customers are affected: 1 of 2 chats failed in the last 5 minutes."
    assert lines == [ALL_DRAINED]


def test_banner_warns_when_all_providers_have_weight_0(health: Health) -> None:
    unused = [status(each, health)._replace(weight=0) for each in (NORTH, SOUTH)]
    text = "All providers are drained or have weight 0: new conversations are refused with 503."
    assert banner(unused) == (Level.WARNING, text, [])
    assert banner([unused[0]._replace(is_drained=True), unused[1]]).headline == text


def test_banner_names_the_models_whose_last_provider_is_drained(health: Health) -> None:
    more = msgspec.structs.replace(NORTH, models=("m", "z", "b"))
    drained = status(more, health)._replace(is_drained=True)
    text = "New conversations of these models are refused with 503, because all their providers are drained: b, z."
    assert banner([drained, status(SOUTH, health)]) == (Level.WARNING, text, [])
    assert banner([drained._replace(provider=NORTH), status(SOUTH, health)]).level is Level.OK


def test_banner_warns_of_drained_providers_when_the_store_is_down(
    health: Health, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(banner_module, "recent", Recent())
    settings.CACHES = {"default": cache_config(f"redis://127.0.0.1:{free_port()}/0")}
    level, headline, lines = banner([status(each, health)._replace(is_drained=True) for each in (NORTH, SOUTH)])
    assert (level, headline) == (Level.WARNING, ALL_DRAINED)
    assert lines == ["The session store is unavailable: these are the chats of one worker."]


def test_banner_names_the_provider_that_is_down_and_who_serves_its_chats(health: Health) -> None:
    health.failed("north", "m", DOWN)
    for _ in range(3):
        record("spilled")
    record("rebound")
    record("hit", "south")
    level, headline, (line,) = shown(health)
    assert level is Level.WARNING
    assert headline == "Customers are not affected: 0 of 5 chats failed in the last 5 minutes."
    assert line.startswith("north has been failing since 20")
    assert line.endswith(" UTC (HTTP 503). 4 chats served by south, 0 failed.")


def test_banner_says_that_customers_are_affected_when_chats_fail(health: Health) -> None:
    health.failed("north", "m", DOWN)
    record("spilled")
    record("unanswered", provider="north")
    record("unanswered", "", "")  # no provider could be asked
    record("refused", "south")  # its own fault
    level, headline, (line,) = shown(health)
    assert level is Level.ERROR
    assert headline == "Customers are affected: 2 of 4 chats failed in the last 5 minutes."
    assert line.endswith("1 chat served by south, 1 failed.")


def test_banner_reports_providers_that_are_limited_or_lost(health: Health) -> None:
    health.failed("south", "m", Failure(Cools.MODEL, retry_after=9, is_alive=True, error="HTTP 429"))
    health.record_pace("north", is_slow=True)
    (limited,) = shown(health).lines
    assert limited.startswith(
        "Cooling down or slow: north (slow), south (HTTP 429). Other providers of the same models"
    )
    assert shown(health).level is Level.WARNING
    health.failed("north", "m", DOWN)
    state = health.states["north"][PROVIDER]
    health.states["north"][PROVIDER] = type(state)(
        failures=9, error="x", unanswered_since=health.now() - 400, failing_since=0, failed_at=health.now()
    )
    unserved, line, _ = shown(health).lines
    assert unserved == "No provider serves these models at the moment: m."
    assert line.endswith("(x). Its conversations move permanently with their next chat.")
    held = [status(each, health)._replace(is_held=True) for each in (NORTH, SOUTH)]
    assert banner(held).lines[1].endswith("UTC (x).")


def test_banner_names_the_models_that_no_provider_serves(health: Health) -> None:
    both, only = (
        msgspec.structs.replace(each, models=models) for each, models in ((NORTH, ("a", "b")), (SOUTH, ("b",)))
    )
    health.failed("north", "a", Failure(Cools.MODEL, retry_after=9, is_alive=True, error="HTTP 429"))
    lines = banner([status(both, health), status(only, health)]).lines
    assert lines[0] == "No provider serves these models at the moment: a."
    health.failed("south", "b", DOWN)
    assert banner([status(both, health), status(only, health)]).lines[0] == lines[0]
    health.failed("north", "b", DOWN)
    assert banner([status(both, health), status(only, health)]).lines[0].endswith("at the moment: a, b.")


def test_banner_does_not_call_providers_healthy_when_their_state_is_unknown(health: Health) -> None:
    level, _, lines = banner([status(each, health)._replace(state=State.UNKNOWN) for each in (NORTH, SOUTH)])
    assert level is Level.WARNING
    assert lines == ["The state of the providers is unknown: it cannot be read from the cache."]


def test_banner_counts_chats_served_since_the_provider_has_been_failing(health: Health) -> None:
    minute = int(time.time()) // 60
    client = cache.client.get_client()
    for ago, number in ((3, 2), (30, 40), (50, 100)):
        field = f'["{minute - ago}","turns","spilled","north","south"]'
        client.hset(keys.usage("activity", (minute - ago) // 60), field, number)
    health.failed("north", "m", DOWN)
    state = health.states["north"][PROVIDER]
    health.states["north"][PROVIDER] = type(state)(
        failures=9, error="x", unanswered_since=health.now() - 40 * 60, failed_at=health.now()
    )
    (line,) = shown(health).lines
    assert "42 chats served by south" in line
    assert "of 2 chats" in shown(health).headline
