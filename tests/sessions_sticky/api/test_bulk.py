from __future__ import annotations

import threading
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.admin.models import CHANGE, DELETION, LogEntry

from sessions_sticky import sessions
from sessions_sticky.api import bulk
from sessions_sticky.queries.index_reader import BATCH_SIZE
from tests.sessions_sticky.api.calls import BASE, HEX, path_of
from tests.sessions_sticky.jobs.calls import (
    SECONDS,
    abandoned,
    fill,
    gate,
    no_threads,
    quick_ticks,  # noqa: F401
    threads,
)
from tests.waiting import wait_until

if TYPE_CHECKING:
    import redis
    from rest_framework.test import APIClient

pytestmark = pytest.mark.usefixtures("quick_ticks")

MOVE_ALL = {"provider": "openai", "to_provider": "mistral", "reason": "maintenance"}
OPERATIONS = f"{BASE}operations/"


def post(api: APIClient, path: str, body: Any = None) -> Any:
    return api.post(f"{BASE}{path}", body, format="json")


def entries() -> list[tuple[str, int, bool, str]]:
    """Who changed what; whether the entry leads to the operation that its message names."""
    found = LogEntry.objects.order_by("pk").values_list("user__username", "action_flag", "object_id", "change_message")
    parts = [(who, flag, id, *message.removesuffix(")").split(" (operation ")) for who, flag, id, message in found]
    return [(who, flag, id == key, message) for who, flag, id, message, key in parts]


@pytest.mark.parametrize(
    ("path", "body", "count"),
    [
        ("delete/", {"provider": "openai"}, 4),
        ("delete/", {"everything": True}, 7),
        ("delete/", {"model": "gpt-4", "provider": "anthropic"}, 3),
        ("delete/", {"owner": "missing"}, 0),
        ("rebind/", MOVE_ALL, 4),
        ("rebind/", {"everything": True, "to_provider": "openai", "reason": "r"}, 3),
        ("rebind/", {"everything": True, "to_provider": "openai", "to_model": "gpt-5", "reason": "r"}, 7),
    ],
)
def test_dry_run_counts_and_changes_nothing(
    api: APIClient, session_cache: redis.Redis, path: str, body: dict[str, Any], count: int
) -> None:
    fill(4)
    fill(3, "other", provider="anthropic")
    before = {key: session_cache.get(key) for key in session_cache.keys("sentinel:session:*")}
    response = post(api, path, body | {"dry_run": True})
    assert (response.status_code, response.json()) == (200, {"count": count})
    assert before == {key: session_cache.get(key) for key in session_cache.keys("sentinel:session:*")}
    assert not session_cache.keys("sentinel:job*")
    assert (threads(), entries()) == ([], [])
    assert post(api, path, body | {"dry_run": False}).json()["done"] == count


def test_delete_answers_200_with_the_operation_when_it_is_done_in_time(
    api: APIClient, session_cache: redis.Redis
) -> None:
    fill(4)
    fill(3, "other", provider="anthropic")
    response = post(api, "delete/", {"provider": "openai", "model": None, "owner": "user-456"})
    assert response.status_code == 200
    operation = dict(response.json())
    assert 0 <= operation["ended_at"] - operation.pop("started_at") <= 2
    assert operation.pop("started_at_iso") <= operation["ended_at_iso"]
    assert datetime.fromisoformat(operation.pop("ended_at_iso")).timestamp() == operation["ended_at"]
    assert operation.pop("updated_at_iso") == response.json()["ended_at_iso"]
    assert operation.pop("ended_at") == operation.pop("updated_at")
    assert operation.pop("external_id") == operation["owner"]
    url = operation["url"]
    assert session_cache.exists(f"sentinel:job:{{index}}:{url.removeprefix(OPERATIONS).removesuffix('/')}")
    assert operation == {
        **{"url": url, "kind": "delete", "state": "done", "done": 4, "expected": 4},
        **{"provider": "openai", "model": None, "owner": "user-456", "everything": False},
        **{"to_provider": None, "to_model": None, "reason": "", "actor": "user", "detail": ""},
        **dict.fromkeys(("idle_for", "created_before", "moved_from", "moved_since", "operation")),
        "back": False,
    }
    assert api.get(url).json() == response.json()
    assert len(session_cache.keys("sentinel:session:*")) == 3
    assert sessions.history("conv-0")[-1].actor == "user"
    assert entries() == [
        ("user", DELETION, True, "Started, 4 sessions expected: delete sessions of provider 'openai', owner 'user-456'")
    ]


