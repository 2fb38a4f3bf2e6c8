"""A stream that stalls or breaks, and a provider that hangs, count although no other provider can be asked."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

import pytest

from sentinel_project.gateway.apis.chat import ChatCompletions
from sentinel_project.gateway.providers.failures import Cools
from sentinel_project.gateway.providers.slots import Failure
from sentinel_project.gateway.routing import attempts, process
from sentinel_project.gateway.shutdown import stopping
from sentinel_project.gateway.upstream import relay
from sessions_sticky import SessionConflict, sessions
from tests.gateway.asgi import CHAT, MESSAGES, Call, outcome_of
from tests.gateway.conftest import provider
from tests.gateway.upstreams import Behaviour, Exchange, answers, breaks_off, stalls, stalls_after
from tests.waiting import until

if TYPE_CHECKING:
    from pytest_django import Settings

    from tests.gateway.upstreams import Upstream

APIS = ("chat", "messages", "responses")
ROLE = b'data: {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}\n\n'
WORD = b'data: {"choices": [{"index": 0, "delta": {"content": "hello"}}]}\n\n'
STARTS = {
    "role": (CHAT, ROLE),
    "comment": (CHAT, b": queued\n\n"),
    "message_start": ("/v1/messages", b'event: message_start\ndata: {"type": "message_start"}\n\n'),
    "created": ("/v1/responses", b'event: response.created\ndata: {"type": "response.created", "response": {}}\n\n'),
}
BEATS = {"comment": (CHAT, b": \n\n"), "ping": ("/v1/messages", b'event: ping\ndata: {"type": "ping"}\n\n')}


def error(kind: str, code: str | None = None) -> bytes:
    return b'data: {"error": {"message": "sorry", "type": "%b", "code": "%b"}}\n\n' % (
        kind.encode(),
        (code or kind).encode(),
    )


@pytest.fixture(autouse=True)
def impatient(gateway: Settings, north: Upstream, south: Upstream, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Let preludes pass soon, and a silent stream be given up soon."""
    gateway.SENTINEL_PROVIDERS = tuple(provider(each, apis=APIS) for each in (north, south))
    gateway.SENTINEL_IDLE_TIMEOUT_SECONDS = 0.4
    monkeypatch.setattr(relay, "PRELUDE_SECONDS", 0.05)
    return gateway


def only_beats(beat: bytes) -> Behaviour:
    """Send heartbeats until the gateway has left."""

    def behave(exchange: Exchange) -> None:
        exchange.begin()
        while True:
            exchange.chunk(beat)
            time.sleep(0.05)

    return behave


def request(number: int, path: str = CHAT, *, stream: bool = True) -> Call:
    """Return a request of one of several conversations, each bound to north."""
    name = f"conv-{number}"
    with contextlib.suppress(SessionConflict):
        sessions.create(name, "north", "model-a", "ann")
    prompt: dict[str, Any] = {"input": "hello"} if path == "/v1/responses" else {"messages": MESSAGES}
    return Call({"model": "model-a", "conversation_id": name, "stream": stream, **prompt}, path=path)


async def meet(upstream: Upstream, behaviour: Behaviour, *numbers: int, path: str = CHAT) -> None:
    """Let a stream of each of some conversations meet a behaviour, one after the other."""
    for number in numbers:
        assert not is_cooling()
        upstream.then(behaviour)
        answered = await request(number, path).answer()
        assert outcome_of(answered) == (200, "hit", "north")
        assert behaviour is answers or b"error" in answered.body


def is_cooling() -> bool:
    return process.health.is_cooling("north", "model-a")


@pytest.mark.slow
@pytest.mark.parametrize("start", STARTS)
async def test_provider_cools_down_when_streams_of_several_stall_after_their_prelude(
    north: Upstream, start: str
) -> None:
    path, event = STARTS[start]
    await meet(north, stalls_after(event), 1, 2, 3, path=path)
    await until(is_cooling)
    assert outcome_of(await request(4, path).answer()) == (200, "spilled", "south")


@pytest.mark.parametrize("is_finished", [False, True])
async def test_stream_of_an_api_without_a_last_event_ends_as_the_api_says(
    only_north: Upstream, monkeypatch: pytest.MonkeyPatch, is_finished: bool
) -> None:
    """`may_end_after` decides; `[DONE]` is then an event like others."""
    monkeypatch.setattr(ChatCompletions, "end_marker", None)
    finish = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n' if is_finished else b""
    whole = WORD + b"data: [DONE]\n\n" + WORD + finish
    only_north.then(lambda exchange: exchange.send(200, whole, content_type="text/event-stream"))
    answered = await request(1).answer()
    assert answered.body.startswith(whole)
    assert (b"upstream_incomplete" in answered.body) is not is_finished


@pytest.mark.slow
@pytest.mark.parametrize("beat", BEATS)
async def test_provider_cools_down_when_streams_of_several_have_heartbeats_only(
    impatient: Settings, north: Upstream, beat: str
) -> None:
    impatient.SENTINEL_UPSTREAM_TIMEOUT_SECONDS = 1.5
    path, event = BEATS[beat]
    await meet(north, only_beats(event), 1, 2, 3, path=path)
    await until(is_cooling)


