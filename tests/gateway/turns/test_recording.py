"""Turns that the gateway records: their fields, and no delay for requests."""

from __future__ import annotations

import asyncio
import gc
import json
import logging

import msgspec
import pytest

from sentinel_project.gateway.apis.body import Body
from sentinel_project.gateway.providers.failures import Cools
from sentinel_project.gateway.providers.slots import Failure
from sentinel_project.gateway.routing import process
from sentinel_project.gateway.turns import recorder as recording
from sentinel_project.gateway.turns.recorder import recorder
from sessions_sticky import Attempt, Price, SessionManager, SessionStoreUnavailable, TurnTotals, Usage, sessions
from tests.gateway.asgi import Call, ask, chat, outcome_of, request_lines, say
from tests.gateway.upstreams import breaks_off, fails
from tests.waiting import until

TEXT = "a long text " * 1_000
MODEL = "gpt-5.2"
BODIES = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": TEXT}]},
    "/v1/responses": {"input": TEXT},
    "/v1/messages": {
        "system": [{"type": "text", "text": TEXT, "cache_control": {"type": "ephemeral"}}],
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": 10,
    },
}
ANTHROPIC = [("anthropic-version", "2023-06-01")]
ALL_APIS = ("chat", "responses", "messages")


@pytest.fixture
def everywhere(accounts, gateway):
    """Both accounts speak every API, and every turn is priced."""
    prices = {MODEL: Price(input=2.0, cached_input=0.5, output=8.0)}
    gateway.SENTINEL_PROVIDERS = tuple(
        msgspec.structs.replace(each, apis=ALL_APIS, prices=prices) for each in gateway.SENTINEL_PROVIDERS
    )
    return accounts


async def turn(path: str, conversation_id: str = "conv-1", **fields) -> Call:
    body = {"model": MODEL, **BODIES[path], "conversation_id": conversation_id, **fields}
    answered = await ask(body, path=path, headers=ANTHROPIC)
    assert answered.status == 200, answered.body
    await recorder.flush()
    return answered


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("stream", [False, True])
async def test_turns_of_every_api_have_the_cached_tokens(everywhere, gateway, path, stream):
    gateway.SENTINEL_STREAM_USAGE = True
    for _ in range(2):
        await turn(path, stream=stream)
    first, second = (await sessions.atrail("conv-1")).turns
    assert (first.outcome, second.outcome) == ("created", "hit")
    assert second.provider == second.bound_provider == (await sessions.aget("conv-1")).provider
    assert (second.model, second.source, second.status) == (MODEL, "body.conversation_id", 200)
    assert second.usage.input == first.usage.input > 2_500
    assert 0 <= first.usage.read <= second.usage.read
    assert second.expected >= 2_000
    assert second.expected - 128 <= second.usage.read <= second.usage.input
    assert second.saved == round(second.usage.read * 1.5)
    assert second.first_byte_ms is not None


@pytest.mark.parametrize("asks", [False, True])
async def test_stream_is_byte_for_byte_what_the_client_asked_for(everywhere, gateway, asks):
    gateway.SENTINEL_STREAM_USAGE = True
    options = {"stream_options": {"include_usage": True}} if asks else {}
    answered = await turn("/v1/chat/completions", stream=True, **options)
    assert (b'"prompt_tokens"' in answered.body) is asks
    assert answered.body.endswith(b"data: [DONE]\n\n")
    (recorded,) = (await sessions.atrail("conv-1")).turns
    assert recorded.usage.input > 2_500
    asked = [json.loads(each.body).get("stream_options") for upstream in everywhere for each in upstream.turns()]
    assert asked == [{"include_usage": True}]


async def test_usage_of_a_stream_is_unknown_when_not_requested(everywhere):
    await turn("/v1/chat/completions", stream=True)
    trail = await sessions.atrail("conv-1")
    assert trail.turns[0].usage is None
    assert trail.totals == TurnTotals(turns=1, unknown=1)
    assert all(b"stream_options" not in each.body for upstream in everywhere for each in upstream.turns())


