"""Recent events in the admin API, and bulk routes with all filters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sessions_sticky import keys, sessions
from tests.sessions_sticky.api.calls import BASE
from tests.sessions_sticky.jobs.calls import quick_ticks  # noqa: F401

if TYPE_CHECKING:
    import redis
    from rest_framework.test import APIClient

pytestmark = pytest.mark.usefixtures("quick_ticks")

EVENTS = f"{BASE}events/"


@pytest.fixture
def moved(session_cache: redis.Redis) -> redis.Redis:
    """Two sessions on a, one of which was moved from b."""
    for name in ("one", "two"):
        sessions.create(name, "b" if name == "one" else "a", "m", "ann")
    one = sessions.get("one")
    assert one is not None
    sessions.acting_as("eve").rebind(one, provider="a", model="m", reason="planned")
    return session_cache


def post(api: APIClient, path: str, **body: Any) -> Any:
    return api.post(f"{BASE}{path}/", body, format="json")


def test_events_are_the_last_ones_oldest_first(api: APIClient, moved: Any) -> None:
    found = api.get(EVENTS).json()
    assert [(each["kind"], each["conversation_id"]) for each in found["results"]] == [
        ("created", "one"),
        ("created", "two"),
        ("rebound", "one"),
    ]
    assert found["last"] == found["results"][-1]["position"]
    assert (found["results"][-1]["sessions"], found["results"][-1]["operation"]) == (1, "")


@pytest.mark.parametrize(
    ("query", "number"),
    [
        ({"kind": "rebound"}, 1),
        ({"provider": "b"}, 2),
        ({"actor": "eve"}, 1),
        ({"actor": "gateway", "provider": "a"}, 1),
        ({"kind": "deleted"}, 0),
        ({"limit": 1}, 1),
    ],
)
def test_events_are_filtered(api: APIClient, moved: Any, query: dict[str, Any], number: int) -> None:
    assert len(api.get(EVENTS, query).json()["results"]) == number


def test_events_go_on_after_a_position(api: APIClient, moved: Any) -> None:
    first = api.get(EVENTS).json()
    assert api.get(EVENTS, {"after": first["results"][0]["position"]}).json()["results"] == first["results"][1:]
    assert api.get(EVENTS, {"after": first["last"]}).json() == {"results": [], "last": first["last"]}


@pytest.mark.parametrize(
    "query", [{"kind": "moved"}, {"after": "x"}, {"limit": 0}, {"limit": 1001}, {"providers": "a"}, {"provider": ""}]
)
def test_events_refuse_an_invalid_query(api: APIClient, moved: Any, query: dict[str, Any]) -> None:
    assert api.get(EVENTS, query).status_code == 400


def test_rebind_moves_sessions_back(api: APIClient, moved: Any) -> None:
    body = {"moved_from": "b", "moved_since": 0, "back": True, "reason": "b is back"}
    assert post(api, "rebind", **body, dry_run=True).json() == {"count": 1}
    operation = post(api, "rebind", **body).json()
    assert (operation["state"], operation["done"], operation["back"], operation["to_provider"]) == (
        "done",
        1,
        True,
        None,
    )
    assert (operation["moved_from"], operation["moved_since"], operation["operation"]) == ("b", 0.0, None)
    assert operation["ended_at"] >= operation["started_at"]
    assert sessions.filter(provider="b").count() == 1
    key = operation["url"].split("/")[-2]
    assert post(api, "rebind", operation=key, back=True, reason="again").json()["done"] == 1
    assert sessions.filter(provider="b").count() == 0


def test_delete_takes_times(api: APIClient, moved: redis.Redis) -> None:
    moved.expire(keys.session("two"), sessions.ttl_seconds - 7_200)
    assert post(api, "delete", idle_for=3_600, created_before=4_000_000_000).json()["done"] == 1
    assert sessions.get("two") is None
    assert sessions.get("one") is not None


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("delete", {"idle_for": -1}, "idle_for"),
        ("delete", {"idle_for": "1h"}, "idle_for"),
        ("delete", {"created_before": 1e18}, "created_before"),
        ("delete", {"moved_from": " "}, "moved_from"),
        ("delete", {"operation": "x"}, "operation"),
        ("delete", {"everything": True, "idle_for": 5}, "everything"),
        ("rebind", {"provider": "a", "reason": "r"}, "to_provider"),
        ("rebind", {"provider": "a", "reason": "r", "back": True}, "back"),
        ("rebind", {"moved_from": "a", "to_provider": "c", "reason": "r", "back": True}, "back"),
        ("rebind", {"moved_from": "a", "to_model": "c", "reason": "r", "back": True}, "back"),
    ],
)
def test_bulk_refuses_invalid_conditions(
    api: APIClient, moved: Any, path: str, body: dict[str, Any], field: str
) -> None:
    answer = post(api, path, **body)
    assert (answer.status_code, field in answer.content.decode()) == (400, True)
    assert sessions.all().count() == 2
