from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest

from sessions_sticky import sessions
from sessions_sticky.api.pagination import MAX_TRAIL_LENGTH
from sessions_sticky.api.serializers import SessionSerializer
from tests.sessions_sticky.api.calls import BASE, HOSTILE_IDS, INDEX_CALLS

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis
    from rest_framework.test import APIClient

ORIGIN = "http://testserver"


def listed(api: APIClient, **query: Any) -> dict[str, Any]:
    response = api.get(BASE, query)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    assert list(body) == ["results", "next", "previous", "count"]
    return body


def ids(body: dict[str, Any]) -> list[str]:
    return [shown["id"] for shown in body["results"]]


def walk(api: APIClient, url: str) -> Iterator[dict[str, Any]]:
    """The pages from a URL on, as a client follows them."""
    following: str | None = url
    while following:
        body = api.get(following).json()
        yield body
        following = body["next"]


def test_list_finds_sessions_by_a_text_when_searched(api: APIClient, many: list[str]) -> None:
    sessions.create("0123456789ab:ses_1@gpt-5", "p0", "m0", "ann")
    for text, expected in (
        ("conv-03", ["conv-03"]),
        ("bob", many[2::3]),
        ("ses_1", ["0123456789ab:ses_1@gpt-5"]),
        ("onv-0", many[:10]),
        ("missing", []),
    ):
        body = listed(api, search=text)
        assert (sorted(ids(body)), body["next"], body["count"]) == (expected, None, None)


def test_list_gives_every_match_once_when_a_search_is_taken_in_pages(api: APIClient, many: list[str]) -> None:
    for text, expected in (("onv-", many), ("bob", many[2::3])):
        pages = list(walk(api, f"{BASE}?search={text}&limit=3"))
        assert sorted(each for body in pages for each in ids(body)) == expected
        assert len(pages) > 2


@pytest.mark.parametrize("query", [{"provider": "a"}, {"owner": ""}, {"cursor": "x"}, {"search": ""}])
def test_list_refuses_a_search_with_filters_or_a_wrong_cursor(
    api: APIClient, session_cache: redis.Redis, query: dict[str, str]
) -> None:
    assert api.get(BASE, {"search": "a", **query}).status_code == 400


@pytest.fixture
def many(session_cache: redis.Redis) -> list[str]:
    """Ids of sessions: of 2 providers, 2 models, 3 owners, one of them blank."""
    names = [f"conv-{number:02}" for number in range(24)]
    for number, name in enumerate(names):
        sessions.create(name, f"p{number % 2}", f"m{number // 2 % 2}", ("", "ann", "bob")[number % 3])
    return names


def test_list_shows_what_retrieve_shows_when_ids_are_hostile(api: APIClient, session_cache: redis.Redis) -> None:
    for conversation_id in HOSTILE_IDS:
        sessions.create(conversation_id, "p", "m", "o")
    shown = {session["id"]: session for session in listed(api, limit=1000)["results"]}
    assert sorted(shown) == sorted(HOSTILE_IDS)
    for conversation_id in HOSTILE_IDS[::5]:
        alone = api.get(shown[conversation_id]["url"]).json()
        assert list(alone) == list(SessionSerializer().fields) == list(shown[conversation_id])
        assert {**alone, "expires_at": "", "expires_in": 0} == {
            **shown[conversation_id],
            "expires_at": "",
            "expires_in": 0,
        }


def test_list_shows_no_date_when_a_session_has_no_expiry(api: APIClient, many: list[str], session_cache: Any) -> None:
    session_cache.persist("sentinel:session:conv-07")
    (shown,) = [session for session in listed(api)["results"] if session["id"] == "conv-07"]
    assert (shown["expires_in"], shown["expires_at"]) == (None, None)


def test_list_is_empty_when_there_are_no_sessions(api: APIClient, session_cache: redis.Redis) -> None:
    assert listed(api) == {"results": [], "next": None, "previous": None, "count": 0}


