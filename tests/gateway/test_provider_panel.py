"""The state of the providers, on the overview in Django admin."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import msgspec
import pytest
import redis
from django.core.cache import cache
from django.test import Client
from pytest_django import Settings

from sentinel_project.gateway import banner
from sentinel_project.gateway.provider_findings import check_providers
from sentinel_project.gateway.provider_status import State, latest_health, status, statuses
from sentinel_project.gateway.providers import actions, controls, health_sync
from sentinel_project.gateway.providers.config import Provider
from sentinel_project.gateway.providers.current import providers
from sentinel_project.gateway.providers.failures import Cools
from sentinel_project.gateway.providers.health import Health
from sentinel_project.gateway.providers.slots import (
    ACCOUNT,
    CACHE,
    LOST_SECONDS,
    PROVIDER,
    SLOW,
    Failure,
    SlotState,
    model_slot,
)
from sentinel_project.gateway.recent import MINUTES, Recent
from sentinel_project.gateway.routing import process
from sessions_sticky import Attempt, Turn, Usage, cache_config, sessions
from sessions_sticky.queries.server_info import Level
from tests.servers import start_server

NOW = 1_000.0
DOWN = Failure(Cools.PROVIDER)
NORTH = Provider(name="north", base_url="https://north.invalid/v1", api_key=None, models=("a", "b"), weight=1)
PAGE = "/admin/sessions_sticky/session/overview/"


@pytest.fixture(autouse=True)
def _no_controls() -> Iterator[None]:
    controls.take_over({})
    yield
    controls.take_over({})


@pytest.fixture
def health(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> Health:
    """What this process knows: nothing yet. One provider is configured."""
    settings.SENTINEL_PROVIDERS = (NORTH,)
    fresh = Health(30, providers)
    monkeypatch.setattr(process, "health", fresh)
    return fresh


def share(health: Health) -> None:
    """Store what a process knows, as `share_forever` does."""
    health_sync.write(NORTH, health.states["north"], health.now())


@pytest.mark.parametrize(
    ("slot", "state", "expected", "left"),
    [
        (PROVIDER, SlotState(), State.HEALTHY, 0),
        (PROVIDER, SlotState(failures=1, cooling_until=NOW + 20, unanswered_since=NOW), State.FAILING, 20),
        (ACCOUNT, SlotState(failures=1, cooling_until=NOW + 20, unanswered_since=NOW), State.FAILING, 20),
        (model_slot("b"), SlotState(failures=1, cooling_until=NOW + 20, error="HTTP 429"), State.COOLING, 20),
        (model_slot("b"), SlotState(failures=1, cooling_until=NOW - 1, error="HTTP 429"), State.COOLING, 0),
        (PROVIDER, SlotState(failures=1, cooling_until=NOW - 1, unanswered_since=NOW - 500), State.FAILING, 0),
        (PROVIDER, SlotState(failures=4, unanswered_since=0, failing_since=0, failed_at=LOST_SECONDS), State.LOST, 0),
        (SLOW, SlotState(is_stated=True), State.SLOW, 0),
        (SLOW, SlotState(), State.HEALTHY, 0),
        (CACHE, SlotState(cooled_at=NOW, is_stated=True), State.HEALTHY, 0),
    ],
)
def test_status_has_the_state_of_a_provider(slot: str, state: SlotState, expected: State, left: int):
    health = Health(30, lambda: [NORTH], lambda: NOW)
    health.states = {"north": {slot: state}}
    found = status(NORTH, health)
    assert (found.state, found.seconds_left) == (expected, left)
    assert found.cooling_models == (["b"] if slot == model_slot("b") and left else [])
    assert (found.next_try_at is not None) is (left > 0)
    assert (found.failing_since is not None) is (state.unanswered_since is not None)
    assert found.error == state.error


@pytest.mark.usefixtures("health")
def test_figures_are_of_all_workers_in_the_last_minutes(session_cache: redis.Redis):
    (unused,) = statuses()
    assert unused.figures == (0, 0, None, None, None)
    turn = {"conversation_id": None, "at": 1, "provider": "north", "model": "a", "outcome": "hit"}
    usage = Usage(input=1_000, read=750)
    for first_byte_ms in (40, 40, 40, 900):
        sessions.record_turn(Turn(**turn, first_byte_ms=first_byte_ms, usage=usage))
    other = {**turn, "provider": "south", "attempts": (Attempt("north", 503),)}
    sessions.record_turn(Turn(**other))
    (found,) = statuses()
    assert found.figures == (1.0, 0.2, 50, 1_000, 0.75)
    assert (found.weight, found.share) == (1, 1)


def cooling(slot: str) -> dict[str, SlotState]:
    return {slot: SlotState(failures=1, cooling_until=NOW + 10**9, error="HTTP 429")}


@pytest.mark.parametrize(
    ("states", "shares"),
    [
        ({}, [0.25, 0.75]),
        ({"north": {PROVIDER: SlotState(failures=1, unanswered_since=1)}}, [0, 1]),
        ({"north": cooling(PROVIDER)}, [0, 1]),
        ({"north": cooling(model_slot("b"))}, [0.25, 0.75]),
        ({"north": {**cooling(model_slot("a")), **cooling(model_slot("b"))}}, [0, 1]),
        ({"north": cooling(PROVIDER), "south": cooling(PROVIDER)}, [0, 0]),
    ],
)
def test_share_is_that_of_the_providers_that_get_new_conversations(
    session_cache: redis.Redis,
    health: Health,
    settings: Settings,
    states: dict[str, dict[str, SlotState]],
    shares: list[float],
):
    settings.SENTINEL_PROVIDERS = (NORTH, msgspec.structs.replace(NORTH, name="south", weight=3))
    health.states = states
    assert [each.share for each in statuses()] == shares


@pytest.mark.usefixtures("health")
def test_statuses_are_without_figures_when_the_store_cannot_add_up(settings: Settings):
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    assert [each.figures for each in statuses()] == [None]


def test_state_is_unknown_when_the_store_is_unavailable(
    session_cache: redis.Redis, health: Health, monkeypatch: pytest.MonkeyPatch
):
    assert [each.state for each in statuses()] == [State.HEALTHY]

    def refuse(*arguments: object) -> None:
        raise ConnectionError

    monkeypatch.setattr(health_sync, "read", refuse)
    assert [each.state for each in statuses()] == [State.UNKNOWN]
    assert [each.level for each in check_providers()] == [Level.WARNING]
    health.failed("north", "a", DOWN)
    assert [each.state for each in statuses()] == [State.FAILING]


def test_health_is_that_of_the_process_with_the_newest_state(session_cache: redis.Redis, health: Health):
    other = Health(30, providers)
    other.failed("north", "a", DOWN)
    share(other)
    assert latest_health()[0].seconds_left("north") > 25
    time.sleep(0.01)  # the age of a shared record is known to the millisecond
    health.answered("north", "a", health.now())  # nothing to end
    health.failed("north", "a", DOWN)
    health.answered("north", "a", health.now())
    assert latest_health()[0].failing() == []
    assert health.states["north"][PROVIDER].failures == 0


@pytest.mark.parametrize("junk", ["text", {"slots": "many"}, [1]])
def test_health_leaves_out_a_record_that_is_not_one(session_cache: redis.Redis, health: Health, junk: object):
    cache.set(health_sync.key(NORTH), junk)
    assert latest_health()[0].failing() == []


def test_health_is_that_of_this_process_when_the_cache_is_down(health: Health, settings: Settings):
    health.failed("north", "a", DOWN)
    with start_server() as server:
        settings.CACHES = {"default": cache_config(server.url)}
        server.kill()
        assert latest_health()[0].failing() == ["north"]


@pytest.mark.slow
@pytest.mark.django_db
def test_overview_shows_a_provider_that_fails(session_cache: redis.Redis, health: Health, admin_client: Client):
    page = admin_client.get(PAGE).text
    assert "Healthy" in page
    assert "Outages and actions" not in page
    health.failed("north", "b", Failure(Cools.MODEL, error="HTTP 429"))
    page = admin_client.get(PAGE).text
    assert "Cooling down" in page
    assert re.search(r"No requests for b until \S+ UTC \(\d+ s left\); other models are served\.", page)
    assert "Last error: HTTP 429." in page
    health.failed("north", "a", DOWN._replace(error="HTTP 503 <b>"))
    page = admin_client.get(PAGE).text
    assert "Failing since" in page
    assert "HTTP 503 &lt;b&gt;." in page
    assert "No requests for" not in page
    assert "No requests until" in page
    assert '<a href="/admin/sessions_sticky/session/providers/">Outages and actions</a>' in page
    health.states["north"] = {PROVIDER: SlotState(failures=2, failing_since=0, failed_at=200, unanswered_since=0)}
    page = admin_client.get(PAGE).text
    assert "Its conversations move to other providers" in page
    actions.act("north", actions.Action.HOLD, by="ann")
    assert "Its conversations move" not in admin_client.get(PAGE).text
    actions.act("north", actions.Action.RELEASE, by="ann")
    assert "The next request tests" not in page  # no error is known


@pytest.mark.slow
@pytest.mark.django_db
@pytest.mark.usefixtures("session_cache")
def test_session_page_says_until_when_its_provider_cools_down(health: Health, admin_client: Client):
    for model in ("a", "b", "c"):
        sessions.create(f"conv-{model}", "north", model, "user-1")

    def note(model: str) -> str:
        page = admin_client.get(f"/admin/sessions_sticky/session/conv-{model}/change/")
        return " ".join(page.context["provider_notes"])

    assert (note("a"), note("b")) == ("", "")
    assert note("c") == "north is not configured for c: the conversation moves with its next chat."
    health.failed("north", "b", Failure(Cools.MODEL, error="HTTP 429"))
    assert note("a") == ""
    assert re.fullmatch(r"north is cooling down until \d\d:\d\d:\d\d UTC\.", note("b"))
    health.failed("north", "a", DOWN._replace(error="HTTP 503"))
    assert re.fullmatch(r"north has been failing since \S+ \S+ UTC \(HTTP 503\)\. north is cooling .*\.", note("a"))
    health.states["north"] = {PROVIDER: SlotState(failures=2, failing_since=0, failed_at=200, unanswered_since=0)}
    assert re.fullmatch(r"north has been failing since \S+ \S+ UTC \(unknown error\)\.", note("a"))


@pytest.mark.django_db
@pytest.mark.usefixtures("session_cache")
def test_overview_shows_providers_that_fail_first(health: Health, admin_client: Client, settings: Settings):
    settings.SENTINEL_PROVIDERS = (NORTH, msgspec.structs.replace(NORTH, name="south"))
    health.failed("south", "a", DOWN)
    panels = {each.template: each.context for each in admin_client.get(PAGE).context["panels"]}
    shown = [each.provider.name for each in panels["admin/gateway/providers.html"]["statuses"]]
    assert shown == ["south", "north"]
    assert "south has been failing since" in panels["admin/gateway/banner.html"]["banner"].lines[0]
    assert panels["admin/gateway/banner.html"]["banner"].lines[0].endswith("UTC (unknown error).")


@pytest.mark.django_db
def test_overview_shows_slow_and_draining_providers(
    session_cache: redis.Redis, health: Health, admin_client: Client, settings: Settings
):
    health.record_pace("north", is_slow=True)
    assert "Its streams begin too slowly" in admin_client.get(PAGE).text
    settings.SENTINEL_PROVIDERS = (msgspec.structs.replace(NORTH, weight=0),)
    page = admin_client.get(PAGE).text
    assert "Draining" not in page  # no action ends it
    assert "Its weight in the configuration is 0. It takes no new conversations" in page
    assert 'href="/admin/sessions_sticky/session/move-all/?from_provider=' in page
    settings.SENTINEL_PROVIDERS = (NORTH,)
    actions.act("north", actions.Action.DRAIN, by="ann")
    assert "Draining" in admin_client.get(PAGE).text
    assert "Draining" not in admin_client.get("/admin/sessions_sticky/session/").text


@pytest.mark.django_db
def test_overview_has_banner_and_providers_when_the_store_is_down(
    health: Health, admin_client: Client, settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    health.failed("north", "a", DOWN._replace(error="HTTP 503"))
    with start_server() as server:
        settings.CACHES = {"default": cache_config(server.url)}
        server.kill()
        known = Recent()
        monkeypatch.setattr(banner, "recent", known)
        known.count(200)
        page = admin_client.get(PAGE)
        assert page.status_code == 503
        assert "Customers are not affected: 0 of 1 chats failed" in page.text
        assert "north has been failing since" in page.text
        assert "these are the chats of one worker" in page.text
        assert "Failing since" in page.text
        known.count(503)
        known.count(429)
        assert "Customers are affected: 2 of 3 chats failed" in admin_client.get(PAGE).text


def test_recent_forgets_older_minutes():
    now = [600.0]
    known = Recent(lambda: now[0])
    for status_code in (200, 404, 429, 500):
        known.count(status_code)
    assert known.totals() == (2, 2)
    now[0] += 60 * (MINUTES - 1)
    known.count(200)
    assert known.totals() == (3, 2)
    now[0] += 60
    assert known.totals() == (1, 0)


@pytest.mark.django_db
def test_move_all_offers_the_configured_providers(session_cache, health: Health, admin_client: Client, settings):
    names = "sentinel_project.gateway.providers.current.provider_names"
    settings.SESSIONS_STICKY = {**settings.SESSIONS_STICKY, "PROVIDERS": names}
    page = admin_client.get("/admin/sessions_sticky/session/move-all/").text
    assert '<option value="north">' in page
