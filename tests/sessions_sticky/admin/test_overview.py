"""The overview: what is where, what was created and moved, how the store is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sessions_sticky import Attempt, Turn, cache_config, sessions
from sessions_sticky.admin import overview, registry
from sessions_sticky.admin.registry import Panel
from sessions_sticky.queries.server_info import Level
from tests.conftest import patient_config
from tests.servers import start_server
from tests.sessions_sticky.admin.pages import BASE, PROPOSED
from tests.sessions_sticky.indexed import fill

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis
    from django.test import Client
    from pytest_django import Settings

PAGE = f"{BASE}overview/"
FIGURES = f"{PAGE}?fragment=1"
RECENT = f"{PAGE}?fragment=recent"
HOSTILE = "<script>alert(1)</script>\"'%/{{ x }}\u202e"


def test_overview_counts_sessions_by_route_when_there_are_some(ada: Client, session_cache: redis.Redis) -> None:
    fill(sessions, 3)
    sessions.create("other", "mistral", "large", "user-7")
    response = ada.get(PAGE)
    assert response.context["sessions"] == 4
    rows = [(row.stats.provider, row.stats.sessions, row.percent) for row in response.context["routes"]]
    assert rows == [("openai", 3, "100.0%"), ("mistral", 1, "33.3%")]
    assert f'href="{BASE}?provider=mistral&amp;model=large"' in response.text
    assert response.context["created_last_day"] == 4


def test_overview_counts_moves_by_provider_and_reason_when_some_moved(ada: Client, session_cache: redis.Redis) -> None:
    manager = sessions.acting_as("ann")
    for number, session in enumerate(fill(sessions, 3)):
        manager.rebind(session, provider="mistral", model="large", reason="slow" if number else HOSTILE)
    for number in range(overview.MAX_MOVES):
        sessions.record_turn(turn("rebound", f"provider-{number}", reason="prompt cache expired"))
    response = ada.get(PAGE)
    moves = response.context["moves"]
    assert moves.number == 3 + overview.MAX_MOVES
    assert moves.routes[0] == (("openai", "mistral", "slow", "operator"), 2)
    assert (len(moves.routes), moves.more) == (overview.MAX_MOVES, 2)
    assert "2 smaller groups are not shown." in response.text
    assert "<script>alert" not in response.text


def turn(outcome: str, bound: str, **fields: Any) -> Turn:
    defaults = {"conversation_id": None, "at": 1, "provider": "south", "model": "m"}
    return Turn(outcome=outcome, bound_provider=bound, **{**defaults, **fields})


def test_overview_shows_the_traffic_of_the_last_hour(ada: Client, session_cache: redis.Redis) -> None:
    failed = (Attempt("north", 503),)
    for outcome, attempts in (("hit", ()), ("hit", ()), ("spilled", failed), ("unanswered", failed)):
        sessions.record_turn(turn(outcome, "north", attempts=attempts))
    traffic = ada.get(PAGE).context["traffic"]
    assert traffic.turns == 4  # failed attempts are no turns
    assert dict(traffic.outcomes) == {"hit": 2, "spilled": 1, "unanswered": 1}
    german = ada.get(PAGE, headers={"accept-language": "de"}).text
    assert [
        word for word in ("Treffer", "ausgewichen", "unbeantwortet") if f"</strong> {word}</span>" not in german
    ] == []
    assert sum(column.number for column in traffic.chart.columns) == 4
    assert sum(column.red for column in traffic.chart.columns) == 1
    assert [column.began_at.minute % 15 for column in traffic.chart.columns if column.labelled] == 4 * [0]


def test_overview_of_a_portable_cache_is_not_supported(ada: Client, settings: Settings) -> None:
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    assert ada.get(RECENT).status_code == 200
    assert ada.get(PAGE).status_code == 501


def test_recent_parts_take_few_commands_and_the_store_is_not_sampled(ada: Client, session_cache: redis.Redis) -> None:
    fill(sessions, 50)
    ada.get(PAGE)
    counted = {}
    for path in (RECENT, FIGURES):
        before = session_cache.info("stats")["total_commands_processed"]
        assert ada.get(path).status_code == 200
        counted[path] = session_cache.info("stats")["total_commands_processed"] - before
    assert counted[RECENT] < 30
    assert counted[FIGURES] < 300


def test_recent_parts_are_without_what_changes_slowly(ada: Client, session_cache: redis.Redis) -> None:
    recent = ada.get(RECENT).text
    assert 'data-part="traffic"' in recent
    assert 'data-part="moves"' in recent
    assert 'data-part="routes"' not in recent
    assert 'data-part="store"' not in recent


def test_overview_reports_it_when_there_is_nothing(ada: Client, session_cache: redis.Redis) -> None:
    page = ada.get(PAGE).text
    assert "No sessions yet. The first chat creates one." in page
    assert "No session was moved in the last hour." in page
    assert "No turns were recorded." in page


def test_overview_shows_what_the_doctor_finds(ada: Client, session_cache: redis.Redis) -> None:
    session_cache.config_set("maxmemory", int(session_cache.info("memory")["used_memory"] * 0.9))
    try:
        page = ada.get(PAGE)
        findings = {str(each["subject"]): each for each in page.context["findings"]}
    finally:
        session_cache.config_set("maxmemory", 0)
    assert {"Latency", "Memory", "Eviction"} <= set(findings)
    assert findings["Memory"]["level"] is Level.ERROR
    first = page.text.partition('data-part="panel-1"')[0]
    assert "Redis is full: " in first
    assert 'data-part="errors"' not in ada.get(PAGE).text


def test_overview_keeps_a_number_and_its_unit_on_one_line(ada: Client, session_cache: redis.Redis) -> None:
    page = ada.get(PAGE).text
    assert "\N{NO-BREAK SPACE}ms (median of 3 reads)" in page
    assert "\N{NO-BREAK SPACE}s apart" in page


def test_overview_names_every_subject_of_the_doctor(ada: Client, session_cache: redis.Redis) -> None:
    fill(sessions, 1)
    shown = {str(each["subject"]) for each in ada.get(PAGE).context["findings"]}
    assert shown <= {str(name) for name in overview.SUBJECTS.values()}


def test_figures_are_a_part_of_the_page_when_requested_separately(ada: Client, session_cache: redis.Redis) -> None:
    fill(sessions, 1)
    figures = ada.get(FIGURES)
    assert "<html" not in figures.text
    assert "available_apps" not in figures.context  # nor is anything computed for the frame
    assert 'data-part="routes"' in figures.text
    assert 'data-part="routes"' in ada.get(PAGE).text


def test_page_has_nothing_that_a_strict_policy_refuses(ada: Client, session_cache: redis.Redis) -> None:
    fill(sessions, 2)
    page = ada.get(PAGE).text
    assert " style=" not in page.partition('class="sticky-overview"')[2]
    assert "<script>" not in page


@pytest.mark.parametrize("path", [PAGE, FIGURES])
def test_overview_gives_advice_when_the_store_is_down_and_recovers(ada: Client, settings: Settings, path: str) -> None:
    with start_server() as server:
        settings.CACHES = {"default": cache_config(server.url)}
        server.kill()
        down = ada.get(path)
        server.start()
        settings.CACHES = {"default": patient_config(server.url)}
        sessions.create("conv-1", **PROPOSED)
        back = ada.get(path)
    assert down.status_code == 503
    assert "manage.py sessions doctor" in down.text
    assert "There are no sessions" not in down.text
    assert ("data-live=" in down.text) is (path == PAGE)  # the page that is open recovers by itself
    assert back.status_code == 200
    assert back.context["sessions"] == 1


def test_overview_shows_the_busiest_routes_when_there_are_very_many(ada: Client, session_cache: redis.Redis) -> None:
    for number in range(overview.MAX_ROUTES + 2):
        sessions.create(f"conv-{number}", "openai", f"model-{number}", "user-7")
    response = ada.get(PAGE)
    assert len(response.context["routes"]) == overview.MAX_ROUTES
    assert "2 more providers and models have fewer sessions." in response.text


def test_panel_is_shown_when_a_project_registers_one(
    ada: Client, session_cache: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "panels", [])
    title = "admin/sessions_sticky/names.html"
    registry.register_panel(lambda request: Panel("A panel of ours", title, {"user": request.user}))
    response = ada.get(PAGE)
    assert "A panel of ours" in response.text
    assert response.context["panels"][0].context["user"].username == "ada"
    assert "A panel of ours" not in ada.get(RECENT).text


@pytest.mark.slow
def test_first_panel_is_above_the_figures_and_stays_when_the_store_is_down(
    ada: Client, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "panels", [])
    context = {"names": ["north"]}
    registry.register_panel(lambda request: Panel("Ours", "admin/sessions_sticky/names.html", context, is_first=True))
    with start_server() as server:
        settings.CACHES = {"default": patient_config(server.url)}
        page = ada.get(PAGE).text
        assert page.index("Ours") < page.index('data-part="traffic"')
        assert "Ours" in ada.get(RECENT).text
        server.kill()
        settings.CACHES = {"default": cache_config(server.url)}
        for path in (PAGE, RECENT):
            down = ada.get(path)
            assert down.status_code == 503
            assert down.text.index("Ours") < down.text.index("Session store unavailable")


@pytest.mark.parametrize(("actions", "status"), [(("view",), 200), (("change", "delete"), 403), ((), 403)])
def test_overview_needs_the_permission_to_view(
    login: Callable[..., Client], session_cache: redis.Redis, actions: tuple[str, ...], status: int
) -> None:
    client = login(*actions)
    assert client.get(PAGE).status_code == client.get(FIGURES).status_code == status


def test_overview_redirects_to_the_login_page_without_a_login(client: Client, db: Any) -> None:
    assert client.get(FIGURES).status_code == 302


def test_overview_takes_no_other_method(ada: Client, session_cache: redis.Redis) -> None:
    assert ada.post(PAGE).status_code == 405
