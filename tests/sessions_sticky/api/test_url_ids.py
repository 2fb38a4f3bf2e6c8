from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import aiohttp
import pytest
import uvicorn
from django.core.asgi import get_asgi_application
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sessions_sticky.api.url_ids import id_in, session_path
from tests.servers import free_port
from tests.sessions_sticky.api.calls import BASE, HEX, HOSTILE_IDS, MOVE, body_of, path_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis
    from django.test import Client
    from rest_framework.test import APIClient


PARTS = ["~", "/", ".", "..", "a", "%", "stats", "history", "operations", HEX, "touch", "rebind", "delete", "stop"]
hostile = st.lists(st.sampled_from(PARTS), min_size=1, max_size=8).map("".join)


@pytest.mark.slow
@given(hostile | st.text(min_size=1))
def test_session_path_leads_back_to_the_id_when_any(conversation_id: str) -> None:
    if any("\ud800" <= char <= "\udfff" for char in conversation_id):
        return
    path = session_path(conversation_id, BASE)
    segment = path.removeprefix(f"{BASE}id/").removesuffix("/")
    assert path == f"{BASE}id/{segment}/"
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
        ("stats", "stats"),
        ("~stats", "~stats"),
        ("a/..", "a%2F~.."),
        ("a/~..", "a%2F~~.."),
        ("a/history", "a%2Fhistory"),
        (f"operations/{HEX}", f"operations%2F{HEX}"),
    ],
)
def test_session_path_escapes_as_documented_when_hostile(conversation_id: str, segment: str) -> None:
    assert session_path(conversation_id, BASE) == f"{BASE}id/{segment}/"


def test_id_in_takes_dots_as_they_are_when_a_client_sends_them() -> None:
    assert (id_in("."), id_in("..")) == (".", "..")


@pytest.mark.parametrize("conversation_id", HOSTILE_IDS, ids=ascii)
@pytest.mark.slow
def test_api_reaches_the_session_when_its_id_is_hostile(
    api: APIClient, session_cache: redis.Redis, conversation_id: str
) -> None:
    proposal = {"id": conversation_id, "provider": "openai", "model": "gpt-4", "owner": "user-456"}
    created = api.post(BASE, proposal, format="json")
    assert (created.status_code, created.json()["id"]) == (201, conversation_id)
    assert created.headers["Location"] == created.json()["url"]
    (key,) = session_cache.keys("sentinel:session:*")
    assert key == f"sentinel:session:{conversation_id}".encode()
    url = created.json()["url"]

    assert api.get(url).json()["id"] == conversation_id
    session_cache.pexpire(key, 5000)
    assert api.post(path_of("touch", url)).json()["id"] == conversation_id
    assert session_cache.pttl(key) > 5000
    moved = api.post(path_of("rebind", url), MOVE, format="json").json()
    assert (moved["id"], moved["provider"]) == (conversation_id, "mistral")
    assert api.delete(url).status_code == 204
    assert not session_cache.exists(key)
    kinds = [event["kind"] for event in api.get(path_of("history", url)).json()["results"]]
    assert kinds == ["created", "rebound", "deleted"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(conversation_id=hostile.filter(lambda text: len(text) <= 256))
@pytest.mark.slow
def test_api_reaches_the_session_and_its_history_when_the_id_looks_like_a_path(
    client: Client, session_cache: redis.Redis, no_login: None, no_throttle: None, conversation_id: str
) -> None:
    session_cache.flushdb()
    body = {"id": conversation_id, "provider": "openai", "model": "gpt-4", "owner": "user-456"}
    url = client.post(BASE, body, content_type="application/json").json()["url"]
    assert client.get(url).json()["id"] == conversation_id
    assert client.post(path_of("touch", url)).json()["id"] == conversation_id
    assert client.post(path_of("rebind", url), MOVE, content_type="application/json").json()["id"] == conversation_id
    assert client.delete(url).status_code == 204
    assert not session_cache.exists(f"sentinel:session:{conversation_id}")
    results = client.get(path_of("history", url)).json()["results"]
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
            proposal = {"id": conversation_id, "provider": "openai", "model": "gpt-4", "owner": "user-456"}
            await call("POST", BASE, 201, proposal)
            assert session_cache.exists(f"sentinel:session:{conversation_id}")
        for conversation_id in HOSTILE_IDS:
            url = session_path(conversation_id, BASE)
            assert (await call("GET", url, 200))["id"] == conversation_id
            assert (await call("POST", path_of("touch", url), 200))["id"] == conversation_id
            assert (await call("POST", path_of("rebind", url), 200, MOVE))["id"] == conversation_id
            await call("DELETE", url, 204)
            assert len((await call("GET", path_of("history", url), 200))["results"]) == 3
            assert not session_cache.exists(f"sentinel:session:{conversation_id}")


@pytest.mark.parametrize("word", ["stats", "delete", "rebind", "operations", "id", "id/a", "history", "touch"])
def test_route_and_session_of_the_same_name_do_not_meet(api: APIClient, session_cache: redis.Redis, word: str) -> None:
    api.post(BASE, {"id": word, "provider": "p", "model": "m", "owner": "o"}, format="json")
    url = f"{BASE}id/{quote(word, safe='')}/"
    assert api.get(url).json()["id"] == word
    assert api.delete(f"{BASE}{word}/").status_code in (404, 405)
    assert api.delete(url).status_code == 204


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
    ("method", "action", "body"),
    [("GET", "id", None), ("DELETE", "id", None), ("POST", "touch", None), ("POST", "rebind", MOVE)],
)
def test_every_call_answers_400_when_the_path_has_no_valid_id(
    api: APIClient, session_cache: redis.Redis, segment: str, message: str, method: str, action: str, body: Any
) -> None:
    response = api.generic(method, f"{BASE}{action}/{segment}/", *body_of(body))
    assert response.status_code == 400
    assert response.json()["errors"].keys() == {"id"}
    assert response.json()["errors"]["id"][0].startswith(message)


@pytest.mark.parametrize("path", ["id/conv-1", "id/a%2F..%2Fconv-1", "touch/conv-1", "conv-1", "conv-1/touch"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_every_call_answers_404_and_redirects_nowhere_when_the_path_is_unknown(
    api: APIClient, bound: bytes, session_cache: redis.Redis, method: str, path: str
) -> None:
    response = api.generic(method, f"{BASE}{path}")
    assert response.status_code == 404
    assert response.json()["detail"] == "Unknown path. The path of a session is id/{id}/, with a slash at the end."
    assert session_cache.get("sentinel:session:conv-1") == bound