def test_list_shows_50_when_no_limit_is_given(api: APIClient, session_cache: redis.Redis) -> None:
    for number in range(51):
        sessions.create(str(number), "p", "m", "o")
    body = listed(api)
    assert (len(body["results"]), body["count"]) == (50, 51)
    assert body["next"]


@pytest.mark.parametrize(
    ("filters", "fits"),
    [
        ({"provider": "p0"}, lambda n: n % 2 == 0),
        ({"model": "m1"}, lambda n: n // 2 % 2 == 1),
        ({"owner": "ann"}, lambda n: n % 3 == 1),
        ({"owner": ""}, lambda n: n % 3 == 0),
        ({"provider": "p1", "model": "m0"}, lambda n: n % 2 == 1 and n // 2 % 2 == 0),
        ({"provider": "p1", "owner": "bob"}, lambda n: n % 2 == 1 and n % 3 == 2),
        ({"provider": "p1", "model": "m0", "owner": ""}, lambda n: n % 4 == 1 and n % 3 == 0),
        ({"provider": "P1"}, lambda n: False),
        ({"provider": " p1"}, lambda n: False),
        ({"provider": "p*"}, lambda n: False),
    ],
)
def test_list_keeps_the_filters_on_every_page_when_walked(
    api: APIClient, many: list[str], filters: dict[str, str], fits: Any
) -> None:
    expected = [name for number, name in enumerate(many) if fits(number)]
    first = listed(api, **filters, limit=2)
    pages = [first, *walk(api, first["next"])] if first["next"] else [first]
    assert sorted(name for page in pages for name in ids(page)) == expected
    assert {page["count"] for page in pages} == {len(expected)}
    assert all(len(page["results"]) <= 2 for page in pages)
    assert all(page["next"].startswith(f"{ORIGIN}{BASE}?") for page in pages[:-1])


def test_list_leads_back_to_the_first_page_when_previous_is_followed(api: APIClient, many: list[str]) -> None:
    pages = list(walk(api, f"{BASE}?provider=p0&limit=2"))
    assert len(pages) == 6
    url: str | None = pages[-1]["previous"]
    back = []
    while url:
        back.append(api.get(url).json())
        url = back[-1]["previous"]
    assert [ids(page) for page in back] == [ids(page) for page in pages[-2::-1]]
    assert pages[0]["previous"] is None
    assert pages[1]["previous"] == f"{ORIGIN}{BASE}?limit=2&provider=p0"


def test_list_forgets_the_pages_far_behind_when_the_way_back_gets_long(api: APIClient, many: list[str]) -> None:
    pages = list(walk(api, f"{BASE}?limit=1"))
    assert sorted(name for page in pages for name in ids(page)) == many
    assert max(len(page["next"] or "") for page in pages) < MAX_TRAIL_LENGTH + 200
    url, steps = pages[-1]["previous"], 0
    while url:
        body = api.get(url).json()
        steps += 1
        assert ids(body) == ids(pages[-1 - steps])
        url = body["previous"]
    assert 5 < steps < 23


def test_list_continues_when_one_cursor_is_longer_than_the_way_back_may_be(
    api: APIClient, session_cache: redis.Redis
) -> None:
    for number in range(4):
        sessions.create(f"{number}{'😀' * 255}", "😀" * 256, "😀" * 256, "😀" * 256)
    query = {"limit": 1, "provider": "😀" * 256, "model": "😀" * 256, "owner": "😀" * 256}
    pages = list(walk(api, f"{BASE}?{urlencode(query)}"))
    assert [len(page["results"]) for page in pages][:4] == [1, 1, 1, 1]
    assert pages[2]["previous"] is None


@pytest.mark.slow
def test_list_returns_every_live_session_once_under_writes(api: APIClient, session_cache: Any) -> None:
    living = [f"living-{number:03}" for number in range(300)]
    for name in living:
        sessions.create(name, "p", "m", "o")
    done = threading.Event()

    def write() -> None:
        number = 0
        while not done.is_set():
            number += 1
            sessions.create(f"passing-{number % 50}", "p", "m", "o")
            sessions.touch(living[number * 7 % 300])
            sessions.delete(f"passing-{number * 3 % 50}")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        met = [name for page in walk(api, f"{BASE}?limit=7") for name in ids(page)]
    finally:
        done.set()
        writer.join()
    assert sorted(name for name in met if name.startswith("living")) == living


UNKNOWN = "Unknown parameter; allowed: provider, model, owner, search, cursor, limit."
FEW, MANY = "greater than or equal to 1.", "less than or equal to 1000."
BLANK, NO_CURSOR = "This field may not be blank.", "The cursor was not issued by an earlier page"


@pytest.mark.parametrize(
    ("query", "name", "message"),
    [
        ("providr=p1", "providr", UNKNOWN),
        ("Provider=p1", "Provider", UNKNOWN),
        ("provider=", "provider", BLANK),
        ("model=", "model", BLANK),
        ("provider=a%00b", "provider", "Null characters are not allowed."),
        ("provider=p1&provider=p2", "provider", "Given more than once."),
        *[(f"limit={limit}", "limit", FEW) for limit in ("0", "-1")],
        ("limit=1001", "limit", MANY),
        *[(f"limit={limit}", "limit", "A valid integer is required.") for limit in ("", "x", "1e2", "%20", "null")],
        ("cursor=", "cursor", BLANK),
        *[(f"cursor={cursor}", "cursor", NO_CURSOR) for cursor in (".", "a.", "abc", "a.b", "%F0%9F%98%80", "==")],
    ],
)
def test_list_answers_400_and_names_the_parameter_when_it_does_not_fit(
    api: APIClient, many: list[str], query: str, name: str, message: str
) -> None:
    response = api.get(f"{BASE}?{query}")
    assert response.status_code == 400
    assert response.headers["Content-Type"] == "application/problem+json"
    (shown,) = response.json()["errors"].items()
    assert shown[0] == name
    assert message in shown[1][0]


def test_list_answers_400_when_a_cursor_is_used_with_other_filters(api: APIClient, many: list[str]) -> None:
    following = listed(api, provider="p0", limit=2)["next"]
    response = api.get(following.replace("p0", "p1"))
    assert response.status_code == 400
    assert response.json()["errors"] == {"cursor": ["The cursor was issued for other filters"]}


@pytest.mark.parametrize("path", ["stats/", "history/conv-1/"])
def test_call_answers_400_when_it_takes_no_parameters(api: APIClient, session_cache: redis.Redis, path: str) -> None:
    response = api.get(f"{BASE}{path}?provider=p1")
    assert response.status_code == 400
    assert response.json()["errors"] == {"provider": ["Unknown parameter; allowed: none."]}


@pytest.mark.parametrize("name", INDEX_CALLS)
def test_call_answers_501_when_the_cache_has_no_index(api: APIClient, settings: Any, name: str) -> None:
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    response = INDEX_CALLS[name].by(api)
    assert response.status_code == 501
    if response.content:  # not for HEAD
        assert "django-redis can" in response.json()["detail"]


@pytest.mark.parametrize(
    ("name", "option", "detail"),
    [
        ("list", {"INDEX": False}, "There is no index: SESSIONS_STICKY['INDEX'] is False"),
        ("stats", {"INDEX": False}, "There is no index: SESSIONS_STICKY['INDEX'] is False"),
        ("history", {"HISTORY_LENGTH": 0}, "There is no history: SESSIONS_STICKY['HISTORY_LENGTH'] is 0"),
    ],
)
def test_call_answers_501_when_the_setting_is_off(
    api: APIClient, session_cache: redis.Redis, settings: Any, name: str, option: dict[str, Any], detail: str
) -> None:
    settings.SESSIONS_STICKY = option
    response = INDEX_CALLS[name].by(api)
    assert (response.status_code, response.json()["detail"]) == (501, detail)
