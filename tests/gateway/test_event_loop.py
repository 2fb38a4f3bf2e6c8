"""Nothing in the chat path waits on a thread, and streams cost none."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aiodns
import httpx
import msgspec
import pytest
from asgiref.sync import sync_to_async

from sentinel_project.gateway import auth
from tests.gateway.asgi import KEY, Call, ask, chat
from tests.gateway.conftest import provider
from tests.gateway.live import LiveGateway
from tests.gateway.upstreams import Held, Upstream


def submit_nothing(*args, **kwargs):
    raise AssertionError("the chat path submits work to a thread")


@pytest.fixture
async def no_threads(gateway) -> AsyncIterator[None]:
    """From here on the event loop's thread can neither start a thread nor hand work to one."""
    await auth.keys.caller(KEY)  # the ring is warm
    await aiodns.DNSResolver().close()  # the first of a process starts a thread that closes channels
    start, loop_thread = threading.Thread.start, threading.current_thread()

    def refuse(thread: threading.Thread) -> None:
        if threading.current_thread() is loop_thread:
            raise AssertionError("the chat path starts a thread")
        start(thread)

    with pytest.MonkeyPatch.context() as patch:  # not the fixture: the loop ends before that one does
        patch.setattr(threading.Thread, "start", refuse)
        patch.setattr(ThreadPoolExecutor, "submit", submit_nothing)
        yield


@pytest.mark.usefixtures("no_threads")
async def test_guard_refuses_when_work_goes_to_a_thread():
    for hop in (asyncio.to_thread(int), sync_to_async(int)(), sync_to_async(int, thread_sensitive=False)()):
        with pytest.raises(AssertionError, match="the chat path"):
            await hop


@pytest.mark.usefixtures("no_threads")
@pytest.mark.parametrize("stream", [False, True])
async def test_chat_waits_on_no_thread_when_the_key_is_known(session_cache, stream):
    for outcome in ("created", "hit"):
        answer = await ask(chat(conversation_id="conv-1", stream=stream))
        assert (answer.status, answer.headers["x-session-outcome"]) == (200, outcome), answer.body


@pytest.mark.usefixtures("no_threads")
async def test_chat_waits_on_no_thread_when_it_is_refused_or_rebound(gateway, south):
    assert (await ask(chat(17))).status == 400
    for number in range(4):
        await ask(chat(conversation_id=f"conv-{number}"))
    gateway.SENTINEL_PROVIDERS = (provider(south),)
    outcomes = {(await ask(chat(conversation_id=f"conv-{number}"))).headers["x-session-outcome"] for number in range(4)}
    assert outcomes == {"hit", "rebound"}
    assert (await ask(path="/v1/models", method="GET")).status == 200


@pytest.mark.usefixtures("no_threads")
async def test_chat_waits_on_no_thread_when_the_client_leaves(only_north: Upstream):
    only_north.then(Held())
    call = Call(chat(stream=True, conversation_id="conv-1"))
    serving = call.start()
    await call.next()
    call.leave()
    await asyncio.wait_for(serving, 5)


@pytest.mark.usefixtures("no_threads")
async def test_chat_waits_on_no_thread_when_the_provider_is_named(gateway, north: Upstream):
    named = provider(north).base_url.replace("127.0.0.1", "localhost")
    gateway.SENTINEL_PROVIDERS = (msgspec.structs.replace(provider(north), base_url=named),)
    assert (await ask(chat())).status == 200


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads in /proc")
async def test_streams_add_no_threads_when_50_run_at_once(live: LiveGateway, north: Upstream):
    held = Held()
    north.then(*50 * [held])

    def threads() -> int:
        return len(list(Path(f"/proc/{live.process.pid}/task").iterdir()))

    async with httpx.AsyncClient(
        base_url=live.url, headers={"Authorization": f"Bearer {live.key}"}, limits=httpx.Limits(max_connections=None)
    ) as client:

        async def begin(number: int) -> httpx.Response:
            body = chat("only-north", stream=True, conversation_id=f"stream-{number}")
            request = client.build_request("POST", "/v1/chat/completions", json=body)
            return await client.send(request, stream=True)

        await client.post("/v1/chat/completions", json=chat("only-south"))
        before = threads()
        streams = await asyncio.gather(*map(begin, range(50)))
        assert len(north.exchanges) >= 50
        during = threads()
        held.release.set()
        texts = await asyncio.gather(*(stream.aread() for stream in streams))
    assert during <= before
    assert all(text.endswith(b"data: [DONE]\n\n") and b'"second"' in text for text in texts)
