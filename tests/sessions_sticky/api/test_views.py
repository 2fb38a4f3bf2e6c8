from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.admin.models import LogEntry
from rest_framework.test import APIClient

from sessions_sticky import Attempt, Price, Session, SessionManager, Turn, TurnTotals, Usage, sessions
from sessions_sticky.api.pagination import ListQuerySerializer
from sessions_sticky.api.serializers import EventSerializer, RebindSerializer, SessionSerializer
from sessions_sticky.api.turn_serializers import StatsSerializer
from tests.sessions_sticky.api.calls import BASE, CALLS, MOVE, PROPOSAL

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis
    from rest_framework.serializers import Serializer

KEY = "sentinel:session:conv-1"
SHOWN = {
    "id": "conv-1",
    "provider": "openai",
    "model": "gpt-4",
    "owner": "user-456",
    "created_at": 1700000000,
    "url": "/api/sessions/id/conv-1/",
}


def checked(body: dict[str, Any], *, left: int) -> dict[str, Any]:
    """A session as shown, without its expiry, which must be `left` seconds from now, and what it says twice."""
    assert body.pop("external_id") == body["owner"]
    assert datetime.fromisoformat(body.pop("created_at_iso")).timestamp() == body["created_at"]
    assert body.pop("expires_in") == left
    expires_at = body.pop("expires_at")
    assert expires_at.endswith("Z")
    assert abs(datetime.fromisoformat(expires_at) - datetime.now(UTC)).total_seconds() == pytest.approx(left, abs=2)
    return body


@pytest.fixture
def after_inspect(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], None]:
    """Let something happen after the next look at a session, before anything is done."""
    inspect = SessionManager.inspect

    def let(happen: Callable[[], Any]) -> None:
        def inspect_once(self: SessionManager, conversation_id: str) -> Any:
            seen = inspect(self, conversation_id)
            monkeypatch.setattr(SessionManager, "inspect", inspect)
            happen()
            return seen

        monkeypatch.setattr(SessionManager, "inspect", inspect_once)

    return let


def test_create_binds_when_the_conversation_is_new(api: APIClient, session_cache: redis.Redis) -> None:
    before = int(time.time())
    response = api.post(BASE, PROPOSAL, format="json")
    body = checked(response.json(), left=86_400)
    created_at = body["created_at"]
    assert response.status_code == 201
    assert response.headers["Location"] == "/api/sessions/id/conv-2/"
    assert body == PROPOSAL | {"created_at": created_at, "url": "/api/sessions/id/conv-2/"}
    assert before <= created_at <= time.time()
    stored = Session("conv-2", PROPOSAL["provider"], PROPOSAL["model"], PROPOSAL["owner"], created_at)
    assert session_cache.get("sentinel:session:conv-2") == stored.to_json()
    assert 86_399_000 < session_cache.pttl("sentinel:session:conv-2") <= 86_400_000


def test_create_keeps_every_character_when_there_are_spaces_and_more(
    api: APIClient, session_cache: redis.Redis
) -> None:
    proposal = {"id": " ä ", "provider": " p ", "model": "日本\u2028", "owner": "", "created_at": 5, "else": []}
    body = api.post(BASE, proposal, format="json").json()
    assert {name: body[name] for name in ("id", "provider", "model", "owner")} == {
        name: proposal[name] for name in ("id", "provider", "model", "owner")
    }
    assert body["created_at"] > 5
    assert Session.from_json(session_cache.get("sentinel:session: ä ")).model == "日本\u2028"


@pytest.mark.parametrize("owner", ["user-456", "another owner"])
def test_create_answers_409_and_extends_nothing_when_already_bound(
    api: APIClient, bound: bytes, session_cache: redis.Redis, owner: str
) -> None:
    response = api.post(BASE, PROPOSAL | {"id": "conv-1", "owner": owner}, format="json")
    problem = response.json()
    assert checked(problem.pop("current"), left=100) == SHOWN
    assert problem == {
        "type": "about:blank",
        "title": "Conflict",
        "status": 409,
        "detail": "Conversation 'conv-1' is already bound.",
    }
    assert session_cache.get(KEY) == bound
    assert session_cache.pttl(KEY) <= 100_000