def test_rebind_answers_200_with_the_operation_when_it_is_done_in_time(
    api: APIClient, session_cache: redis.Redis
) -> None:
    fill(4)
    operation = post(api, "rebind/", MOVE_ALL | {"to_model": "large"}).json()
    assert [operation[name] for name in ("kind", "state", "done", "to_provider", "to_model", "reason")] == [
        *("rebind", "done", 4, "mistral", "large", "maintenance"),
    ]
    (session, event) = sessions.get("conv-1"), sessions.history("conv-1")[-1]
    assert session is not None
    assert (session.provider, session.model) == ("mistral", "large")
    assert (event.kind, event.actor, event.reason) == ("rebound", "user", "maintenance")
    message = (
        "Started, 4 sessions expected: move sessions of provider 'openai' to 'mistral', model 'large': maintenance"
    )
    assert entries() == [("user", CHANGE, True, message)]


@pytest.mark.slow
def test_delete_answers_202_with_its_place_when_it_takes_longer(
    api: APIClient, session_cache: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "WAIT_SECONDS", 0.1)
    fill(BATCH_SIZE + 1)
    with gate(1) as held:
        response = post(api, "delete/", {"everything": True})
        assert (response.status_code, response.json()["state"]) == (202, "running")
        url = response.headers["Location"]
        assert url == response.json()["url"]
        held.reached.wait(SECONDS)
        shown = api.get(url).json()
        assert (shown["state"], shown["done"]) == ("running", BATCH_SIZE)
        assert entries() == [
            ("user", DELETION, True, f"Started, {BATCH_SIZE + 1} sessions expected: delete all sessions")
        ]
    shown = wait_until(lambda: (shown := api.get(url).json())["state"] != "running" and shown)
    assert (shown["state"], shown["done"], shown["expected"]) == ("done", BATCH_SIZE + 1, BATCH_SIZE + 1)


@pytest.mark.slow
def test_delete_waits_a_second_at_most(api: APIClient, session_cache: redis.Redis) -> None:
    fill(1)
    with gate(1) as held:
        threading.Timer(0.3, held.open.set).start()
        assert post(api, "delete/", {"everything": True}).status_code == 200
    assert bulk.WAIT_SECONDS == 1


@pytest.mark.slow
def test_operation_is_stopped_and_resumed(
    api: APIClient, session_cache: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "WAIT_SECONDS", 0)
    number = 2 * BATCH_SIZE
    fill(number)
    with gate(1) as held:
        url = post(api, "rebind/", MOVE_ALL).headers["Location"]
        held.reached.wait(SECONDS)
        threading.Timer(0.1, held.open.set).start()
        stopped = api.post(f"{url}stop/")
        assert stopped.status_code == 200
        assert (stopped.json()["state"], stopped.json()["done"]) == ("stopped", BATCH_SIZE)
    assert api.post(f"{url}stop/").json() == stopped.json() == api.get(url).json()
    assert sessions.filter(provider="openai").count() == BATCH_SIZE
    resumed = api.post(f"{url}resume/")
    assert resumed.status_code == 202
    assert (resumed.json()["state"], resumed.headers["Location"]) == ("running", url)
    shown = wait_until(lambda: (shown := api.get(url).json())["state"] != "running" and shown)
    assert (shown["state"], shown["done"], shown["expected"]) == ("done", number, number)
    again = api.post(f"{url}resume/")
    assert (again.status_code, again.json()) == (200, shown)
    what = "move sessions of provider 'openai' to 'mistral': maintenance"
    assert entries() == [
        ("user", CHANGE, True, f"Started, {number} sessions expected: {what}"),
        ("user", CHANGE, True, f"Stopped, {BATCH_SIZE} of {number} sessions done: {what}"),
        ("user", CHANGE, True, f"Resumed, {BATCH_SIZE} of {number} sessions done: {what}"),
    ]


