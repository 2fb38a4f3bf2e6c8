"""Experiment 11, outside: whatever two tenants send to the chat API, over the wire and below it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import socket
import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentinel_project.gateway import auth
from sentinel_project.gateway.providers.current import providers
from sentinel_project.gateway.providers.health import Health
from sentinel_project.gateway.routing import process
from sessions_sticky import sessions
from tests.faults.hostile import ANYTHING, NASTY, TEXT, assert_no_foreign_keys, examples
from tests.gateway.asgi import CHAT, KEY, OTHER_KEY, Call, ask
from tests.gateway.conftest import FixedKeys
from tests.gateway.live import LiveGateway
from tests.servers import start_server

if TYPE_CHECKING:
    from pathlib import Path

    import redis
    from pytest_django import Settings

EXAMPLES = 400
SAID = {KEY: "a-secret-of-ann", OTHER_KEY: "a-secret-of-ben"}
ANNS = hashlib.sha256(b"ann").hexdigest()[:32]
"""What the ids of ann's sessions begin with when owners are kept apart; ben may know it."""
IDS = st.sampled_from([*NASTY, "conv-1", f"{ANNS}:conv-1", f"{ANNS}:*", *(f"{ANNS}:{each}" for each in NASTY)]) | TEXT


@pytest.fixture
def runner(session_cache: redis.Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[asyncio.Runner]:
    """One event loop for all examples of a test; the gateway has the echo providers, ann and ben have keys."""
    monkeypatch.setattr(auth, "keys", FixedKeys())
    monkeypatch.setattr(process, "health", Health(settings.SENTINEL_COOLDOWN_SECONDS, providers))
    with asyncio.Runner() as runner:
        yield runner


def chat(key: str, /, **fields: Any) -> bytes:
    body = {"model": "echo-small", "messages": [{"role": "user", "content": SAID[key]}], **fields}
    return json.dumps(body, ensure_ascii=False).encode(errors="surrogatepass")


def assert_own(answer: Call, key: str) -> None:
    """Assert a success or a 4xx that reveals nothing about the other tenant."""
    assert answer.status < 500, answer.body
    other = OTHER_KEY if key == KEY else KEY
    exposed = answer.body + json.dumps(answer.headers).encode()
    assert SAID[other].encode() not in exposed
    if answer.status != 200:
        assert answer.error["message"]
        assert not [name for name in answer.headers if name.startswith("x-session-")]


@pytest.mark.parametrize("scope", ["shared", "owner"])
def test_chat_keeps_tenants_apart_when_ids_are_hostile(
    runner: asyncio.Runner,
    settings: Settings,
    session_cache: redis.Redis,
    scope: str,
    experiment: Callable[..., None],
) -> None:
    settings.SENTINEL_CONVERSATION_SCOPE = scope
    refused, served = 0, 0

    @examples(EXAMPLES)
    @given(st.lists(st.tuples(st.sampled_from([KEY, OTHER_KEY]), IDS), min_size=2, max_size=6))
    def try_out(chats: list[tuple[str, str]]) -> None:
        nonlocal refused, served
        sessions.all().delete()  # not a flush: what the store loses this process binds again
        first: dict[str, str] = {}
        for key, conversation_id in chats:
            answer = runner.run(ask(chat(key, conversation_id=conversation_id), key=key))
            assert_own(answer, key)
            if answer.status == 400:
                continue
            owner = first.setdefault(conversation_id, key)
            assert answer.status == (403 if scope == "shared" and owner != key else 200)
            served, refused = served + (answer.status == 200), refused + (answer.status == 403)
        bound = {json.loads(session_cache.get(key))["id"]: key for key in session_cache.keys("sentinel:session:*")}
        pairs = {(key, each) for key, each in chats if each in first}
        assert len(bound) == len(first if scope == "shared" else pairs)
        assert all(key.decode() == f"sentinel:session:{name}" for name, key in bound.items())
        assert_no_foreign_keys(session_cache)

    try_out()
    assert served > EXAMPLES
    experiment(
        11,
        "Hostile conversations of two tenants",
        setup=f"the chat API, scope `{scope}`, one Valkey",
        fault=f"{EXAMPLES} series of up to 6 chats that use each other's ids, and parts of id syntax",
        figures={"served": f"{served}", "refused as another's": f"{refused}", "answers with another's data": "0"},
    )


@pytest.mark.parametrize("stream", [False, True])
def test_chat_never_fails_when_another_program_writes_hostile_sessions(
    runner: asyncio.Runner, session_cache: redis.Redis, stream: bool
) -> None:
    @examples(EXAMPLES // 4)
    @given(TEXT, TEXT)
    def try_out(provider: str, model: str) -> None:
        value = {"id": "conv-1", "provider": provider, "model": model, "external_id": "ann", "created_at": 1}
        session_cache.set("sentinel:session:conv-1", json.dumps(value), ex=60)
        answer = runner.run(ask(chat(KEY, conversation_id="conv-1", stream=stream)))
        assert answer.status in (200, 503), answer.body  # 503: no provider serves the model
        assert all("\n" not in value and "\r" not in value for value in answer.headers.values())

    try_out()


def test_chat_never_fails_when_any_field_is_arbitrary(runner: asyncio.Runner, session_cache: redis.Redis) -> None:
    @examples(EXAMPLES)
    @given(st.dictionaries(st.text(max_size=10) | st.sampled_from(["model", "messages", "stream", "n"]), ANYTHING))
    def try_out(fields: dict[str, Any]) -> None:
        assert_own(runner.run(ask(chat(KEY, **fields))), KEY)
        assert_no_foreign_keys(session_cache)

    try_out()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    """A gateway of its own, with the limits that `manage.py run` sets."""
    folder: Path = tmp_path_factory.mktemp("gateway")
    with start_server() as store, LiveGateway(folder, REDIS_URL=store.url) as live:
        yield live


def exchange(live: LiveGateway, request: bytes, *, leave: bool = False) -> bytes:
    """Send bytes and return all bytes until the server closes the connection; `leave` half-closes it."""
    host, _, port = live.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as client:
        client.sendall(request)
        if leave:
            client.shutdown(socket.SHUT_WR)
        got = b""
        while piece := client.recv(2**16):
            got += piece
        return got


def request(live: LiveGateway, body: bytes, *headers: bytes) -> bytes:
    start = [b"POST " + CHAT.encode() + b" HTTP/1.1", b"Host: x", b"Connection: close", *headers]
    key = b"Authorization: Bearer " + live.key.encode()
    return b"\r\n".join([*start, key, b"Content-Length: %d" % len(body), b"", body])


BODY = json.dumps({"model": "echo-small", "messages": [{"role": "user", "content": "hello"}]}).encode()
HOSTILE_HEADERS = {
    "line break in a value": [b"X-Session-Id: a\nX-Session-Outcome: evil"],
    "carriage return in a value": [b"X-Session-Id: a\rX-Session-Outcome: evil"],
    "NUL": [b"X-Session-Id: a\x00b"],
    "folded": [b"X-Session-Id: a", b" b"],
    "repeated 60 times": [b"X-Session-Id: %d" % number for number in range(60)],
    "long": [b"X-Session-Id: " + 60_000 * b"x"],
    "not UTF-8": [b"X-Session-Id: \xff\xfe"],
    "space in a name": [b"X Session-Id: a"],
    "no name": [b": a"],
    "two lengths": [b"Content-Length: 1"],
    "length and chunks": [b"Transfer-Encoding: chunked"],
    "negative length": [b"Content-Length: -1"],
    "request id with markup": [b"X-Request-Id: <script>\tx"],
    "WebSocket": [b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: x"],
    "HTTP/2": [b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: x"],
    "HTTP/2, not named by Connection": [b"Upgrade: h2c", b"HTTP2-Settings: x"],
    "TLS": [b"Connection: Upgrade", b"Upgrade: TLS/1.2, h2c"],
    "override": [b"X-HTTP-Method-Override: DELETE", b"X-Original-URL: /admin/", b"X-Forwarded-Host: evil"],
}


@pytest.mark.parametrize("name", HOSTILE_HEADERS)
def test_server_answers_once_and_never_500_when_headers_are_hostile(server: LiveGateway, name: str) -> None:
    answer = exchange(server, request(server, BODY, *HOSTILE_HEADERS[name]))
    assert answer.startswith((b"HTTP/1.1 200", b"HTTP/1.1 4"))
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"evil" not in answer
    assert b"<script>" not in answer


def test_server_survives_arbitrary_bytes_without_500(server: LiveGateway) -> None:
    statuses = set()
    pieces = st.sampled_from(
        [request(server, BODY), b"\r\n", b"GET / HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n", b"\x16\x03\x01"]
    )

    @examples(EXAMPLES // 4)
    @given(st.lists(st.binary(max_size=60) | pieces, max_size=4), st.binary(max_size=100))
    def try_out(raw: list[bytes], body: bytes) -> None:
        for answer in (
            exchange(server, b"".join(raw), leave=True),
            exchange(server, request(server, body)),
        ):
            assert not re.search(rb"HTTP/1\.1 50[0234]", answer)  # 501 and 505 refuse codings and versions
            statuses.add(answer[9:12])

    try_out()
    assert b"400" in statuses
    own = str(uuid.uuid4())
    assert b"200 OK" in exchange(server, request(server, BODY, b"X-Session-Id: " + own.encode()))
    assert "Traceback" not in server.log.read_text()
