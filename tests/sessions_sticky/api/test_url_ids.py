from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import aiohttp
import pytest
import uvicorn
from django.core.asgi import get_asgi_application
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sessions_sticky.api.url_ids import id_in, session_path
from tests.servers import free_port
from tests.sessions_sticky.api.calls import BASE, HEX, HOSTILE_IDS, MOVE, body_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis
    from django.test import Client
    from rest_framework.test import APIClient


PARTS = ["~", "/", ".", "..", "a", "%", "stats", "history", "operations", HEX, "touch", "rebind", "delete", "stop"]
hostile = st.lists(st.sampled_from(PARTS), min_size=1, max_size=8).map("".join)


@given(hostile | st.text(min_size=1))
def test_session_path_leads_back_to_the_id_when_any(conversation_id: str) -> None:
    if any("\ud800" <= char <= "\udfff" for char in conversation_id):
        return
    path = session_path(conversation_id, BASE)
    segment = path.removeprefix(BASE).removesuffix("/")
    assert path == f"{BASE}{segment}/"
    assert "/" not in segment
    assert segment not in (".", "..")
    assert id_in(unquote(segment)) == conversation_id


@pytest.mark.parametrize(
    ("conversation_id", "segment"),
    [
        ("conv-123", "conv-123"),
        ("a/b", "a%2Fb"),
        (".", "~."),
        ("..", "~.."),
        ("~.", "~~."),
        ("~~..", "~~~.."),
        ("...", "..."),
        ("~", "~"),
        ("~a", "~a"),
        ("ä b", "%C3%A4%20b"),
        ("stats", "~stats"),
        ("~stats", "~~stats"),
        ("stats/", "stats%2F"),
        ("a/..", "a%2F~.."),
        ("a/history", "a%2F~history"),
        ("a/~history", "a%2F~~history"),
        ("history/a", "history%2Fa"),
        ("operations", "~operations"),
        (f"operations/{HEX}", f"operations%2F~{HEX}"),
        (f"operations/~{HEX}", f"operations%2F~~{HEX}"),
        (f"a/operations/{HEX}", f"a%2Foperations%2F{HEX}"),
        (f"operations/{HEX[1:]}", f"operations%2F{HEX[1:]}"),
        (HEX, HEX),
        ("history2", "history2"),
    ],
)
def test_session_path_escapes_as_documented_when_hostile(conversation_id: str, segment: str) -> None:
    assert session_path(conversation_id, BASE) == f"{BASE}{segment}/"


def test_id_in_takes_dots_as_they_are_when_a_client_sends_them() -> None:
    assert (id_in("."), id_in("..")) == (".", "..")