async def test_spilled_turn_has_its_attempts(gateway, bound_to_north, north, south):
    north.script.append(fails(503))
    await say(bound_to_north)
    await recorder.flush()
    (recorded,) = (await sessions.atrail(bound_to_north)).turns
    assert (recorded.outcome, recorded.bound_provider, recorded.provider) == ("spilled", "north", "south")
    assert recorded.attempts == (Attempt("north", 503),)
    failed = [each for each in sessions.usage().routes if each.outcome == "failed"]
    assert [(each.provider, each.totals.turns) for each in failed] == [("north", 1)]


async def test_turn_without_an_answer_is_recorded(gateway, bound_to_north, north, south):
    for upstream in (north, south):
        upstream.script.append(fails(503))
    await say(bound_to_north)
    await recorder.flush()
    trail = await sessions.atrail(bound_to_north)
    assert (trail.turns[0].outcome, trail.turns[0].status) == ("unanswered", 503)
    assert [each.provider for each in trail.turns[0].attempts] == ["north", "south"]
    assert trail.caches == {}


@pytest.mark.parametrize(("status", "outcome"), [(503, "unanswered"), (429, "unanswered"), (400, "refused")])
@pytest.mark.parametrize("stream", [False, True])
async def test_outcome_of_an_error_is_the_same_everywhere(
    gateway, bound_to_north, north, south, caplog, status, outcome, stream
):
    for upstream in (north, south):
        upstream.script.append(fails(status))
    with caplog.at_level(logging.INFO, "sentinel_project.requests"):
        answered = await say(bound_to_north, stream=stream)
    await recorder.flush()
    (line,) = request_lines(caplog)
    (recorded,) = (await sessions.atrail(bound_to_north)).turns
    assert (line["status"], line["outcome"], line["provider"]) == (status, outcome, "north")
    assert outcome_of(answered) == (status, outcome, "north")
    assert (recorded.status, recorded.outcome) == (status, outcome)


async def test_log_has_the_outcome_when_no_provider_is_asked(gateway, bound_to_north, north, south, caplog):
    for upstream in (north, south):
        process.health.failed(upstream.name, "model-a", Failure(Cools.MODEL, retry_after=60))
    with caplog.at_level(logging.INFO, "sentinel_project.requests"):
        await say(bound_to_north)
        await say("conv-2", model="unknown")
        await ask({"model": 1})
    assert [(line["status"], line.get("outcome")) for line in request_lines(caplog)] == [
        (429, "unanswered"),
        (404, "refused"),
        (400, None),
    ]


async def test_request_that_no_provider_can_serve_is_counted(gateway, bound_to_north, north, south):
    for upstream in (north, south):
        upstream.then(fails(429, headers={"Retry-After": "60"}))
        process.health.failed(upstream.name, "model-a", Failure(Cools.MODEL, retry_after=60))
    assert (await say(bound_to_north)).status == 429
    assert (await say("conv-2", model="unknown")).status == 404
    await recorder.flush()
    counted = {(each.outcome, each.provider): each.turns for each in sessions.activity().turns}
    assert counted == {("unanswered", ""): 1}


async def test_turn_of_a_request_at_fault_is_refused(gateway, bound_to_north, north):
    north.script.append(fails(400))
    await say(bound_to_north)
    await recorder.flush()
    assert [(each.outcome, each.status) for each in (await sessions.atrail(bound_to_north)).turns] == [("refused", 400)]


async def test_turn_whose_client_left_is_recorded(gateway, bound_to_north, north, caplog):
    caplog.set_level(logging.INFO, "sentinel_project.requests")
    north.script.append(lambda exchange: exchange.wait_until_left())
    call = Call(chat(conversation_id=bound_to_north))
    task = call.start()
    await until(lambda: north.exchanges)
    call.leave()
    await asyncio.wait([task])
    await recorder.flush()
    (recorded,) = (await sessions.atrail(bound_to_north)).turns
    assert (recorded.outcome, recorded.status) == ("left", 499)
    assert [(line["outcome"], line["status"]) for line in request_lines(caplog)] == [("left", 499)]


