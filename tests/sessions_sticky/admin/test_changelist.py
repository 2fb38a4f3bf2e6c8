from __future__ import annotations

import time
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest
from django.utils.html import escape

from sessions_sticky import keys, sessions
from sessions_sticky.admin.changelist import MAX_CURSORS, PAGE_SIZE, Position
from sessions_sticky.identity import identify
from tests.sessions_sticky.admin.pages import BASE, PROPOSED, hidden_fields, listed, messages_of, page_of, query
from tests.sessions_sticky.indexed import write_raw

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis
    from django.test import Client
    from pytest_django import Settings


def test_list_shows_every_column_when_a_session_is_bound(ada: Client, session_cache: redis.Redis) -> None:
    session = sessions.create("conv-1", **PROPOSED)
    session_cache.expire(keys.session("conv-1"), 86_400 - 3_600)
    response = ada.get(BASE)
    row = response.context["rows"][0]
    assert row.session == session
    assert row.url == page_of("conv-1")
    assert row.created_at.timestamp() == session.created_at
    assert row.last_active_at.timestamp() == pytest.approx(time.time() - 3_600, abs=5)
    assert (row.last_active, row.percent) == ("1 h 0 min ago", 96)
    for text in (">conv-1<", ">openai<", ">gpt-4<", ">user-456<", "<span>23 h 0 min<", 'width="96"', ">1 h 0 min ago<"):
        assert text in response.text


def test_list_shows_the_most_recently_active_first(ada: Client, session_cache: redis.Redis) -> None:
    for number, idle in enumerate([3_000, 1_000, 2_000]):
        write_raw(session_cache, f"conv-{number}", 86_400 - idle)
    sessions.reindex()
    assert listed(ada.get(BASE)) == ["conv-1", "conv-2", "conv-0"]


@pytest.mark.slow
def test_list_gives_every_session_once_when_walked_by_next(ada: Client, session_cache: redis.Redis) -> None:
    number = 2 * PAGE_SIZE + 7
    for each in range(number):
        sessions.create(f"conv-{each}", **PROPOSED)
    seen, url, pages = [], query(provider="openai"), 0
    while url:
        response = ada.get(url)
        seen += listed(response)
        pages += 1
        assert f"<strong>{number}</strong> sessions" in response.text
        assert ("First page" in response.text) is (pages > 1)
        following = response.context["next_query"]
        url = f"{BASE}{following}" if following else ""
        assert not url or parse_qs(urlsplit(url).query)["provider"] == ["openai"]
    assert pages == 3
    assert sorted(seen) == sorted(f"conv-{each}" for each in range(number))
    assert response.context["first_query"] == "?provider=openai"


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"provider": "openai"}, {"a", "b"}),
        ({"model": "large"}, {"b", "c"}),
        ({"owner": "user-7"}, {"a", "c"}),
        ({"provider": "openai", "model": "large"}, {"b"}),
        ({"provider": "mistral", "owner": "user-7"}, {"c"}),
        ({"no_owner": "1"}, {"b"}),
        ({"no_owner": "1", "owner": "user-7"}, {"b"}),
        ({"provider": "", "model": "", "owner": ""}, {"a", "b", "c"}),
        ({"provider": "open"}, set()),
        ({"owner": "*"}, set()),
    ],
)
def test_list_shows_what_matches_when_filtered(
    ada: Client, session_cache: redis.Redis, asked: dict[str, str], expected: set[str]
) -> None:
    sessions.create("a", "openai", "gpt-4", "user-7")
    sessions.create("b", "openai", "large", "")
    sessions.create("c", "mistral", "large", "user-7")
    response = ada.get(query(**asked))
    assert set(listed(response)) == expected
    assert response.context["count"] == (len(expected), True)
    assert response.context["providers"] == sorted({"openai", "mistral", asked.get("provider") or "openai"})


