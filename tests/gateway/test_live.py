"""What only a real server over real connections shows."""

from __future__ import annotations

import shutil
import sqlite3
import uuid
from collections.abc import Iterator

import httpx
import pytest

from tests.gateway.asgi import chat
from tests.gateway.live import LiveGateway, provider_entry
from tests.gateway.upstreams import Upstream, breaks_off, fails, stalls, streams_and_stalls
from tests.waiting import SECONDS, stopwatch

CHAT = "/v1/chat/completions"
CONTENT = b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n'


@pytest.fixture
def client(live: LiveGateway) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=live.url, headers={"Authorization": f"Bearer {live.key}"}) as client:
        yield client


def test_body_over_the_limit_is_refused_when_its_length_is_declared(client: httpx.Client, north: Upstream):
    answer = client.post(CHAT, json=chat("only-north", x=1_000_000 * "x"))
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "request_too_large"
    assert client.post(CHAT, json=chat("only-north")).status_code == 200  # the connection is still good
    assert len(north.exchanges) == 1


def test_body_over_the_limit_is_refused_when_it_comes_in_chunks(client: httpx.Client):
    answer = client.post(CHAT, content=(10_000 * b" " for _ in range(50)))
    assert answer.status_code == 413
    assert answer.json()["error"]["message"] == "The request is larger than 100000 bytes"


def test_body_at_the_limit_is_served_when_it_comes_in_chunks(client: httpx.Client):
    body = httpx.Request("POST", "http://x", json=chat("only-north", x=90_000 * "x")).content
    assert client.post(CHAT, content=(body[at : at + 999] for at in range(0, len(body), 999))).status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize("stream", [False, True])
def test_upstream_request_ends_within_a_second_when_the_client_leaves(client, live, north: Upstream, stream):
    north.then(streams_and_stalls if stream else stalls)
    with httpx.Client(headers=client.headers, timeout=0.3) as leaver, pytest.raises(httpx.ReadTimeout):
        leaver.post(f"{live.url}{CHAT}", json=chat("only-north", stream=stream))
    took = stopwatch()
    assert north.exchanges[0].ended.wait(5)
    assert took() < 1
    assert north.exchanges[0].left_early
    assert client.get("/healthz").status_code == 200


def test_header_with_an_underscore_names_the_conversation_when_sent_over_the_wire(client: httpx.Client):
    conversation_id = str(uuid.uuid4())
    outcomes = [
        client.post(CHAT, json=chat(), headers={"session_id": conversation_id}).headers["x-session-outcome"]
        for _ in range(2)
    ]
    assert outcomes == ["created", "hit"]


@pytest.mark.slow
def test_key_works_at_once_when_it_was_made_while_the_server_runs(live: LiveGateway):
    headers = {"Authorization": f"Bearer {live.create_key('cem')}"}
    assert httpx.post(f"{live.url}{CHAT}", json=chat(), headers=headers).status_code == 200


def test_chats_continue_when_the_database_is_down(live: LiveGateway, client: httpx.Client):
    client.post(CHAT, json=chat()).raise_for_status()  # the key is known
    file, aside = live.folder / "db.sqlite3", live.folder / "aside"
    file.rename(aside)
    file.mkdir()  # a folder cannot be opened as a database
    try:
        assert client.post(CHAT, json=chat()).status_code == 200
        unknown = client.post(CHAT, json=chat(), headers={"Authorization": "Bearer sk-new"})
        assert (unknown.status_code, unknown.headers["retry-after"]) == (503, "1")
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["database"], ready.json()["store"]) == (503, "unavailable", "ok")
        assert client.get("/healthz").status_code == 200
    finally:
        shutil.rmtree(file)
        aside.rename(file)
    assert client.get("/readyz").status_code == 200


def test_key_is_nowhere_to_be_read_when_it_was_used(live: LiveGateway, client: httpx.Client):
    client.post(CHAT, json=chat(conversation_id=str(uuid.uuid4()))).raise_for_status()
    client.post(CHAT, json=chat("gpt-0"))
    written = [path for path in live.folder.rglob("*") if path.is_file()]
    assert live.folder / "db.sqlite3" in written
    assert live.log in written
    secret = live.key.removeprefix("sk-sentinel-")
    assert len(secret) >= 43  # 256 bits
    for path in written:
        assert secret.encode() not in path.read_bytes(), path
    with sqlite3.connect(live.folder / "db.sqlite3") as database:
        dump = "\n".join(database.iterdump())
    database.close()
    assert secret not in dump
    assert "'ann'" in dump


def test_log_reports_no_trouble_when_nothing_failed(live: LiveGateway, client: httpx.Client):
    client.post(CHAT, json=chat(conversation_id=str(uuid.uuid4()))).raise_for_status()
    log = live.log.read_text()
    assert "Traceback" not in log
    assert "Warning" not in log


@pytest.mark.parametrize("upstream", [fails(503), breaks_off(CONTENT)])
def test_warnings_have_the_id_of_their_request(live: LiveGateway, client: httpx.Client, north: Upstream, upstream):
    """Plain, and in a stream that has begun."""
    north.then(upstream)
    request_id = f"live-{uuid.uuid4()}"
    client.post(CHAT, json=chat(model="only-north", stream=True), headers={"X-Request-Id": request_id})
    lines = live.log.read_text().splitlines()
    (warning,) = [line for line in lines if line.endswith(f" [request {request_id}]")]
    assert "WARNING sentinel_project.gateway" in warning
    assert "'north'" in warning


@pytest.mark.slow
def test_stopping_is_quick_when_a_stream_runs(tmp_path, valkey_url, north: Upstream):
    file = tmp_path / "providers.toml"
    file.write_text(provider_entry("north", north.url, ["model-a"]))
    north.then(streams_and_stalls)
    variables = {"REDIS_URL": valkey_url, "SENTINEL_PROVIDERS": str(file)}
    with (
        LiveGateway(tmp_path, **variables) as live,
        httpx.stream(
            "POST", f"{live.url}{CHAT}", json=chat(stream=True), headers={"Authorization": f"Bearer {live.key}"}
        ) as answer,
    ):
        next(answer.iter_raw())
        live.process.terminate()
        assert live.process.wait(5) is not None
    assert north.exchanges[0].ended.wait(SECONDS)
