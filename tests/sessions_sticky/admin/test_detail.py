from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from django.contrib.admin.models import LogEntry

from sessions_sticky import Attempt, Price, Turn, Usage, keys, sessions
from sessions_sticky.admin import registry
from tests.sessions_sticky.admin.pages import BASE, PROPOSED, messages_of, page_of
from tests.sessions_sticky.indexed import write_raw

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis
    from django.test import Client
    from pytest_django import Settings

DASH = "\N{EN DASH}"
BOUND = (
    b'{"created_at": 1700000000, "id":"conv-1","provider":"openai","model":"gpt-4","external_id":"user-456","more":[1]}'
)


def test_detail_shows_every_field_and_the_value_as_stored_when_bound(ada: Client, session_cache: redis.Redis) -> None:
    session_cache.set(keys.session("conv-1"), BOUND, ex=3_725)
    response = ada.get(page_of("conv-1"))
    assert response.status_code == 200
    assert response.context["raw"] == BOUND.decode()
    text = response.text
    for shown in ("conv-1", "openai", "gpt-4", "user-456", "2023-11-14 22:13:20", "UTC", "&quot;more&quot;:[1]"):
        assert shown in text
    assert "<span>1 h 2 min<" in text
    assert 'data-sticky-left="3725"' in text
    assert f'href="{BASE}?owner=user-456"' in text
    assert f'href="{page_of("conv-1", "history")}"' in text


@pytest.mark.parametrize(
    ("session_id", "expected"),
    [
        ("conv-1", ["conv-1", "an id meant for the gateway (named)"]),
        ("0123456789ab:me@home@gpt-4", ["me@home", "an id of the client (observed)", "gpt-4"]),
        ("0123456789ab:content:12@gpt-4", ["(none)", "the beginning of the conversation (content)", "gpt-4"]),
    ],
)
def test_detail_shows_the_clients_id_and_its_kind(
    ada: Client, session_cache: redis.Redis, session_id: str, expected: list[str]
) -> None:
    sessions.create(session_id, **PROPOSED)
    facts = ada.get(page_of(session_id)).text.partition("<dt>Provider</dt>")[0]
    assert [re.sub("<[^>]*>", "", each) for each in re.findall(r"<dd>(.*?)</dd>", facts)] == expected


def test_detail_leaves_the_idle_time_when_read(ada: Client, session_cache: redis.Redis) -> None:
    write_raw(session_cache, "conv-1", 100)
    ada.get(page_of("conv-1"))
    assert 0 < session_cache.pttl(keys.session("conv-1")) <= 100_000


def test_detail_shows_every_field_of_the_history(ada: Client, session_cache: redis.Redis) -> None:
    bob = sessions.acting_as("bob")
    session = sessions.create("conv-1", **PROPOSED)
    moved = bob.rebind(session, provider="mistral", model="large", reason="<openai> is slow")
    bob.delete(moved.id)
    sessions.create("conv-1", **PROPOSED)
    response = ada.get(page_of("conv-1"))
    assert [event.kind for event in response.context["events"]] == ["created", "deleted", "rebound", "created"]
    text = response.text
    assert "Bound to <bdi>openai</bdi>, model <bdi>gpt-4</bdi>" in text
    moved_text = "Moved from <bdi>openai</bdi>, model <bdi>gpt-4</bdi>, to <bdi>mistral</bdi>, model <bdi>large</bdi>"
    assert moved_text in text
    assert "Reason: <bdi>&lt;openai&gt; is slow</bdi>" in text
    assert "Deleted on <bdi>mistral</bdi>, model <bdi>large</bdi>" in text
    assert text.count("by <bdi>bob</bdi>") == 2
    assert text.count("by the gateway") == 2
    assert text.count(f"{response.context['events'][0].at:%Y-%m-%d}") >= 4