def test_resume_restarts_an_orphaned_operation_but_get_and_stop_do_not(
    api: APIClient, session_cache: redis.Redis
) -> None:
    fill(3)
    key = abandoned()
    assert api.get(f"{OPERATIONS}{key}/").json()["state"] == "running"
    assert api.get(OPERATIONS).status_code == 200
    assert api.post(f"{OPERATIONS}{key}/resume/").json()["done"] == 3
    fill(3)
    session_cache.delete(f"sentinel:job:{{index}}:{key}")
    abandoned()
    assert api.post(f"{OPERATIONS}{key}/stop/").json()["state"] == "stopped"
    assert no_threads()
    assert sessions.all().count() == 3


def test_operations_are_listed_with_the_last_begun_first(api: APIClient, session_cache: redis.Redis) -> None:
    assert api.get(OPERATIONS).json() == {"results": []}
    done = [post(api, "delete/", {"provider": name}).json() for name in ("a", "b")]
    listed = api.get(OPERATIONS)
    assert listed.status_code == 200
    assert sorted(listed.json()["results"], key=lambda operation: operation["provider"]) == done


@pytest.mark.parametrize(
    "method_and_path",
    [("GET", ""), ("POST", "stop/"), ("POST", "resume/")],
    ids="".join,
)
def test_call_answers_404_when_there_is_no_such_operation(
    api: APIClient, session_cache: redis.Redis, method_and_path: tuple[str, str]
) -> None:
    method, path = method_and_path
    response = api.generic(method, f"{OPERATIONS}{HEX}/{path}")
    assert response.status_code == 404
    assert response.json()["detail"] == f"No operation {HEX}. Operations are kept for a day."


@pytest.mark.parametrize(
    "id",
    [
        *("delete", "rebind", "operations", f"operations/{HEX}", f"operations/{HEX[1:]}", f"operations/{HEX}0"),
        *(f"operations/{HEX.upper()}", f"operations/{HEX}/stop", f"operations/{HEX}/resume"),
    ],
)
def test_session_is_reached_when_its_id_is_a_bulk_path(api: APIClient, session_cache: redis.Redis, id: str) -> None:
    proposal = {"id": id, "provider": "p", "model": "m", "owner": "o"}
    url = post(api, "", proposal).json()["url"]
    assert api.get(url).json()["id"] == id
    assert api.post(path_of("touch", url)).json()["id"] == id
    move = {"provider": "q", "model": "m", "reason": "r"}
    assert api.post(path_of("rebind", url), move, format="json").json()["id"] == id
    assert [event["kind"] for event in api.get(path_of("history", url)).json()["results"]] == ["created", "rebound"]
    assert api.delete(url).status_code == 204
    assert not session_cache.exists(f"sentinel:session:{id}")
    assert not session_cache.keys("sentinel:job*")


@pytest.mark.parametrize("name", ["*?[]\\", "😀" * 256, "<script>'\"", "a/../b", "%00", "\u202eevil", "{index}"])
def test_operation_accepts_hostile_names_unchanged(api: APIClient, session_cache: redis.Redis, name: str) -> None:
    fill(2, provider=name, model=name, owner=name)
    fill(2, "other")
    filters = {"provider": name, "model": name, "owner": name}
    body = filters | {"to_provider": name, "to_model": "to", "reason": name}
    operation = post(api, "rebind/", body).json()
    assert operation | body == operation
    assert (operation["state"], operation["done"]) == ("done", 2)
    assert sessions.filter(provider=name, model="to").count() == 2
    assert api.get(OPERATIONS).json()["results"] == [operation]