async def test_requests_that_compute_no_answer_are_no_turns(everywhere):
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
    assert (await ask(body, path="/v1/messages/count_tokens", headers=ANTHROPIC)).status == 200
    assert not recorder._queue


async def test_request_without_a_session_counts_in_the_sums(gateway, north, south):
    await ask(chat())
    await recorder.flush()
    report = sessions.usage()
    assert [(each.outcome, each.totals.turns, each.totals.input) for each in report.routes] == [("ranked", 1, 1)]
    assert [each.external_id for each in report.owners] == ["ann"]


async def test_nothing_is_recorded_when_trails_are_off(gateway, bound_to_north):
    gateway.SENTINEL_TRAIL_TURNS = 0
    await say(bound_to_north)
    assert not recorder._queue


@pytest.mark.slow
async def test_queued_turns_do_not_keep_their_requests(gateway, bound_to_north, north, south):
    def bodies() -> int:
        gc.collect()
        return sum(isinstance(each, Body) for each in gc.get_objects())

    before = bodies()
    await say(bound_to_north)
    await say(bound_to_north, stream=True)
    for upstream in (north, south):
        upstream.script.append(fails(503))
    await say(bound_to_north)
    assert len(recorder._queue) == 3
    assert bodies() == before


async def test_turns_are_dropped_and_counted_when_the_queue_is_full(gateway, bound_to_north, monkeypatch):
    monkeypatch.setattr(recording, "MAX_QUEUED", 1)
    before = recording.metrics.turns_dropped._value.get()
    for _ in range(3):
        assert (await say(bound_to_north)).status == 200
    assert len(recorder._queue) == 1
    assert recording.metrics.turns_dropped._value.get() == before + 2


async def test_turns_are_dropped_and_counted_when_the_store_fails(gateway, bound_to_north, monkeypatch, caplog):
    before, error = recording.metrics.turns_dropped._value.get(), SessionStoreUnavailable("no reply")
    error.__cause__ = TimeoutError()

    async def fail(manager, turns):
        raise error

    with monkeypatch.context() as failing, caplog.at_level(logging.WARNING):
        failing.setattr(SessionManager, "arecord_turns", fail)
        for _ in range(2):
            assert (await say(bound_to_north)).status == 200
            await recorder.flush()
    assert recording.metrics.turns_dropped._value.get() == before + 2
    assert caplog.text.count("turns are not recorded") == 1
    await say(bound_to_north)
    await recorder.flush()
    assert len((await sessions.atrail(bound_to_north)).turns) == 1


async def test_other_turns_are_recorded_when_one_batch_fails_unexpectedly(gateway, bound_to_north, monkeypatch):
    before, record = recording.metrics.turns_dropped._value.get(), SessionManager.arecord_turns
    errors = [RuntimeError("a defect")]

    async def fail_once(manager, turns):
        if errors:
            raise errors.pop()
        await record(manager, turns)

    monkeypatch.setattr(SessionManager, "arecord_turns", fail_once)
    monkeypatch.setattr(recording, "BATCH", 1)
    for _ in range(2):
        assert (await say(bound_to_north)).status == 200
    await recorder.stop()
    assert len((await sessions.atrail(bound_to_north)).turns) == 1
    assert recording.metrics.turns_dropped._value.get() == before + 1


async def test_turns_are_recorded_beside_one_that_cannot_be(gateway, bound_to_north, caplog):
    before = recording.metrics.turns_dropped._value.get()
    for _ in range(3):
        assert (await say(bound_to_north)).status == 200
    recorder._queue[1] = msgspec.structs.replace(recorder._queue[1], usage=Usage(2**63))
    await recorder.flush()
    assert len((await sessions.atrail(bound_to_north)).turns) == 2
    assert recording.metrics.turns_dropped._value.get() == before + 1
    assert "a turn cannot be recorded: Invalid turn: Expected `int` <= 1099511627776" in caplog.text
    assert not recorder._queue


