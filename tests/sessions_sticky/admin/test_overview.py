"""The overview: what is where, what was created and moved, how the store is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sessions_sticky import cache_config, sessions
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


def test_overview_counts_rebinds_by_reason_when_some_moved(ada: Client, session_cache: redis.Redis) -> None:
    for number, session in enumerate(fill(sessions, 3)):
        sessions.rebind(session, provider="mistral", model="large", reason="slow" if number else HOSTILE)
    response = ada.get(PAGE)
    assert [(bar.label, bar.number) for bar in response.context["rebinds"].reasons] == [("slow", 2), (HOSTILE, 1)]
    assert "Of the last 6 events" in response.text
    assert "<script>alert" not in response.text


def test_overview_reports_it_when_there_is_nothing(ada: Client, session_cache: redis.Redis) -> None:
    page = ada.get(PAGE).text
    assert "No sessions yet. The first chat creates one." in page
    assert "No session moved in the last 0 events." in page


def test_overview_reports_it_when_no_history_is_kept(
    ada: Client, session_cache: redis.Redis, settings: Settings
) -> None:
    settings.SESSIONS_STICKY = {"HISTORY_LENGTH": 0}
    assert "No history is kept" in ada.get(PAGE).text


def test_overview_shows_what_the_doctor_finds(ada: Client, session_cache: redis.Redis) -> None:
    fill(sessions, 1)
    session_cache.set("sentinel:session:wild", b"no json")
    findings = {str(each["subject"]): each for each in ada.get(PAGE).context["findings"]}
    assert {"Latency", "Memory", "Eviction", "Index"} <= set(findings)
    assert findings["Values"]["level"] is Level.WARNING


def test_overview_names_every_subject_of_the_doctor(ada: Client, session_cache: redis.Redis) -> None:
    fill(sessions, 1)
    shown = {str(each["subject"]) for each in ada.get(PAGE).context["findings"]}
    assert shown <= {str(name) for name in overview.SUBJECTS.values()}


def test_figures_are_a_part_of_the_page_when_requested_separately(ada: Client, session_cache: redis.Redis) -> None:
    fill(sessions, 1)
    figures = ada.get(FIGURES)
    assert "<html" not in figures.text
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
    monkeypatch.setattr(registry, "_panels", [])
    title = "admin/sessions_sticky/names.html"
    registry.register_panel(lambda request: Panel("A panel of ours", title, {"user": request.user}))
    response = ada.get(PAGE)
    assert "A panel of ours" in response.text
    assert response.context["panels"][0].context["user"].username == "ada"


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