BREAKS = {
    "cut": breaks_off(WORD, pause=0.2),
    "stalls": stalls_after(WORD),
    "error": breaks_off(WORD, error("overloaded_error"), pause=0.2),
    "error after the prelude": breaks_off(ROLE, error("server_error"), pause=0.2),
    "end after the prelude": breaks_off(ROLE, pause=0.2),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", BREAKS)
async def test_provider_cools_down_when_streams_of_several_break(north: Upstream, kind: str) -> None:
    await meet(north, BREAKS[kind], 1, 2, 3)
    await until(is_cooling)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["stalls", "end after the prelude"])
async def test_provider_stays_when_only_one_conversation_breaks_its_streams(north: Upstream, kind: str) -> None:
    await meet(north, BREAKS[kind], 1, 1, 1, 1, 1)
    assert not is_cooling()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["stalls", "end after the prelude"])
async def test_provider_stays_when_streams_complete_between_those_that_break(north: Upstream, kind: str) -> None:
    for number in (1, 2, 3):
        await meet(north, BREAKS[kind], number)
        await meet(north, answers, 9)
    assert not is_cooling()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["invalid_request_error", "request_too_large"])
@pytest.mark.parametrize("begun", [ROLE, WORD], ids=["prelude", "content"])
async def test_provider_stays_when_streams_end_with_errors_of_their_requests(
    north: Upstream, kind: str, begun: bytes
) -> None:
    await meet(north, breaks_off(begun, error(kind), pause=0.2), 1, 2, 3, 4)
    assert not is_cooling()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["rate_limit_error", "insufficient_quota"])
async def test_model_or_account_cools_down_at_once_when_a_stream_ends_with_its_limit(
    north: Upstream, kind: str
) -> None:
    await meet(north, breaks_off(ROLE, error(kind), pause=0.2), 1)
    await until(is_cooling)


@pytest.mark.slow
async def test_trial_that_stalls_after_its_prelude_does_not_end_the_outage(north: Upstream) -> None:
    process.health.failed("north", "model-a", Failure(Cools.PROVIDER))
    process.health.end_cooldowns("north")
    north.then(stalls_after(ROLE))
    assert outcome_of(await request(1).answer()) == (200, "hit", "north")
    assert process.health.failing() == ["north"]


@pytest.mark.slow
async def test_trial_ends_the_outage_when_content_follows_its_prelude(north: Upstream) -> None:
    process.health.failed("north", "model-a", Failure(Cools.PROVIDER))
    process.health.end_cooldowns("north")
    north.then(breaks_off(ROLE, WORD, pause=0.2))
    await request(1).answer()
    assert not process.health.failing()


@pytest.mark.parametrize(("numbers", "is_outlier"), [((1, 2, 3), True), ((1, 1, 1, 1), False)])
async def test_provider_cools_down_when_plain_requests_of_several_run_out_of_time(
    impatient: Settings, north: Upstream, numbers: tuple[int, ...], is_outlier: bool
) -> None:
    impatient.SENTINEL_UPSTREAM_TIMEOUT_SECONDS = 0.2
    for number in numbers:
        assert not is_cooling()
        north.then(stalls)
        assert (await request(number, stream=False).answer()).status == 504
    assert is_cooling() is is_outlier


async def give_up(upstream: Upstream, *numbers: int, seconds: float, **fields: Any) -> None:
    """Let clients leave, one after the other, while the provider hangs."""
    for number in numbers:
        upstream.clear()
        upstream.then(stalls)
        call = request(number, **fields)
        task = call.start()
        await until(lambda: upstream.exchanges)
        await asyncio.sleep(seconds)
        call.leave()
        await task


@pytest.mark.parametrize("path", [CHAT, "/v1/messages", "/v1/responses"])
async def test_provider_cools_down_when_it_hangs_until_clients_give_up(
    north: Upstream, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(attempts, "HANGS_SECONDS", 0.05)
    await give_up(north, 1, 2, seconds=0.1, path=path)
    assert not is_cooling()
    await give_up(north, 3, seconds=0.1, path=path)
    assert is_cooling()


@pytest.mark.parametrize(
    ("numbers", "fields"),
    [((1, 1, 1, 1), {}), ((1, 2, 3), {"stream": False}), ((1, 2, 3), {"hangs": 60.0}), ((1, 2, 3), {"stops": True})],
    ids=["one conversation", "plain requests", "soon", "the worker stops"],
)
async def test_provider_stays_when_clients_give_up(
    north: Upstream, monkeypatch: pytest.MonkeyPatch, numbers: tuple[int, ...], fields: dict[str, Any]
) -> None:
    monkeypatch.setattr(attempts, "HANGS_SECONDS", fields.pop("hangs", 0.05))
    if fields.pop("stops", False):
        monkeypatch.setattr(stopping, "caused", lambda exc: True)
    await give_up(north, *numbers, seconds=0.1, **fields)
    assert not is_cooling()


async def test_stream_counts_for_nothing_when_its_client_leaves(north: Upstream) -> None:
    for number in (1, 2, 3):
        north.then(stalls_after(ROLE))
        call = request(number)
        task = call.start()
        await call.next()
        call.leave()
        await task
    assert not is_cooling()