def test_detail_shows_the_last_events_when_there_are_many(
    ada: Client, session_cache: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sessions_sticky.admin.detail.MAX_EVENTS", 3)
    session = sessions.create("conv-1", "provider-0", "gpt-4", "user-456")
    for number in range(1, 5):
        session = sessions.rebind(session, provider=f"provider-{number}", model="gpt-4", reason="a test")
    response = ada.get(page_of("conv-1"))
    assert [event.provider for event in response.context["events"]] == ["provider-4", "provider-3", "provider-2"]
    assert "2 older events are not shown." in response.text


def test_detail_reports_that_there_is_no_history(ada: Client, session_cache: redis.Redis, settings: Settings) -> None:
    sessions.create("conv-1", **PROPOSED)
    settings.SESSIONS_STICKY = {"HISTORY_LENGTH": 0}
    response = ada.get(page_of("conv-1"))
    assert response.status_code == 200
    assert "No history: this cache" in response.text


def test_detail_answers_404_with_what_the_history_has_when_the_session_is_gone(
    ada: Client, session_cache: redis.Redis
) -> None:
    sessions.create("conv-1", **PROPOSED)
    sessions.delete("conv-1")
    response = ada.get(page_of("conv-1"))
    assert response.status_code == 404
    assert "The session was deleted, has expired or never existed" in response.text
    assert "Deleted on <bdi>openai</bdi>" in response.text
    for button in ("Extend", "Delete…", "to-provider"):
        assert button not in response.text


def test_detail_shows_the_value_when_it_is_unreadable(ada: Client, session_cache: redis.Redis) -> None:
    session_cache.set(keys.session("conv-1"), b'\xff<b>{"id":' + b"x" * 20_000, ex=100)
    response = ada.get(page_of("conv-1"))
    assert response.status_code == 404
    assert "is not a valid session" in response.text
    assert "\ufffd&lt;b&gt;{&quot;id&quot;:xxx" in response.text
    assert len(response.context["raw"]) == 10_001


@pytest.mark.parametrize("conversation_id", ["a" * 257, "a\x85b", "a\x1bb"])
def test_detail_answers_404_when_the_id_is_impossible(
    ada: Client, session_cache: redis.Redis, conversation_id: str
) -> None:
    assert ada.get(page_of(conversation_id)).status_code == 404
    assert ada.post(page_of(conversation_id, "touch")).status_code == 404
    assert ada.get(page_of(conversation_id, "history")).status_code == 404


def test_detail_shows_no_buttons_when_the_user_may_only_view(
    login: Callable[..., Client], session_cache: redis.Redis
) -> None:
    sessions.create("conv-1", **PROPOSED)
    response = login("view").get(page_of("conv-1"))
    assert response.status_code == 200
    main = response.text.partition('id="content-start"')[2]
    assert "<button" not in main
    assert "<form" not in main


@pytest.mark.parametrize(("action", "shown"), [("change", {"Extend", "Move"}), ("delete", {"Delete…"})])
def test_detail_shows_the_buttons_that_the_user_may_press_when_there_are_three(
    login: Callable[..., Client], session_cache: redis.Redis, action: str, shown: set[str]
) -> None:
    sessions.create("conv-1", **PROPOSED)
    main = login("view", action).get(page_of("conv-1")).text.partition('id="content-start"')[2]
    assert set(re.findall(r"<button[^>]*>([^<]*)</button>", main)) == shown


def test_touch_sets_the_idle_time_back_to_full_when_bound(ada: Client, session_cache: redis.Redis) -> None:
    write_raw(session_cache, "conv-1", 100)
    response = ada.post(page_of("conv-1", "touch"), follow=True)
    assert response.redirect_chain == [(page_of("conv-1"), 302)]
    assert messages_of(response) == ["The session was extended: its idle time starts again."]
    assert 86_000_000 < session_cache.pttl(keys.session("conv-1")) <= 86_400_000
    entry = LogEntry.objects.get()
    assert (entry.user.username, entry.object_id, entry.action_flag) == ("ada", "conv-1", 2)
    assert entry.get_change_message() == "Idle time reset"


def test_touch_reports_a_missing_session(ada: Client, session_cache: redis.Redis) -> None:
    response = ada.post(page_of("conv-1", "touch"), follow=True)
    assert "no longer bound" in messages_of(response)[0]
    assert not session_cache.exists(keys.session("conv-1"))
    assert not LogEntry.objects.exists()


def test_changes_shows_the_log_of_one_session_when_users_changed_it(ada: Client, session_cache: redis.Redis) -> None:
    for conversation_id in ("a/b", "other"):
        sessions.create(conversation_id, **PROPOSED)
        ada.post(page_of(conversation_id, "touch"))
    response = ada.get(page_of("a/b", "history"))
    assert response.status_code == 200
    assert response.text.count("Idle time reset") == 1
    assert f'href="{page_of("a/b")}"' in response.text


def test_recent_actions_of_the_admin_lead_to_the_session_when_it_was_changed(
    ada: Client, session_cache: redis.Redis
) -> None:
    for conversation_id in ("..", "a/b"):
        sessions.create(conversation_id, **PROPOSED)
        ada.post(page_of(conversation_id, "touch"))
    text = ada.get("/admin/all/").text
    assert f'href="{BASE}_2E_2E/change/"' in text
    assert f'href="{BASE}a_2Fb/change/"' in text


def test_detail_posts_what_was_shown_when_it_has_forms(ada: Client, session_cache: redis.Redis) -> None:
    session = sessions.create("conv-1", **PROPOSED)
    response = ada.get(page_of("conv-1"))
    assert response.context["shown"].binding == session.to_json().decode()
    assert response.text.count('name="selected"') == 2


def test_detail_shows_the_last_turns_and_what_they_used(ada: Client, session_cache: redis.Redis) -> None:
    sessions.create("conv-1", **PROPOSED)
    assert "Last turns" not in ada.get(page_of("conv-1")).text
    price = Price(input=2.0, cached_input=0.5)
    route = {"conversation_id": "conv-1", "model": "gpt-4", "bound_provider": "openai", "price": price}
    sessions.record_turn(Turn(at=1_700_000_000, provider="openai", outcome="hit", usage=Usage(4_000), **route))
    spilled = {"provider": "azure", "outcome": "spilled", "attempts": (Attempt("openai", 503, "overloaded"),)}
    usage = Usage(5_000, read=1_024)
    sessions.record_turn(Turn(at=1_700_000_010, usage=usage, first_byte_ms=1_234, **spilled, **route))
    sessions.record_turn(Turn(at=1_700_000_020, provider="openai", outcome="unanswered", status=503, **route))
    text = re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", ada.get(page_of("conv-1")).text))
    assert "3 turns in all, 1 without usage." in text
    assert "9,000 input tokens, 11.4% from prompt caches, which saved 0.0015." in text
    assert "Moves lost 2,944 cached tokens (0.0044)." in text
    unanswered, azure, openai = (
        text.partition("Lost by a move ")[2].partition(" Answered by other")[0].split("2023-11-14 ")[1:]
    )
    assert unanswered.split() == ["22:13:40", "unanswered", "(503)", "openai", "gpt-4", *([DASH] * 4)]
    assert "spilled azure gpt-4 bound to openai openai : 503 overloaded 1,234 ms 5,000 20.5% 2,944" in azure
    assert openai.split() == ["22:13:20", "hit", "openai", "gpt-4", DASH, "4,000", "0.0%", DASH]
    german = re.sub(
        "[ \n]+", " ", re.sub("<[^>]*>", " ", ada.get(page_of("conv-1"), headers={"accept-language": "de"}).text)
    )
    assert "11,4\u00a0% aus Prompt-Caches" in german
    assert "22:13:20 Treffer openai" in german


def test_detail_shows_spill_overs_that_the_last_turns_no_longer_have(
    ada: Client, session_cache: redis.Redis, settings: Settings
) -> None:
    settings.SESSIONS_STICKY = {"TRAIL_LENGTH": 1}
    sessions.create("conv-1", **PROPOSED)
    route = {"conversation_id": "conv-1", "model": "gpt-4", "bound_provider": "openai"}
    spilled = {"provider": "azure", "outcome": "spilled", "reason": "<provider failed>"}
    for at in (0, 90):
        sessions.record_turn(Turn(at=1_700_000_000 + at, **spilled, **route))
    sessions.record_turn(Turn(at=1_700_000_100, provider="openai", outcome="hit", **route))
    sessions.record_turn(Turn(at=1_700_000_110, **spilled | {"reason": ""}, **route))
    sessions.record_turn(Turn(at=1_700_000_120, provider="openai", outcome="hit", **route))
    text = re.sub(r"\s+", " ", re.sub("<[^>]*>", "", ada.get(page_of("conv-1")).text))
    assert "1 turn answered by azure instead of openai 2023-11-14 22:15:10 UTC 2 turns answered" in text
    assert f"openai Reason: &lt;provider failed&gt; 2023-11-14 22:13:20 {DASH} 2023-11-14 22:14:50 UTC" in text


def test_detail_has_no_money_when_no_price_is_known(ada: Client, session_cache: redis.Redis) -> None:
    sessions.create("conv-1", **PROPOSED)
    for at, provider in enumerate(("openai", "azure")):
        route = {"provider": provider, "model": "gpt-4", "outcome": "hit", "usage": Usage(4_000)}
        sessions.record_turn(Turn(conversation_id="conv-1", at=1_700_000_000 + at, **route))
    text = " ".join(ada.get(page_of("conv-1")).text.split())
    assert "8,000 input tokens, 0.0% from prompt caches. Moves lost 3,968 cached tokens." in text


def test_detail_names_the_provider_that_answered_last_when_it_is_another(
    ada: Client, session_cache: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "notes", [])
    sessions.create("conv-1", **PROPOSED)
    route = {"conversation_id": "conv-1", "model": "gpt-4", "bound_provider": "openai"}
    attempts = (Attempt("openai", 503, "overloaded"), Attempt("mistral", 502))
    for provider, tried, outcome in (("openai", (), "hit"), ("azure", attempts, "spilled"), ("azure", (), "spilled")):
        sessions.record_turn(Turn(at=1_700_000_000, provider=provider, outcome=outcome, attempts=tried, **route))
        text = re.sub(r"\s+", " ", re.sub("<[^>]*>", "", ada.get(page_of("conv-1")).text))
        assert ("The last turn was answered by azure, not by openai" in text) is (outcome == "spilled")
        assert ("Failed attempts: openai 503 overloaded, mistral 502 ." in text) is bool(tried)


def test_detail_says_why_the_provider_serves_no_requests_now(
    ada: Client, session_cache: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "notes", [])
    registry.register_provider_note(
        lambda provider, model: f"<{provider}> has no {model} now." * (provider == "openai")
    )
    sessions.create("conv-1", **PROPOSED)
    sessions.create("conv-2", "mistral", "large", "user-456")
    assert "&lt;openai&gt; has no gpt-4 now." in ada.get(page_of("conv-1")).text
    assert "has no" not in ada.get(page_of("conv-2")).text
    assert "has no" not in ada.get(page_of("missing")).text
    route = {"conversation_id": "conv-1", "model": "gpt-4", "bound_provider": "openai", "outcome": "spilled"}
    sessions.record_turn(Turn(at=1_700_000_000, provider="azure", **route))
    text = re.sub("<[^>]*>", "", ada.get(page_of("conv-1")).text)
    assert "Answered by azure right now: &lt;openai&gt; has no gpt-4 now." in text
    assert "The last turn was answered" not in text