@pytest.mark.parametrize("tokens", [2**63 - 1, 2**62, 2**40 + 1, -1])
@pytest.mark.parametrize("stream", [False, True])
async def test_turn_is_recorded_without_usage_when_its_tokens_cannot_be(bound_to_north, north, tokens, stream):
    usage = json.dumps({"prompt_tokens": tokens, "completion_tokens": 1, "total_tokens": tokens})
    answer = f'{{"choices":[{{"index":0,"delta":{{"content":"a"}}}}],"usage":{usage}}}'.encode()
    events = (b"data: %b\n\n" % answer, b"data: [DONE]\n\n")
    north.then(breaks_off(*events) if stream else fails(200, answer))
    await say(bound_to_north, stream=stream)
    await recorder.flush()
    (recorded,) = (await sessions.atrail(bound_to_north)).turns
    assert (recorded.provider, recorded.usage) == ("north", None)


async def test_turns_wait_while_the_circuit_breaker_is_open(gateway, bound_to_north, monkeypatch):
    async def refuse(manager, turns):
        raise SessionStoreUnavailable("circuit breaker is open")

    with monkeypatch.context() as failing:
        failing.setattr(SessionManager, "arecord_turns", refuse)
        for _ in range(2):
            assert (await say(bound_to_north)).status == 200
            await recorder.flush()
    await recorder.flush()
    trail = await sessions.atrail(bound_to_north)
    assert [turn.at for turn in trail.turns] == sorted(turn.at for turn in trail.turns)
    assert len(trail.turns) == 2


async def test_chats_do_not_wait_for_a_store_that_is_slow_to_record(gateway, bound_to_north, monkeypatch):
    entered = asyncio.Event()

    async def hang(manager, turns):
        entered.set()
        await asyncio.sleep(60)

    monkeypatch.setattr(SessionManager, "arecord_turns", hang)
    monkeypatch.setattr(recording, "FLUSH_SECONDS", 0.01)
    flushing = asyncio.create_task(recorder.flush_forever())
    await asyncio.wait_for(say(bound_to_north), 5)
    await asyncio.wait_for(entered.wait(), 5)
    for _ in range(5):
        assert (await asyncio.wait_for(say(bound_to_north), 5)).status == 200
    flushing.cancel()
    await asyncio.wait([flushing])


async def test_turns_are_recorded_when_the_worker_stops_as_it_records_them(gateway, bound_to_north, monkeypatch):
    entered, record = asyncio.Event(), SessionManager.arecord_turns

    async def record_slowly(manager, turns):
        entered.set()
        await asyncio.sleep(0.05)
        await record(manager, turns)

    monkeypatch.setattr(SessionManager, "arecord_turns", record_slowly)
    assert (await say(bound_to_north)).status == 200
    flushing = asyncio.create_task(recorder.flush_forever())
    await asyncio.wait_for(entered.wait(), 5)
    assert (await say(bound_to_north)).status == 200
    flushing.cancel()
    await asyncio.wait([flushing])
    await recorder.stop()
    assert len((await sessions.atrail(bound_to_north)).turns) == 2


async def test_recorder_gives_up_when_it_stops_and_the_store_hangs(monkeypatch, gateway, bound_to_north):
    await say(bound_to_north)

    async def hang(manager, turns):
        await asyncio.sleep(60)

    monkeypatch.setattr(SessionManager, "arecord_turns", hang)
    monkeypatch.setattr(recording, "STOP_SECONDS", 0.05)
    await asyncio.wait_for(recorder.stop(), 5)


async def test_waiting_turns_are_counted_as_dropped_when_the_worker_stops(monkeypatch, gateway, bound_to_north):
    async def fail(manager, turns):
        raise SessionStoreUnavailable("circuit breaker is open")

    monkeypatch.setattr(SessionManager, "arecord_turns", fail)
    before = recording.metrics.turns_dropped._value.get()
    await say(bound_to_north)
    await recorder.stop()
    assert recording.metrics.turns_dropped._value.get() == before + 1