@pytest.mark.parametrize("conversation_id", HOSTILE_IDS, ids=ascii)
@pytest.mark.slow
def test_api_reaches_the_session_when_its_id_is_hostile(
    api: APIClient, session_cache: redis.Redis, conversation_id: str
) -> None:
    proposal = {"id": conversation_id, "provider": "openai", "model": "gpt-4", "external_id": "user-456"}
    created = api.post(BASE, proposal, format="json")
    assert (created.status_code, created.json()["id"]) == (201, conversation_id)
    assert created.headers["Location"] == created.json()["url"]
    (key,) = session_cache.keys("sentinel:session:*")
    assert key == f"sentinel:session:{conversation_id}".encode()
    url = created.json()["url"]

    assert api.get(url).json()["id"] == conversation_id
    session_cache.pexpire(key, 5000)
    assert api.post(f"{url}touch/").json()["id"] == conversation_id
    assert session_cache.pttl(key) > 5000
    moved = api.post(f"{url}rebind/", MOVE, format="json").json()
    assert (moved["id"], moved["provider"]) == (conversation_id, "mistral")
    assert api.delete(url).status_code == 204
    assert not session_cache.exists(key)
    kinds = [event["kind"] for event in api.get(f"{url}history/").json()["results"]]
    assert kinds == ["created", "rebound", "deleted"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(conversation_id=hostile.filter(lambda text: len(text) <= 256))
@pytest.mark.slow
def test_api_reaches_the_session_and_its_history_when_the_id_looks_like_a_path(
    client: Client, session_cache: redis.Redis, no_login: None, no_throttle: None, conversation_id: str
) -> None:
    session_cache.flushdb()
    body = {"id": conversation_id, "provider": "openai", "model": "gpt-4", "external_id": "user-456"}
    url = client.post(BASE, body, content_type="application/json").json()["url"]
    assert client.get(url).json()["id"] == conversation_id
    assert client.post(f"{url}touch/").json()["id"] == conversation_id
    assert client.post(f"{url}rebind/", MOVE, content_type="application/json").json()["id"] == conversation_id
    assert client.delete(url).status_code == 204
    assert not session_cache.exists(f"sentinel:session:{conversation_id}")
    results = client.get(f"{url}history/").json()["results"]
    assert [event["kind"] for event in results] == ["created", "rebound", "deleted"]


@pytest.fixture
def no_throttle(settings: Any) -> None:
    settings.SESSIONS_STICKY = {"API_THROTTLE_RATE": None}


@pytest.fixture
def live(session_cache: redis.Redis, no_login: None, no_throttle: None) -> Iterator[str]:
    """The address of an ASGI server in a thread."""
    config = uvicorn.Config(get_asgi_application(), port=free_port(), log_level="critical", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    yield f"http://127.0.0.1:{config.port}"
    server.should_exit = True
    thread.join()


@pytest.mark.slow
async def test_api_reaches_every_session_when_called_over_http(live: str, session_cache: redis.Redis) -> None:
    async with aiohttp.ClientSession(live) as client:

        async def call(method: str, url: str, status: int, body: Any = None) -> Any:
            async with client.request(method, url, json=body, allow_redirects=False) as response:
                assert response.status == status, (method, url, await response.text())
                return await response.json() if status != 204 else None

        for conversation_id in HOSTILE_IDS:
            proposal = {"id": conversation_id, "provider": "openai", "model": "gpt-4", "external_id": "user-456"}
            await call("POST", BASE, 201, proposal)
            assert session_cache.exists(f"sentinel:session:{conversation_id}")
        for conversation_id in HOSTILE_IDS:
            url = session_path(conversation_id, BASE)
            assert (await call("GET", url, 200))["id"] == conversation_id
            assert (await call("POST", f"{url}touch/", 200))["id"] == conversation_id
            assert (await call("POST", f"{url}rebind/", 200, MOVE))["id"] == conversation_id
            await call("DELETE", url, 204)
            assert len((await call("GET", f"{url}history/", 200))["results"]) == 3
            assert not session_cache.exists(f"sentinel:session:{conversation_id}")


def test_get_reads_the_session_whose_id_ends_in_touch_when_there_is_one(
    api: APIClient, bound: bytes, session_cache: redis.Redis
) -> None:
    api.generic("POST", BASE, *body_of({"id": "conv-1/touch", "provider": "p", "model": "m", "external_id": "o"}))
    session_cache.pexpire("sentinel:session:conv-1/touch", 5000)
    assert api.get(f"{BASE}conv-1/touch/").json()["id"] == "conv-1/touch"
    assert api.post(f"{BASE}conv-1/touch/").json()["id"] == "conv-1"
    assert session_cache.pttl("sentinel:session:conv-1/touch") <= 5000
    assert api.delete(f"{BASE}conv-1/touch/").status_code == 204
    assert session_cache.exists("sentinel:session:conv-1")


@pytest.mark.parametrize(
    ("segment", "message"),
    [
        ("", "A conversation id has 1 to 256 characters, not 0"),
        ("x" * 257, "A conversation id has 1 to 256 characters, not 257"),
        ("a%00b", "A conversation id must not contain U+0000 (at position 1)"),
        ("a%0Ab", "A conversation id must not contain U+000A (at position 1)"),
        ("%C2%85", "A conversation id must not contain U+0085 (at position 0)"),
    ],
    ids=ascii,
)
@pytest.mark.parametrize(
    ("method", "suffix", "body"),
    [("GET", "", None), ("DELETE", "", None), ("POST", "touch/", None), ("POST", "rebind/", MOVE)],
)
def test_every_call_answers_400_when_the_path_has_no_valid_id(
    api: APIClient, session_cache: redis.Redis, segment: str, message: str, method: str, suffix: str, body: Any
) -> None:
    response = api.generic(method, f"{BASE}{segment}/{suffix}", *body_of(body))
    assert response.status_code == 400
    assert response.json()["errors"].keys() == {"id"}
    assert response.json()["errors"]["id"][0].startswith(message)


@pytest.mark.parametrize("path", ["conv-1", "a%2F..%2Fconv-1", "conv-1/touch"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_every_call_answers_404_and_redirects_nowhere_when_the_slash_is_missing(
    api: APIClient, bound: bytes, session_cache: redis.Redis, method: str, path: str
) -> None:
    response = api.generic(method, f"{BASE}{path}")
    assert response.status_code == 404
    assert response.json()["detail"] == "The path of a session ends with a slash."
    assert session_cache.get("sentinel:session:conv-1") == bound
