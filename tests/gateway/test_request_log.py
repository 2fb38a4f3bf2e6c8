"""One line of JSON for each chat; and what no line of any logger ever says."""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

import aiohttp
import pytest

from sentinel_project.gateway.auth import key_hint
from sentinel_project.gateway.request_log import RequestLog, Writer
from tests.gateway.asgi import CHAT, chat
from tests.gateway.live import environment, manage
from tests.gateway.upstream_process import UpstreamProcess
from tests.gateway.workers import Worker, Workers, providers_file
from tests.servers import Server, start_server
from tests.waiting import until, wait_until

pytestmark = pytest.mark.slow

OWNER, MESSAGE, UPSTREAM_KEY = "owner-b1946ac9", "message-2f91c1d3", "sk-upstream-7ab04c55"
COMMON = {"at", "request_id", "status", "latency_ms"}
OF_A_CHAT = COMMON | {"key", "conversation_id", "source", "model", "stream", "outcome", "provider", "bound_provider"}


class Ground(NamedTuple):
    """One worker with every logger at DEBUG, and a key of an owner to look for."""

    worker: Worker
    key: str
    store: Server
    upstreams: UpstreamProcess


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    folder = tmp_path_factory.mktemp("workers")
    with UpstreamProcess("north", "south") as upstreams, start_server() as store:
        variables = {
            "DJANGO_SETTINGS_MODULE": "tests.gateway.loud_settings",
            "UVICORN_LOG_LEVEL": "debug",
            "REDIS_URL": store.url,
            "SENTINEL_PROVIDERS": providers_file(folder, upstreams.urls, key_env="UPSTREAM_KEY"),
            "UPSTREAM_KEY": UPSTREAM_KEY,
            "SENTINEL_COOLDOWN_SECONDS": "0",
            "SENTINEL_MAX_BODY_BYTES": "100000",
        }
        with Workers(folder, 1, **variables) as workers:
            made = manage("createkey", OWNER, env=environment(folder, **variables))
            assert made.returncode == 0, made.stderr
            yield Ground(workers.each[0], made.stdout.splitlines()[-1], store, upstreams)


@pytest.fixture
async def http(ground: Ground) -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"Authorization": f"Bearer {ground.key}"}
    timeout = aiohttp.ClientTimeout(total=10)
    async with aiohttp.ClientSession(ground.worker.url, headers=headers, timeout=timeout) as http:
        yield http


def question(**fields: Any) -> dict[str, Any]:
    return {**chat(**fields), "messages": [{"role": "user", "content": MESSAGE}]}


def lines_of(ground: Ground, request_id: str) -> list[dict[str, Any]]:
    return [line for line in ground.worker.request_lines() if line["request_id"] == request_id]


async def line_of(ground: Ground, request_id: str) -> dict[str, Any]:
    """Return the line of a request, the only one."""
    await asyncio.to_thread(wait_until, lambda: lines_of(ground, request_id))
    (line,) = lines_of(ground, request_id)
    return line


@pytest.mark.parametrize("stream", [False, True])
async def test_chat_writes_one_line_when_it_is_served(
    ground: Ground, http: aiohttp.ClientSession, stream: bool
) -> None:
    conversation_id, request_id = f'Gespräch "{uuid.uuid4()}"', str(uuid.uuid4())
    body = question(conversation_id=conversation_id, stream=stream)
    async with http.post(CHAT, json=body, headers={"X-Request-Id": request_id}) as answer:
        await answer.read()
        assert answer.headers["X-Request-Id"] == request_id
        provider = answer.headers["X-Session-Provider"]
    line = await line_of(ground, request_id)
    assert line.keys() == OF_A_CHAT
    assert 0 < line.pop("latency_ms") < 5000
    assert datetime.fromisoformat(line.pop("at")).tzinfo == UTC
    assert ground.key.startswith(line["key"].rstrip("."))
    assert line == {
        "request_id": request_id,
        "status": 200,
        "conversation_id": conversation_id,
        "model": "model-a",
        "stream": stream,
        "outcome": "created",
        "provider": provider,
        "bound_provider": provider,
        "source": "body.conversation_id",
        "key": key_hint({"authorization": f"Bearer {ground.key}"}),
    }


@pytest.mark.parametrize(
    ("status", "test"),
    [(500, {"status": 500, "message": f"{MESSAGE} {UPSTREAM_KEY}"}), (400, {"status": 400, "message": MESSAGE})],
)
async def test_chat_writes_one_line_when_the_providers_fail(
    ground: Ground, http: aiohttp.ClientSession, status: int, test: dict[str, Any]
) -> None:
    async with http.post(CHAT, json=question(conversation_id="failing", test=test)) as answer:
        assert answer.status == status
        request_id = answer.headers["X-Request-Id"]
    line = await line_of(ground, request_id)
    assert line.keys() == OF_A_CHAT
    assert line["status"] == status


@pytest.mark.parametrize(
    ("status", "content", "headers"),
    [
        (401, json.dumps(question()), {"Authorization": "Bearer sk-unknown"}),
        (400, f"{{{MESSAGE}", {}),
        (404, json.dumps({**question(), "model": "gpt-0"}), {}),
        (413, 200_000 * " ", {}),
    ],
)
async def test_chat_writes_one_line_when_it_is_refused(
    ground: Ground, http: aiohttp.ClientSession, status: int, content: str, headers: dict[str, str]
) -> None:
    async with http.post(CHAT, data=content, headers=headers) as answer:
        assert answer.status == status
        request_id = answer.headers["X-Request-Id"]
    line = await line_of(ground, request_id)
    assert COMMON <= line.keys() <= OF_A_CHAT
    assert line["status"] == status