def test_list_keeps_the_filters_in_its_forms_when_filtered(ada: Client, session_cache: redis.Redis) -> None:
    sessions.create("a", "openai", "gpt-4", "")
    assert "<option selected>gone</option>" in ada.get(query(provider="gone")).text
    response = ada.get(query(provider="openai", model="gpt-4", no_owner="1"))
    text = response.text
    assert "<option selected>gpt-4</option>" in text
    assert 'name="no_owner" value="1" checked' in text
    fields = {name: value for name, value in hidden_fields(response).items() if value != [""]}
    assert fields == {"provider": ["openai"], "model": ["gpt-4"], "no_owner": ["1"]}


def test_list_offers_no_filter_when_nothing_is_left_of_it(ada: Client, session_cache: redis.Redis) -> None:
    for provider in ("openai", "mistral"):
        sessions.create(provider, provider, "gpt-4", "user-456")
    sessions.delete("mistral")
    assert ada.get(BASE).context["providers"] == ["openai"]


@pytest.mark.parametrize(
    ("asked", "text"),
    [({}, "No sessions yet. The first chat creates one."), ({"owner": "x"}, "No session matches these filters.")],
)
def test_list_gives_the_reason_when_it_is_empty(
    ada: Client, session_cache: redis.Redis, asked: dict[str, str], text: str
) -> None:
    response = ada.get(query(**asked))
    assert listed(response) == []
    assert text in response.text


