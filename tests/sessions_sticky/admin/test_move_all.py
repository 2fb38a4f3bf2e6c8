"""Moving all sessions of a provider: counted first, then begun."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client

from sessions_sticky import Price, Turn, Usage, cache_config, sessions
from sessions_sticky.admin import registry
from tests.conftest import patient_config
from tests.servers import start_server
from tests.sessions_sticky.admin.pages import BASE, wait_for_jobs
from tests.sessions_sticky.indexed import fill
from tests.sessions_sticky.jobs.calls import jobs

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis
    from pytest_django import Settings

PAGE = f"{BASE}move-all/"
ASKED = {"from_provider": "openai", "from_model": "", "provider": "mistral", "model": "", "reason": "maintenance"}
HOSTILE = "<script>alert(1)</script>\"'%/{{ x }}"


@pytest.fixture
def three(session_cache: redis.Redis) -> None:
    """Three sessions on openai, one elsewhere."""
    fill(sessions, 3)
    sessions.create("other", "xai", "grok", "user-7")


def test_preview_counts_and_changes_nothing_when_the_form_is_filled_in(ada: Client, three: None) -> None:
    response = ada.get(PAGE, ASKED)
    assert "<strong>3</strong> sessions will move." in response.text
    assert sessions.filter(provider="openai").count() == 3
    assert jobs.recent() == []


def test_preview_shows_the_cached_tokens_that_the_move_loses(ada: Client, three: None) -> None:
    assert "As far as is known, none of these sessions has a warm prompt cache." in ada.get(PAGE, ASKED).text
    price = Price(input=2.0, cached_input=0.5)
    for read in (0, 12_000):
        turn = {"conversation_id": "conv-1", "at": time.time(), "provider": "openai", "model": "gpt-4", "price": price}
        sessions.record_turn(Turn(**turn, outcome="hit", usage=Usage(12_800, read=read)))
    text = " ".join(ada.get(PAGE, ASKED).text.split())
    assert "About 12,800 prompt tokens of 1 session are in prompt caches now." in text
    assert "At the prices of the provider this costs about 0.0192 more." in text
    assert "This is an estimate from their last turns." in text
    assert "prompt cache" not in ada.get(PAGE, {**ASKED, "from_provider": "missing"}).text


def test_form_has_the_provider_of_the_address(ada: Client, three: None) -> None:
    text = ada.get(PAGE, {"from_provider": "openai"}).text
    assert re.search(
        r'<input[^>]*name="from_provider"[^>]*value="openai"|value="openai"[^>]*name="from_provider"', text
    )
    assert "sticky-errors" not in text


def test_preview_offers_nothing_to_start_when_no_session_would_move(ada: Client, three: None) -> None:
    assert ">Start<" not in ada.get(PAGE, {**ASKED, "from_provider": "missing"}).text
    assert ">Start<" in ada.get(PAGE, ASKED).text


def test_former_path_redirects_with_its_query(ada: Client, session_cache: redis.Redis) -> None:
    response = ada.get(f"{BASE}drain/?from_provider=a%26b")
    assert (response.status_code, response.url) == (302, f"{PAGE}?from_provider=a%26b")


def test_move_all_moves_sessions_and_shows_its_progress_when_posted(ada: Client, three: None) -> None:
    response = ada.post(PAGE, ASKED)
    (job,) = jobs.recent()
    assert response.url == f"{BASE}operations/{job.key}/"
    wait_for_jobs()
    assert sessions.filter(provider="mistral").count() == 3
    assert "3 of 3 sessions (100%)" in ada.get(response.url).text
    event = sessions.history("conv-0")[-1]
    assert (event.actor, event.reason, event.model) == ("ada", "maintenance", "gpt-4")


def test_move_all_moves_one_model_to_another_when_asked(ada: Client, three: None) -> None:
    sessions.create("small", "openai", "gpt-4-mini", "user-7")
    ada.post(PAGE, {**ASKED, "from_model": "gpt-4-mini", "model": "large"})
    wait_for_jobs()
    assert sessions.filter(provider="openai").count() == 3
    assert sessions.filter(provider="mistral", model="large").count() == 1


def test_move_all_is_logged_when_begun(ada: Client, three: None) -> None:
    ada.post(PAGE, ASKED)
    (entry,) = LogEntry.objects.all()
    assert entry.is_change()
    assert "3 sessions expected" in entry.change_message
    assert "'openai' to 'mistral': maintenance" in entry.change_message


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize(
    "slip",
    [
        {"from_provider": ""},
        {"provider": ""},
        {"reason": ""},
        {"provider": "openai"},
        {"provider": "openai", "from_model": "gpt-4", "model": "gpt-4"},
        {"provider": "a\x07b"},
        {"provider": 257 * "x"},
    ],
)
def test_move_all_starts_nothing_and_gives_the_reason_when_the_form_is_invalid(
    ada: Client, three: None, method: str, slip: dict[str, str]
) -> None:
    response = getattr(ada, method)(PAGE, {**ASKED, **slip})
    assert response.status_code == 200
    assert "sticky-errors" in response.text
    assert jobs.recent() == []


def test_move_all_accepts_the_same_provider_when_the_model_differs(ada: Client, three: None) -> None:
    assert "sticky-errors" not in ada.get(PAGE, {**ASKED, "provider": "openai", "model": "gpt-5"}).text


@pytest.mark.parametrize(("source", "is_named"), [("mistral", False), ("mistrol", True)])
def test_preview_offers_nothing_when_no_session_matches(
    ada: Client, three: None, settings: Settings, source: str, is_named: bool
) -> None:
    settings.SESSIONS_STICKY = {"PROVIDERS": ["mistral", "openai"]}
    text = ada.get(PAGE, {**ASKED, "from_provider": source, "provider": "openai"}).text
    assert "No session matches, so there is nothing to move." in text
    assert "You can stop and continue" not in text
    assert (f"The provider “<bdi>{source}</bdi>” is not configured and has no sessions." in text) is is_named


@pytest.mark.parametrize(
    ("language", "errors"),
    [
        ("en", ["Unknown provider “mistrol”: must be one of mistral, openai.", "Did you mean “mistral”?"]),
        ("de", ["Unbekannter Anbieter „mistrol“. Möglich sind: mistral, openai.", "Meinten Sie „mistral“?"]),
    ],
)
def test_form_names_an_unknown_target_in_the_language_of_the_user(
    ada: Client, three: None, settings: Settings, language: str, errors: list[str]
) -> None:
    settings.SESSIONS_STICKY = {"PROVIDERS": ["openai", "mistral"]}
    asked = {**ASKED, "provider": "mistrol"}
    assert ada.get(PAGE, asked, headers={"accept-language": language}).context["form"].errors == {"provider": errors}
    other = ada.get(PAGE, {**ASKED, "provider": "quite-another"}).context["form"].errors
    assert other == {"provider": ["Unknown provider “quite-another”: must be one of mistral, openai."]}


def test_preview_says_why_the_target_serves_no_requests(
    ada: Client, three: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "notes", [])
    registry.register_provider_note(lambda provider, model: f"<{provider}> is down for {model}" * (provider == "xai"))
    sessions.create("mini", "openai", "gpt-4-mini", "user-7")
    target = {**ASKED, "provider": "xai"}
    assert ada.get(PAGE, ASKED).context["notes"] == []
    page = ada.get(PAGE, target)
    assert page.context["notes"] == ["<xai> is down for gpt-4", "<xai> is down for gpt-4-mini"]
    assert '<p class="errornote">&lt;xai&gt; is down for gpt-4</p>' in page.text
    assert ada.get(PAGE, {**target, "from_model": "gpt-4"}).context["notes"] == ["<xai> is down for gpt-4"]
    assert ada.get(PAGE, {**target, "model": "grok"}).context["notes"] == ["<xai> is down for grok"]
    everything = {"all": "1", "to-provider": "xai", "to-model": "", "to-reason": "r"}
    asked = ada.post(f"{BASE}move/", everything)
    assert [note.split()[-1] for note in asked.context["notes"]] == ["gpt-4", "gpt-4-mini", "grok"]
    assert '<p class="errornote">&lt;xai&gt; is down for grok</p>' in asked.text


def test_form_suggests_configured_providers_and_those_in_use(ada: Client, three: None, settings: Settings) -> None:
    settings.SESSIONS_STICKY = {"PROVIDERS": ["mistral"]}
    assert ada.get(PAGE).context["providers"] == ["mistral", "openai", "xai"]
    assert "must be one of mistral" in ada.get(PAGE, {**ASKED, "provider": "mistrol"}).text


def test_page_shows_hostile_names_as_text_when_they_were_moved(ada: Client, session_cache: redis.Redis) -> None:
    sessions.create("conv-1", HOSTILE, HOSTILE, HOSTILE)
    assert "<script>alert" not in ada.get(PAGE, {**ASKED, "from_provider": HOSTILE, "from_model": HOSTILE}).text
    response = ada.post(PAGE, {**ASKED, "from_provider": HOSTILE, "reason": HOSTILE}, follow=True)
    wait_for_jobs()
    assert "<script>alert" not in response.text + ada.get(PAGE).text
    assert sessions.filter(provider="mistral").count() == 1


def test_page_lists_operations_of_both_kinds_when_some_ran(ada: Client, three: None) -> None:
    ada.post(PAGE, ASKED)
    ada.post(f"{BASE}delete/", {"all": "1", "provider": "xai", "confirmed": "1"})
    wait_for_jobs()
    page = ada.get(PAGE).text
    assert all(f"{BASE}operations/{job.key}/" in page for job in jobs.recent())
    assert len(jobs.recent()) == 2


@pytest.mark.parametrize(
    ("actions", "looks", "starts"),
    [
        (("view",), 200, 403),
        (("view", "delete"), 200, 403),
        (("change", "delete"), 403, 403),
        (("view", "change"), 200, 302),
    ],
)
def test_page_needs_view_and_starting_needs_change(
    login: Callable[..., Client], three: None, actions: tuple[str, ...], looks: int, starts: int
) -> None:
    client = login(*actions)
    shown = client.get(PAGE, ASKED)
    assert shown.status_code == looks
    assert ("<form" in shown.text.partition('id="content"')[2]) is ("change" in actions and looks == 200)
    assert client.post(PAGE, ASKED).status_code == starts
    assert bool(jobs.recent()) is (starts == 302)


def test_move_all_is_refused_when_the_request_is_forged(ada: Client, three: None) -> None:
    forged = Client(enforce_csrf_checks=True)
    forged.cookies = ada.cookies
    assert forged.post(PAGE, ASKED).status_code == 403
    assert jobs.recent() == []


@pytest.mark.parametrize("method", ["get", "post"])
def test_page_reports_it_when_the_store_is_down(ada: Client, settings: Settings, method: str) -> None:
    with start_server() as server:
        settings.CACHES = {"default": cache_config(server.url)}
        server.kill()
        response: Any = getattr(ada, method)(PAGE, ASKED)
        server.start()
        settings.CACHES = {"default": patient_config(server.url)}
        assert ada.get(PAGE).status_code == 200
    assert response.status_code == 503
    assert "manage.py sessions doctor" in response.text