@pytest.mark.slow
def test_create_gives_one_201_when_many_race(session_cache: redis.Redis, no_login: None) -> None:
    def create(conversation_id: str, provider: str) -> Any:
        return APIClient().post(BASE, PROPOSAL | {"id": conversation_id, "provider": provider}, format="json")

    with ThreadPoolExecutor(8) as threads:
        for number in range(10):
            answers = list(threads.map(create, [f"race-{number}"] * 8, map(str, range(8))))
            (winner,) = [answer.json()["provider"] for answer in answers if answer.status_code == 201]
            losers = [answer.json() for answer in answers if answer.status_code == 409]
            assert [problem["current"]["provider"] for problem in losers] == [winner] * 7


def test_create_binds_as_asked_when_the_store_has_lost_the_binding(api: APIClient, session_cache: redis.Redis) -> None:
    sessions.create("conv-2", "google", "gemini", "user-7")
    session_cache.delete("sentinel:session:conv-2")
    response = api.post(BASE, PROPOSAL, format="json")
    assert (response.status_code, response.json()["provider"]) == (201, PROPOSAL["provider"])


def test_retrieve_shows_the_session_and_does_not_extend_it_when_bound(
    api: APIClient, bound: bytes, session_cache: redis.Redis
) -> None:
    response = api.get(f"{BASE}id/conv-1/")
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/json"
    assert checked(response.json(), left=100) == SHOWN
    assert api.head(f"{BASE}id/conv-1/").status_code == 200
    assert 98_000 < session_cache.pttl(KEY) <= 100_000


@pytest.mark.parametrize(("seconds", "shown"), [(None, None), (9_000_000_000_000, 9_000_000_000_000)])
def test_retrieve_shows_no_date_when_there_is_none(
    api: APIClient, bound: bytes, session_cache: redis.Redis, seconds: int | None, shown: int | None
) -> None:
    session_cache.set(KEY, bound, ex=seconds)
    body = api.get(f"{BASE}id/conv-1/").json()
    assert (body["expires_in"], body["expires_at"]) == (shown, None)


def test_touch_sets_the_idle_time_back_when_bound(api: APIClient, bound: bytes, session_cache: redis.Redis) -> None:
    response = api.post(f"{BASE}touch/conv-1/")
    assert response.status_code == 200
    assert checked(response.json(), left=86_400) == SHOWN
    assert session_cache.get(KEY) == bound
    assert session_cache.pttl(KEY) > 86_399_000


def test_rebind_moves_and_keeps_the_rest_when_bound(api: APIClient, bound: bytes, session_cache: redis.Redis) -> None:
    response = api.post(f"{BASE}rebind/conv-1/", MOVE | {"from_provider": "openai"}, format="json")
    assert response.status_code == 200
    assert checked(response.json(), left=100) == SHOWN | {"provider": "mistral", "model": "large"}
    assert session_cache.get(KEY) == bound.replace(b"openai", b"mistral").replace(b"gpt-4", b"large")
    assert 98_000 < session_cache.pttl(KEY) <= 100_000