@pytest.mark.slow
def test_list_offers_the_next_page_when_nothing_matches_so_far(
    ada: Client, session_cache: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sessions_sticky.queries.reads.MAX_STEPS", 1)
    for number in range(1_100):
        write_raw(session_cache, f"a-{number}", 80_000, provider="mistral", owner="user-7")
    write_raw(session_cache, "wanted", 100, owner="user-7")
    for number in range(1_200):
        write_raw(session_cache, f"b-{number}", 80_000, owner="other")
    sessions.reindex()
    seen, url, empty = [], query(owner="user-7", provider="openai"), 0
    while url:
        response = ada.get(url)
        seen += listed(response)
        empty += "No match among the sessions searched so far" in response.text
        following = response.context["next_query"]
        url = f"{BASE}{following}" if following else ""
    assert seen == ["wanted"]
    assert empty > 0


def test_list_counts_at_most_when_counting_would_take_long(
    ada: Client, session_cache: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sessions_sticky.admin.filters.MAX_COUNTED", 2)
    for number in range(3):
        sessions.create(f"conv-{number}", **PROPOSED)
    response = ada.get(query(provider="openai", owner="user-456"))
    assert response.context["count"] == (3, False)
    assert "At most <strong>3</strong> sessions" in response.text
    assert ada.get(query(provider="openai")).context["count"] == (3, True)


def test_list_shows_its_position_and_leads_back_when_there_are_pages(ada: Client, session_cache: redis.Redis) -> None:
    for number in range(2 * PAGE_SIZE + 7):
        sessions.create(f"conv-{number}", **PROPOSED)
    first = ada.get(query(provider="openai"))
    second = ada.get(f"{BASE}{first.context['next_query']}")
    third = ada.get(f"{BASE}{second.context['next_query']}")
    for page, position in ((first, "1-50 of 107"), (second, "51-100 of 107"), (third, "101-107 of 107")):
        assert position in page.text
    assert first.context["previous_query"] is None
    back = ada.get(f"{BASE}{third.context['previous_query']}")
    assert listed(back) == listed(second)
    assert "51-100 of 107" in back.text
    assert back.context["previous_query"] == "?provider=openai"
    assert 'rel="prev"' not in first.text
    assert f'rel="prev" href="{query(provider="openai")}"' in back.text


def test_list_remembers_some_pages_only_when_many_were_seen() -> None:
    position = Position()
    for number in range(MAX_CURSORS + 5):
        position = position.following(f"c{number}", PAGE_SIZE)
    assert Position.read(str(position)) == position
    assert (position.before, len(position.cursors)) == (PAGE_SIZE * (MAX_CURSORS + 5), MAX_CURSORS)
    while position.previous:
        position = position.previous
    assert (position.before, position.cursors) == (PAGE_SIZE * 6, ("c5",))


@pytest.mark.parametrize("cursor", ["x", "....", "é", "x" * 3_000, "-1.", "².", "1" * 13 + ".", "50", "50.x"])
def test_list_goes_to_the_first_page_when_the_cursor_is_invalid(
    ada: Client, session_cache: redis.Redis, cursor: str
) -> None:
    sessions.create("conv-1", **PROPOSED)
    response = ada.get(query(cursor=cursor, provider="openai"), follow=True)
    assert response.redirect_chain == [(query(provider="openai"), 302)]
    assert messages_of(response) == ["That page does not exist. This is the first one."]
    assert listed(response) == ["conv-1"]


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago"])
def test_list_shows_a_session_as_far_as_it_can_when_another_program_wrote_it(
    ada: Client, session_cache: redis.Redis, settings: Settings, zone: str
) -> None:
    settings.TIME_ZONE = zone
    write_raw(session_cache, "far", created_at=2**62)
    write_raw(session_cache, "last", created_at=253_402_300_799)  # the end of the year 9999
    write_raw(session_cache, "first", created_at=-62_135_596_800)  # the beginning of the year 1
    write_raw(session_cache, "long", 10**9)
    session_cache.set(keys.session("ever"), sessions.create("ever", **PROPOSED).to_json())
    sessions.reindex()
    response = ada.get(BASE)
    rows = {row.session.id: row for row in response.context["rows"]}
    assert rows["far"].created_at is None
    assert str(2**62) in response.text
    assert (rows["last"].created_at, rows["first"].created_at) == (None, None)
    assert (rows["long"].percent, rows["long"].last_active) == (100, "in the last minute")
    assert (rows["ever"].left, rows["ever"].percent) == ("unknown", None)


def test_list_shows_no_controls_to_change_when_the_user_may_only_view(
    login: Callable[..., Client], session_cache: redis.Redis
) -> None:
    sessions.create("conv-1", **PROPOSED)
    text = login("view").get(BASE).text.replace(">Move all</a>", "")  # the link to a page that shows a form
    for name in ("formaction", 'name="selected"', 'name="all"', "Delete", "Move"):
        assert name not in text


@pytest.mark.parametrize(
    ("action", "shown", "not_shown"), [("change", "Move…", "Delete…"), ("delete", "Delete…", "Move…")]
)
def test_list_shows_the_buttons_that_the_user_may_press_when_there_are_two(
    login: Callable[..., Client], session_cache: redis.Redis, action: str, shown: str, not_shown: str
) -> None:
    sessions.create("conv-1", **PROPOSED)
    text = login("view", action).get(BASE).text
    assert shown in text
    assert not_shown not in text


def test_search_goes_to_the_session_when_the_text_is_its_id(ada: Client, session_cache: redis.Redis) -> None:
    sessions.create(" conv/1 ", **PROPOSED)
    assert ada.get(f"{BASE}search/", {"q": " conv/1 "}).url == page_of(" conv/1 ")


def test_search_ignores_space_around_the_text_when_nothing_has_it(ada: Client, session_cache: redis.Redis) -> None:
    sessions.create("conv-1", **PROPOSED)
    assert ada.get(f"{BASE}search/", {"q": "  conv-1\t"}).url == page_of("conv-1")


def test_search_goes_to_the_owners_sessions_when_the_text_is_an_owner(ada: Client, session_cache: redis.Redis) -> None:
    sessions.create("conv-1", **PROPOSED)
    assert ada.get(f"{BASE}search/", {"q": "user-456"}).url == query(owner="user-456")


def test_search_mentions_the_owner_with_the_same_name_as_a_session(ada: Client, session_cache: redis.Redis) -> None:
    sessions.create("user-456", **PROPOSED)
    response = ada.get(f"{BASE}search/", {"q": "user-456"}, follow=True)
    assert response.redirect_chain == [(page_of("user-456"), 302)]
    assert messages_of(response) == ["There is also an owner with this name. Filter the list to see their sessions."]


def test_search_goes_to_what_is_left_when_the_session_is_gone(ada: Client, session_cache: redis.Redis) -> None:
    sessions.create("conv-1", **PROPOSED)
    sessions.delete("conv-1")
    assert ada.get(f"{BASE}search/", {"q": "conv-1"}).url == page_of("conv-1")


@pytest.mark.parametrize("text", ["missing", "<b>", "%", "x" * 300, "a\nb", "\ufffd"])
def test_search_reports_no_match(ada: Client, session_cache: redis.Redis, text: str) -> None:
    sessions.create("conv-1", **PROPOSED)
    response = ada.get(f"{BASE}search/", {"q": text})
    assert listed(response) == []
    assert f'name="q" value="{escape(text)}"' in response.text
    assert f"is exactly “<bdi>{escape(text)}</bdi>”, and no id contains it." in response.text
    assert "owners only on the whole name. The search is case-sensitive." in response.text
    assert "All sessions have been searched." in response.text
    assert "conv-1" not in response.text


@pytest.mark.parametrize("text", ["ses_1", " thread_*", "me@home", "long" * 80])
def test_search_lists_observed_sessions_when_the_text_is_the_clients_id(
    ada: Client, session_cache: redis.Redis, text: str
) -> None:
    made = [
        identify({"x-session-id": text}, {}, owner="o", model=model, api="chat", key=b"k").session_id
        for model in ("gpt-5", "gpt-5-mini")
    ]
    for session_id in (*made, "conv-1"):
        sessions.create(session_id, **PROPOSED)
    response = ada.get(f"{BASE}search/", {"q": text})
    assert sorted(listed(response)) == sorted(made)
    assert f'href="{page_of(made[0])}"' in response.text
    assert f'href="{query(owner="user-456")}"' in response.text
    assert 'type="checkbox"' not in response.text


def test_search_shows_matches_in_pages_when_there_are_many(ada: Client, session_cache: redis.Redis) -> None:
    for number in range(PAGE_SIZE + 5):
        sessions.create(f"conv-{number}", **PROPOSED)
    first = ada.get(f"{BASE}search/", {"q": "onv"})
    assert "Not all sessions have been searched yet." in first.text
    second = ada.get(first.context["next_url"])
    assert len({*listed(first), *listed(second)}) == PAGE_SIZE + 5
    assert listed(ada.get(second.context["first_url"])) == listed(first)
    assert ada.get(f"{BASE}search/", {"q": "onv", "cursor": "x"}).url == f"{BASE}search/?q=onv"


def test_list_goes_to_the_search_when_the_query_is_that_of_djangos_lists(
    ada: Client, session_cache: redis.Redis
) -> None:
    assert ada.get(BASE, {"q": "a b"}).url == f"{BASE}search/?q=a+b"


@pytest.mark.parametrize("text", ["", "   "])
def test_search_shows_the_list_when_no_text_is_given(ada: Client, session_cache: redis.Redis, text: str) -> None:
    response = ada.get(f"{BASE}search/", {"q": text}, follow=True)
    assert (response.redirect_chain, messages_of(response)) == ([(BASE, 302)], [])


def test_index_of_the_admin_links_to_the_list_when_the_user_may_view(
    login: Callable[..., Client], session_cache: redis.Redis, settings: Settings
) -> None:
    assert f'href="{BASE}"' in login("view").get("/admin/all/").text
    text = login("change", "delete", name="bob").get("/admin/all/").text
    assert f'href="{BASE}"' not in text