@pytest.mark.parametrize("stream", [False, True])
async def test_chat_writes_one_line_when_the_client_leaves(
    ground: Ground, http: aiohttp.ClientSession, stream: bool
) -> None:
    request_id = str(uuid.uuid4())
    test = {"pause": 10} if stream else {"delay": 10}
    body = question(conversation_id=f"left-{stream}", stream=stream, test=test)
    left = aiohttp.ClientTimeout(total=0.3)
    with pytest.raises(TimeoutError):
        async with http.post(CHAT, json=body, headers={"X-Request-Id": request_id}, timeout=left) as answer:
            await answer.read()
    line = await line_of(ground, request_id)
    assert line["conversation_id"] == f"left-{stream}"
    assert line["status"] == (200 if stream else 499)
    assert 250 < line["latency_ms"] < 2000


@pytest.mark.parametrize("hostile", ["", "a b", "x" * 129, "é", '{"status": 200}', "a\tb", "<script>", "' OR 1=1"])
async def test_request_id_is_replaced_when_it_cannot_be_used(
    ground: Ground, http: aiohttp.ClientSession, hostile: str
) -> None:
    async with http.post(CHAT, json=question(), headers={"X-Request-Id": hostile}) as answer:
        request_id = answer.headers["X-Request-Id"]
    if hostile.isascii() and " " not in hostile and hostile.isprintable() and 0 < len(hostile) <= 128:
        assert request_id == hostile  # odd, yet harmless within JSON and a header
        return
    assert uuid.UUID(request_id).hex == request_id
    await line_of(ground, request_id)
    assert not hostile or hostile not in ground.worker.log.read_text()


async def test_request_id_differs_when_none_is_sent(http: aiohttp.ClientSession) -> None:
    ids = set()
    for _ in range(3):
        async with http.post(CHAT, json=question()) as answer:
            ids.add(answer.headers["X-Request-Id"])
    assert len(ids) == 3


async def test_no_logger_reveals_a_secret(ground: Ground, http: aiohttp.ClientSession) -> None:
    async def ask(body: dict[str, Any], **headers: str) -> int:
        async with http.post(CHAT, json=body, headers=headers) as answer:
            await answer.read()
            return answer.status

    said = {"message": f"{MESSAGE} {UPSTREAM_KEY}", "code": MESSAGE}
    for stream in (False, True):
        for test in ({}, {"status": 500, **said}, {"status": 429, **said}, {"status": 400, **said}):
            await ask(question(conversation_id=f"secret-{stream}", stream=stream, test=test))
        await ask(question(conversation_id=f"secret-{stream}", stream=stream, test={"refuse": ["north"], **said}))
        await ask(question(conversation_id=f"secret-{stream}", stream=stream, test={"refuse": ["south"], **said}))
    with ground.store.client() as client:
        client.set("sentinel:session:secret-poison", f"{MESSAGE}{OWNER}", ex=60)
    await ask(question(conversation_id="secret-poison"))
    assert await ask(question(conversation_id="secret-False"), Authorization="Bearer sk-other") == 401
    assert await ask({**question(), "messages": MESSAGE}) == 400
    ground.store.kill()
    assert await ask(question(conversation_id="secret-degraded")) == 200
    ground.store.start()
    log = ground.worker.log.read_text()
    assert "DEBUG sessions_sticky" in log
    assert "degraded" in log
    secrets = {"key": ground.key[12:], "owner": OWNER, "message": MESSAGE, "upstream key": UPSTREAM_KEY}
    found = {name: [line for line in log.splitlines() if text in line] for name, text in secrets.items()}
    assert not any(found.values()), {name: lines[:3] for name, lines in found.items()}
    assert MESSAGE not in "\n".join(ground.worker.metrics())


@pytest.mark.parametrize(
    "hostile",
    [
        "\x1b[2J",
        "\x00\r\n",
        "\x7f",
        "\x85",
        "\x9b2J",
        "\u2028",
        "\u2029",
        "\u202e",
        "\u200b",
        "\u2066",
        "\ufeff",
        "é🙂",
    ],
)
@pytest.mark.parametrize("field", ["model", "conversation_id", "anything"])
def test_line_is_printable_ascii_when_a_client_sends_other_characters(
    caplog: pytest.LogCaptureFixture, field: str, hostile: str
) -> None:
    log = RequestLog({})
    log.fields[field] = f'a{hostile}"b'
    log.write(200)
    (line,) = caplog.messages
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)[field] == f'a{hostile}"b'


async def test_lines_share_a_record_while_a_server_runs(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("sentinel_project.requests")
    logger.addHandler(caplog.handler)  # it does not propagate
    writer = Writer()
    try:
        writer.put({"number": 0})
        writing = asyncio.create_task(writer.write_forever())
        await asyncio.sleep(0)
        for number, text in ((1, "a"), (2, "ä\x7f"), (3, "")):
            writer.put({"number": number, "text": text})
        await until(lambda: len(caplog.records) == 2)
        writer.put({"number": 4})
        writing.cancel()
        await asyncio.wait([writing])
        writer.put({"number": 5})
    finally:
        logger.removeHandler(caplog.handler)
    batches = [[json.loads(line)["number"] for line in each.message.split("\n")] for each in caplog.records]
    assert batches == [[0], [1, 2, 3], [4], [5]]
    assert all(each.message.isascii() and "\x7f" not in each.message for each in caplog.records)