def test_rebind_counts_and_records_one_move_when_called_twice(api: APIClient, bound: bytes) -> None:
    answers = [api.post(f"{BASE}rebind/conv-1/", MOVE, format="json") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json()["provider"] == answers[1].json()["provider"] == "mistral"
    assert [event.kind for event in sessions.history("conv-1")] == ["created", "rebound"]
    assert LogEntry.objects.count() == 1


def test_rebind_moves_from_a_blank_provider_when_another_program_wrote_one(
    api: APIClient, bound: bytes, session_cache: redis.Redis
) -> None:
    session_cache.set(KEY, bound.replace(b"openai", b""))
    response = api.post(f"{BASE}rebind/conv-1/", MOVE | {"from_provider": ""}, format="json")
    assert (response.status_code, response.json()["provider"]) == (200, "mistral")


def test_rebind_answers_409_when_moved_since_the_operator_looked(
    api: APIClient, bound: bytes, session_cache: redis.Redis
) -> None:
    problem = api.post(f"{BASE}rebind/conv-1/", MOVE | {"from_provider": "anthropic"}, format="json").json()
    assert checked(problem.pop("current"), left=100) == SHOWN
    assert problem == {
        "type": "about:blank",
        "title": "Conflict",
        "status": 409,
        "detail": "Conversation 'conv-1' is now bound to 'openai', model 'gpt-4'",
    }
    assert session_cache.get(KEY) == bound


def test_rebind_answers_409_when_another_process_moves_first(
    api: APIClient, bound: bytes, session_cache: redis.Redis, after_inspect: Callable[[Callable[[], Any]], None]
) -> None:
    moved = bound.replace(b"openai", b"google")
    after_inspect(lambda: session_cache.set(KEY, moved, keepttl=True))
    response = api.post(f"{BASE}rebind/conv-1/", MOVE, format="json")
    assert (response.status_code, response.json()["current"]["provider"]) == (409, "google")
    assert session_cache.get(KEY) == moved


def test_rebind_answers_409_when_the_session_was_deleted_concurrently(
    api: APIClient, bound: bytes, session_cache: redis.Redis, after_inspect: Callable[[Callable[[], Any]], None]
) -> None:
    after_inspect(lambda: session_cache.delete(KEY))
    response = api.post(f"{BASE}rebind/conv-1/", MOVE, format="json")
    assert response.status_code == 409
    assert response.json()["detail"] == "Conversation 'conv-1' is no longer bound"
    assert response.json()["current"] is None
    assert not session_cache.exists(KEY)


def test_touch_answers_404_when_the_session_was_deleted_concurrently(
    api: APIClient, bound: bytes, session_cache: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch = SessionManager.touch
    monkeypatch.setattr(SessionManager, "touch", lambda self, id: touch(self, id) and session_cache.delete(KEY))
    assert api.post(f"{BASE}touch/conv-1/").status_code == 404
    assert not session_cache.exists(KEY)


def test_delete_unbinds_when_bound(api: APIClient, bound: bytes, session_cache: redis.Redis) -> None:
    response = api.delete(f"{BASE}id/conv-1/")
    assert (response.status_code, response.content) == (204, b"")
    assert not session_cache.exists(KEY)


@pytest.mark.parametrize("name", ["retrieve", "touch", "rebind", "delete"])
def test_every_call_answers_404_when_not_bound(api: APIClient, session_cache: redis.Redis, name: str) -> None:
    response = CALLS[name].by(api)
    assert response.status_code == 404
    assert response.json() == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "Conversation 'conv-1' is not bound.",
    }


POISON = [
    b"",
    b"not json",
    b"1700000000",
    b"\x80\x05N.",
    b"[]",
    b'{"id":"conv-1"}',
    b'{"id":"other","provider":"p","model":"m","owner":"o","created_at":1}',
]


@pytest.mark.parametrize("poison", [*POISON, None], ids=ascii)
@pytest.mark.parametrize(
    ("name", "status"), [("retrieve", 404), ("touch", 404), ("rebind", 404), ("create", 201), ("delete", 204)]
)
def test_every_call_treats_an_unreadable_value_as_no_session(
    api: APIClient, session_cache: redis.Redis, poison: bytes | None, name: str, status: int
) -> None:
    key = "sentinel:session:conv-2" if name == "create" else KEY
    session_cache.rpush(key, "a list") if poison is None else session_cache.set(key, poison, ex=100)
    assert CALLS[name].by(api).status_code == status


def test_portable_cache_has_no_expiry_and_no_rebind(api: APIClient, settings: Any) -> None:
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    assert api.post(BASE, PROPOSAL, format="json").json()["expires_in"] == 86_400
    for shown in (api.get(f"{BASE}id/conv-2/"), api.post(f"{BASE}touch/conv-2/")):
        assert (shown.status_code, shown.json()["expires_in"], shown.json()["expires_at"]) == (200, None, None)
    assert api.post(f"{BASE}rebind/conv-2/", MOVE, format="json").json() == {
        "type": "about:blank",
        "title": "Not Implemented",
        "status": 501,
        "detail": "LocMemCache cannot replace a binding atomically; django-redis can",
    }
    assert api.delete(f"{BASE}id/conv-2/").status_code == 204
    assert sessions.get("conv-2") is None


def test_stats_count_by_route_when_there_are_sessions(api: APIClient, session_cache: redis.Redis) -> None:
    for number in range(5):
        sessions.create(f"conv-{number}", f"p{number % 2}", "m", "o")
    sessions.delete("conv-1")
    shared = {"model": "m"}
    assert api.get(f"{BASE}stats/").json() == {
        "sessions": 4,
        "routes": [
            {"provider": "p0", **shared, "sessions": 3, "created_last_hour": 3, "created_last_day": 3},
            {"provider": "p1", **shared, "sessions": 1, "created_last_hour": 2, "created_last_day": 2},
        ],
        "usage": [],
    }


def test_stats_are_empty_when_there_are_no_sessions(api: APIClient, session_cache: redis.Redis) -> None:
    assert api.get(f"{BASE}stats/").json() == {"sessions": 0, "routes": [], "usage": []}


def test_stats_and_history_show_what_turns_used(api: APIClient, session_cache: redis.Redis) -> None:
    sessions.create("conv-1", "p0", "m", "o")
    failed = (Attempt("p0", 503, "overloaded"),)
    used = {"usage": Usage(3_000, read=1_024, output=7), "price": Price(input=2, cached_input=1), "attempts": failed}
    sessions.record_turn(
        Turn(conversation_id="conv-1", at=1_700_000_000, provider="p1", model="m", outcome="x", **used)
    )
    spent, refused = api.get(f"{BASE}stats/").json()["usage"][::-1]
    assert (spent["provider"], refused["provider"], refused["outcome"]) == ("p1", "p0", "failed")
    trail = CALLS["history"].by(api).json()["trail"]
    assert trail["totals"] == spent["totals"]
    assert trail["totals"].items() >= {"turns": 1, "input": 3_000, "read": 1_024, "saved": 1_024}.items()
    (turn,) = trail["turns"]
    assert turn["at"] == "2023-11-14T22:13:20Z"
    assert turn["usage"] == {"input": 3_000, "read": 1_024, "written": 0, "output": 7}
    assert turn["attempts"] == [{"provider": "p0", "status": 503, "code": "overloaded"}]


def test_history_has_the_spill_overs_of_a_session(api: APIClient, session_cache: redis.Redis) -> None:
    sessions.create("conv-1", "p0", "m", "o")
    spilled = {
        "conversation_id": "conv-1",
        "provider": "p1",
        "bound_provider": "p0",
        "model": "m",
        "outcome": "spilled",
    }
    for at in (0, 90):
        sessions.record_turn(Turn(at=1_700_000_000 + at, reason="provider failed", **spilled))
    assert CALLS["history"].by(api).json()["trail"]["spill_overs"] == [
        {
            "provider": "p1",
            "bound_provider": "p0",
            "first_at": "2023-11-14T22:13:20Z",
            "last_at": "2023-11-14T22:14:50Z",
            "turns": 2,
            "reason": "provider failed",
        }
    ]


def test_history_is_complete_when_the_session_is_gone(api: APIClient, session_cache: redis.Redis) -> None:
    before = datetime.now(UTC)
    sessions.create("conv-1", "openai", "gpt-4", "user-456")
    CALLS["rebind"].by(api)
    CALLS["delete"].by(api)
    results = CALLS["history"].by(api).json()["results"]
    for event in results:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event["at"])
        assert abs(datetime.fromisoformat(event.pop("at")) - before).total_seconds() < 30
    moved = {"provider": "mistral", "model": "large"}
    nowhere = {"from_provider": None, "from_model": None, "reason": ""}
    assert results == [
        {"kind": "created", "provider": "openai", "model": "gpt-4", **nowhere, "actor": "gateway"},
        {
            "kind": "rebound",
            **moved,
            "from_provider": "openai",
            "from_model": "gpt-4",
            "reason": "openai is being drained",
            "actor": "user",
        },
        {"kind": "deleted", **moved, **nowhere, "actor": "user"},
    ]


def test_history_is_empty_when_nothing_is_known(api: APIClient, session_cache: redis.Redis) -> None:
    response = CALLS["history"].by(api)
    totals = dict.fromkeys(TurnTotals.__struct_fields__, 0)
    assert response.status_code == 200
    assert response.json() == {"results": [], "trail": {"turns": [], "totals": totals, "spill_overs": []}}


@pytest.mark.parametrize(
    "serializer", [SessionSerializer, RebindSerializer, StatsSerializer, EventSerializer, ListQuerySerializer]
)
def test_serializer_explains_every_field_when_asked(serializer: type[Serializer[Any]]) -> None:
    assert all(field.help_text for field in serializer().fields.values())


def test_options_describes_the_route_when_asked(api: APIClient, session_cache: redis.Redis) -> None:
    assert api.options(f"{BASE}id/conv-1/").headers["Allow"] == "GET, DELETE, HEAD, OPTIONS"
    assert api.options(f"{BASE}touch/conv-1/").headers["Allow"] == "POST, OPTIONS"
