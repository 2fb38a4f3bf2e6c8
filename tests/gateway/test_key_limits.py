"""Limits of API keys: within one process, between processes, and without the store."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time as real_time
from collections import Counter
from collections.abc import Iterator
from itertools import cycle
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from prometheus_client import REGISTRY

from sentinel_project.gateway import auth, key_limits, key_quota
from sentinel_project.gateway.auth import KeyLimits, KeyRefused
from sentinel_project.gateway.key_limits import Quotas
from sentinel_project.gateway.key_quota import IN_FLIGHT, Slot
from sessions_sticky import Usage
from tests.gateway.asgi import KEY, OTHER_KEY, Call, ask, chat
from tests.gateway.live import environment, manage
from tests.gateway.upstream_process import UpstreamProcess
from tests.gateway.upstreams import Held, stalls
from tests.gateway.workers import Workers, providers_file
from tests.servers import start_server
from tests.waiting import stopwatch, until

if TYPE_CHECKING:
    import redis

REQUESTS = 10
NONE = KeyLimits(None, None, None)


class Clock:
    """`time.time` of the limits, moved by hand; begins 20 s after the start of a minute."""

    def __init__(self) -> None:
        self.now = 60_000_020.0

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(key_quota, "time", clock)
    return clock


async def enter(quotas: Quotas, limits: KeyLimits, key: str = "a" * 64) -> Slot | str:
    """Return the slot of a request, or the code of its refusal."""
    try:
        return await quotas.enter(key, limits)
    except KeyRefused as exc:
        return str(exc.code)


async def admitted(turns: Any, limits: KeyLimits, number: int) -> int:
    """Send requests to processes in turn; return how many are admitted."""
    return sum([isinstance(await enter(next(turns), limits), Slot) for _ in range(number)])


async def exchange(*processes: Quotas) -> None:
    """Let each process exchange its counts, twice: the first must learn from the last."""
    for process in processes * 2:
        for quota in process._quotas.values():
            await process._begin_exchange(quota)


@pytest.mark.usefixtures("session_cache")
@pytest.mark.parametrize("limits", [KeyLimits(REQUESTS, None, None), KeyLimits(None, None, REQUESTS)])
@pytest.mark.parametrize("processes", [1, 2, 3])
async def test_processes_admit_as_many_requests_as_the_limit_together(clock, limits, processes):
    workers, number = [Quotas() for _ in range(processes)], 0
    for _ in range(20):
        number += await admitted(cycle(workers), limits, processes)
        clock.now += 1
        await exchange(*workers)
    assert REQUESTS <= number <= REQUESTS + processes - 1


@pytest.mark.usefixtures("session_cache")
async def test_burst_exceeds_the_limit_by_the_shares_of_other_processes_at_most(clock):
    limits, workers = KeyLimits(100, None, None), [Quotas(), Quotas()]
    for worker in workers:
        await enter(worker, limits)
    await exchange(*workers)
    numbers = [await admitted(cycle([worker]), limits, 200) for worker in workers]
    assert numbers[0] == 98
    assert sum(numbers) <= 98 + 49
    await exchange(*workers)
    assert await admitted(cycle(workers), limits, 10) == 0


@pytest.mark.usefixtures("session_cache")
@pytest.mark.parametrize("limit", [1, 2, 7, 100])
async def test_one_process_admits_the_whole_limit_while_others_are_idle(clock, limit):
    limits, busy, idle = KeyLimits(limit, None, None), Quotas(), [Quotas(), Quotas()]
    for worker in idle:
        await enter(worker, KeyLimits(1000, None, None))
    await enter(busy, KeyLimits(1000, None, None))
    await exchange(busy, *idle)
    clock.now += 60
    assert await admitted(cycle([busy]), limits, limit + 5) == limit


@pytest.mark.usefixtures("session_cache")
async def test_limits_start_again_with_each_minute(clock):
    limits, worker = KeyLimits(3, None, None), Quotas()
    assert await admitted(cycle([worker]), limits, 5) == 3
    clock.now += 39
    assert await enter(worker, limits) == "key_requests_limit"
    clock.now += 1
    assert await admitted(cycle([worker]), limits, 5) == 3


@pytest.mark.usefixtures("session_cache")
@pytest.mark.parametrize(
    ("limits", "wait"),
    [(KeyLimits(1, None, None), "40"), (KeyLimits(None, 1, None), "40"), (KeyLimits(None, None, 1), "1")],
)
async def test_refusal_states_the_limit_and_when_to_retry(clock, limits, wait):
    worker = Quotas()
    (await worker.enter("a", limits)).add_usage(Usage(input=1, output=1))
    with pytest.raises(KeyRefused, match="The API key is limited to 1 ") as caught:
        await worker.enter("a", limits)
    assert (caught.value.status, caught.value.headers["Retry-After"]) == (429, wait)


@pytest.mark.usefixtures("session_cache")
async def test_keys_have_separate_limits(clock):
    worker, limits = Quotas(), KeyLimits(1, None, None)
    assert isinstance(await enter(worker, limits, "a"), Slot)
    assert await enter(worker, limits, "a") == "key_requests_limit"
    assert isinstance(await enter(worker, limits, "b"), Slot)


@pytest.mark.usefixtures("session_cache")
async def test_new_limit_holds_for_the_next_request(clock):
    worker = Quotas()
    await enter(worker, KeyLimits(100, None, None))
    assert await enter(worker, KeyLimits(1, None, None)) == "key_requests_limit"
    assert isinstance(await enter(worker, KeyLimits(2, None, None)), Slot)


@pytest.mark.usefixtures("session_cache")
async def test_tokens_count_in_all_processes_when_answers_have_ended(clock):
    limits, workers = KeyLimits(None, 100, None), [Quotas(), Quotas()]
    slots = [await enter(worker, limits) for worker in workers]
    await exchange(*workers)
    for slot in slots:
        slot.add_usage(Usage(input=40, output=10))
        slot.add_usage(None)
    await exchange(*workers)
    assert [await enter(worker, limits) for worker in workers] == ["key_tokens_limit"] * 2


@pytest.mark.usefixtures("session_cache")
async def test_request_that_ends_makes_room_in_all_processes(clock):
    limits, workers = KeyLimits(None, None, 2), [Quotas(), Quotas()]
    slots = [await enter(worker, limits) for worker in workers]
    await exchange(*workers)
    assert await enter(workers[0], limits) == "key_in_flight_limit"
    slots[1].end()
    slots[1].end()
    await exchange(*workers)
    assert isinstance(await enter(workers[0], limits), Slot)
    assert await enter(workers[0], limits) == "key_in_flight_limit"


@pytest.mark.usefixtures("session_cache")
@pytest.mark.parametrize("limit", [1, 2, 4])
async def test_place_of_a_full_key_is_free_for_other_processes_at_once(clock, limit):
    limits, worker, other = KeyLimits(None, None, limit), Quotas(), Quotas()
    (await enter(other, limits)).end()  # it knows the key
    await exchange(other)
    slots = [await enter(worker, limits) for _ in range(limit)]
    await exchange(worker, other)
    assert await enter(other, limits) == "key_in_flight_limit"
    for _ in range(3):
        for slot in slots:
            slot.end()
        await ended_exchanges(worker)
        worker, other = other, worker
        slots = [await enter(worker, limits) for _ in range(limit)]
        assert all(isinstance(slot, Slot) for slot in slots), slots
        assert await enter(worker, limits) == "key_in_flight_limit"
        await exchange(worker)


async def ended_exchanges(process: Quotas) -> None:
    """Wait until a process has nothing left to report."""
    quota = process._quotas["a" * 64]
    await until(lambda: quota.exchanging.done() and not quota._unreported(IN_FLIGHT))


@pytest.mark.usefixtures("session_cache")
async def test_each_end_of_a_key_that_was_full_is_reported_within_the_minute(clock):
    limits, worker = KeyLimits(None, None, 3), Quotas()
    slots = [await enter(worker, limits) for _ in range(3)]
    await exchange(worker)
    for left in (2, 1):
        slots.pop().end()
        await ended_exchanges(worker)
        assert worker._quotas["a" * 64]._totals[IN_FLIGHT] == left
    clock.now += 60
    await exchange(worker)
    slots.pop().end()
    assert worker._quotas["a" * 64]._unreported(IN_FLIGHT) == -1
    assert worker._quotas["a" * 64].exchanging.done()


@pytest.mark.usefixtures("session_cache")
async def test_end_within_an_exchange_is_reported_after_it(clock, monkeypatch):
    limits, worker = KeyLimits(None, None, 2), Quotas()
    slots = [await enter(worker, limits) for _ in range(2)]
    await exchange(worker)
    running, add = threading.Event(), key_limits._add
    monkeypatch.setattr(key_limits, "_add", lambda *args: running.wait(10) and add(*args))
    slots[0].end()
    await asyncio.sleep(0.01)  # the exchange has taken the counts
    slots[1].end()
    running.set()
    await ended_exchanges(worker)
    assert worker._quotas["a" * 64]._totals[IN_FLIGHT] == 0


async def test_end_is_not_reported_when_the_store_is_down(clock, monkeypatch):
    monkeypatch.setattr(key_limits, "_add", failing)
    limits, worker = KeyLimits(None, None, 1), Quotas()
    slot = await enter(worker, limits)
    await exchange(worker)
    before = worker._quotas["a" * 64].exchanging
    slot.end()
    assert worker._quotas["a" * 64].exchanging is before
    assert isinstance(await enter(worker, limits), Slot)


@pytest.mark.usefixtures("session_cache")
async def test_requests_in_flight_count_across_minutes(clock):
    limits, workers = KeyLimits(None, None, 2), [Quotas(), Quotas()]
    for worker in workers:
        await enter(worker, limits)
    await exchange(*workers)
    for second in (40, 1, 1, 1):  # the first of them exchange before the other process has
        clock.now += second
        assert await enter(workers[0], limits) == "key_in_flight_limit"
        await workers[0]._begin_exchange(workers[0]._quotas["a" * 64])
        assert await enter(workers[0], limits) == "key_in_flight_limit"
        await exchange(*workers)


@pytest.mark.usefixtures("session_cache")
async def test_requests_of_a_process_that_died_are_forgotten_with_the_minute(clock):
    limits, worker, dead = KeyLimits(None, None, 2), Quotas(), Quotas()
    await enter(worker, limits)
    await enter(dead, limits)
    await exchange(worker, dead)
    assert await enter(worker, limits) == "key_in_flight_limit"
    clock.now += 43
    await exchange(worker)
    assert isinstance(await enter(worker, limits), Slot)


@pytest.mark.usefixtures("session_cache")
async def test_requests_send_nothing_to_the_store_within_their_share(clock, monkeypatch):
    calls = Counter[str]()
    add = key_limits._add
    monkeypatch.setattr(key_limits, "_add", lambda *args: calls.update(["add"]) or add(*args))
    worker = Quotas()
    assert await admitted(cycle([worker]), KeyLimits(1000, 1000, 1000), 500) == 500
    assert calls["add"] <= 1


@pytest.mark.usefixtures("session_cache")
async def test_counts_are_dropped_when_a_key_is_idle(clock, monkeypatch):
    monkeypatch.setattr(key_limits, "EXCHANGE_SECONDS", 0.01)
    worker = Quotas()
    slot = await enter(worker, KeyLimits(5, None, None), "a")
    background = asyncio.create_task(worker.exchange_forever())
    clock.now += 1000
    await asyncio.sleep(0.1)
    assert worker._quotas
    slot.end()
    clock.now += 1000
    await until(lambda: not worker._quotas)
    background.cancel()


def test_counts_expire_in_the_store(session_cache: redis.Redis, clock):
    key_limits._add("a", 1, {"requests": 2, "tokens": 0})
    key_limits._add("a", 1, {"requests": 3, "tokens": 0})
    names = session_cache.keys("*limit:*")
    assert [session_cache.get(name) for name in names] == [b"5"]
    assert 0 < session_cache.pttl(names[0]) <= 180_000


def failing(*args: object) -> None:
    raise ConnectionError("no store")


async def test_each_process_enforces_the_limit_alone_when_the_store_is_down(clock, monkeypatch, caplog):
    monkeypatch.setattr(key_limits, "_add", failing)
    limits, workers = KeyLimits(5, None, None), [Quotas(), Quotas()]
    for worker in workers:
        await enter(worker, limits)
        await exchange(worker)
    assert [await admitted(cycle([worker]), limits, 9) for worker in workers] == [4, 4]
    assert caplog.text.count("are not shared: ConnectionError") == 2


async def test_limit_is_never_lower_after_the_store_was_down(session_cache, clock, monkeypatch):
    limits, worker, add = KeyLimits(10, None, None), Quotas(), key_limits._add
    await admitted(cycle([worker]), limits, 4)
    await exchange(worker)
    monkeypatch.setattr(key_limits, "_add", failing)
    await exchange(worker)
    assert await admitted(cycle([worker]), limits, 3) == 3
    await exchange(worker)
    monkeypatch.setattr(key_limits, "_add", add)
    await exchange(worker)
    assert await admitted(cycle([worker]), limits, 9) == 3


async def test_requests_wait_a_moment_at_most_when_the_store_stalls(clock, monkeypatch):
    answers = threading.Event()
    monkeypatch.setattr(key_limits, "_add", lambda *args: answers.wait(30) and args[2])
    monkeypatch.setattr(key_limits, "WAIT_SECONDS", 0.05)
    worker, limits = Quotas(), KeyLimits(4, None, None)
    await enter(worker, limits)
    worker._quotas["a" * 64]._processes = 4
    began = real_time.monotonic()
    assert isinstance(await enter(worker, limits), Slot)
    assert real_time.monotonic() - began < 5
    answers.set()


# Through the gateway


@pytest.fixture
def limited(gateway, monkeypatch):
    """The gateway in this process; returns a function that limits ann's key."""
    monkeypatch.setattr(key_limits, "quotas", Quotas())

    def limit(**limits: int) -> None:
        auth.keys.change(KEY, limits=NONE._replace(**limits))

    return limit


@pytest.fixture
def lines():
    """What the gateway writes of requests."""
    written: list[dict[str, Any]] = []
    handler = logging.Handler()
    handler.emit = lambda record: written.append(json.loads(record.getMessage()))
    logger = logging.getLogger("sentinel_project.requests")
    logger.addHandler(handler)
    yield written
    logger.removeHandler(handler)


def refused(reason: str) -> float:
    return REGISTRY.get_sample_value("sentinel_key_refusals_total", {"reason": reason}) or 0


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses/resp_1"])
async def test_request_is_refused_when_the_key_is_over_its_limit(limited, lines, north, south, path):
    limited(requests=1)
    before, method = refused("key_requests_limit"), "GET" if "resp_" in path else "POST"
    assert (await ask(chat())).status == 200
    asked = len(north.exchanges + south.exchanges)
    answer = await ask(chat(), path=path, method=method)
    assert (answer.status, answer.error["type"], answer.error["code"]) == (
        429,
        "rate_limit_error",
        "key_requests_limit",
    )
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert answer.headers["x-ratelimit-remaining-requests"] == "0"
    assert len(north.exchanges + south.exchanges) == asked
    assert refused("key_requests_limit") == before + 1
    assert [line.get("refused") for line in lines] == [None, "key_requests_limit"]
    assert (await ask(chat(), key=OTHER_KEY)).status == 200


async def test_refusal_has_the_shape_of_anthropics_api(limited):
    limited(in_flight=0)
    answer = await ask(chat(max_tokens=1), path="/v1/messages", headers=[("anthropic-version", "2023-06-01")])
    assert (answer.status, answer.json["error"]["type"]) == (429, "rate_limit_error")


async def test_answers_state_the_limits_of_the_key_instead_of_the_providers(limited, north, south):
    limited(requests=5, tokens=1000)
    answer = json.dumps({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}).encode()
    for upstream in (north, south):
        upstream.then(lambda exchange: exchange.send(200, answer, x_ratelimit_limit_requests="777"))
    answers = [await ask(chat()), await ask(chat()), await ask(b"{")]
    assert [each.headers["x-ratelimit-remaining-requests"] for each in answers] == ["4", "3", "2"]
    assert {each.headers["x-ratelimit-limit-requests"] for each in answers} == {"5"}
    assert {each.headers["x-ratelimit-limit-tokens"] for each in answers} == {"1000"}
    assert answers[1].headers["x-ratelimit-remaining-tokens"] == "996"
    unlimited = await ask(chat(), key=OTHER_KEY)
    assert "x-ratelimit-limit-tokens" not in unlimited.headers
    assert unlimited.headers.get("x-ratelimit-limit-requests") != "5"


async def in_flight() -> int:
    (quota,) = key_limits.quotas._quotas.values()
    return quota._own[IN_FLIGHT]


@pytest.mark.parametrize("is_stream", [False, True])
async def test_request_is_in_flight_until_its_answer_has_ended(limited, north, south, is_stream):
    limited(in_flight=1)
    held = Held()
    if is_stream:
        north.then(held)
        south.then(held)
    first = Call(chat(stream=is_stream))
    task = first.start()
    if is_stream:
        await first.next()
        assert (await ask(chat())).error["code"] == "key_in_flight_limit"
    held.release.set()
    await task
    await asyncio.sleep(0)
    assert (await ask(chat())).status == 200


@pytest.mark.parametrize("is_stream", [False, True])
async def test_request_is_no_longer_in_flight_when_its_client_has_left(limited, north, south, is_stream):
    limited(in_flight=1)
    for upstream in (north, south):
        upstream.then(Held() if is_stream else stalls)
    call = Call(chat(stream=is_stream))
    task = call.start()
    await until(lambda: north.exchanges + south.exchanges)
    if is_stream:
        await call.next()
    assert await in_flight() == 1
    call.leave()
    await asyncio.wait([task])
    await asyncio.sleep(0)
    assert await in_flight() == 0


@pytest.mark.parametrize("turns", [0, 8])
@pytest.mark.parametrize("is_stream", [False, True])
async def test_tokens_count_when_the_client_did_not_ask_for_usage(limited, accounts, gateway, turns, is_stream):
    gateway.SENTINEL_TRAIL_TURNS = turns
    limited(tokens=10)
    body = {"model": "gpt-5.2", "messages": [{"role": "user", "content": "a long text " * 100}], "stream": is_stream}
    first = await ask(body)
    assert first.status == 200
    assert (b'"prompt_tokens"' in first.body) is not is_stream
    assert (await ask(body)).error["code"] == "key_tokens_limit"


async def test_request_is_refused_when_its_key_is_paused(gateway, lines, north, south):
    auth.keys.change(KEY, is_paused=True)
    for path, method in (("/v1/chat/completions", "POST"), ("/v1/models", "GET"), ("/v1/responses/resp_1", "GET")):
        answer = await ask(chat(), path=path, method=method)
        assert (answer.status, answer.error["code"]) == (403, "key_paused")
    assert [line["refused"] for line in lines] == ["key_paused"] * 3
    assert not north.exchanges + south.exchanges
    assert (await ask(chat(), key=OTHER_KEY)).status == 200
    auth.keys.change(KEY, is_paused=False)
    assert (await ask(chat())).status == 200


# Between workers


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    folder = tmp_path_factory.mktemp("workers")
    with UpstreamProcess("north") as upstreams, start_server() as store:
        variables = {"REDIS_URL": store.url, "SENTINEL_PROVIDERS": providers_file(folder, upstreams.urls)}
        with Workers(folder, 2, **variables) as both:
            yield both


def apikeys(workers: Workers, *arguments: str) -> None:
    """Run `manage.py apikeys` on the database of the workers."""
    done = manage("apikeys", *arguments, "--owner", "ann", env=environment(workers.folder))
    assert done.returncode == 0, done.stderr


async def statuses(http: aiohttp.ClientSession, workers: Workers, number: int) -> Counter[int]:
    """Send chats to the workers in turn; return how many answers had which status."""
    found = Counter[int]()
    for _, url in zip(range(number), cycle(workers.urls), strict=False):
        async with http.post(f"{url}/v1/chat/completions", json=chat()) as answer:
            found[answer.status] += 1
    return found


@pytest.mark.slow
async def test_workers_enforce_limits_and_pauses_together_within_seconds(workers):
    # A worker closes idle connections while the test waits for commands; one that closes now fails a request.
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(connector=connector, headers={"Authorization": f"Bearer {workers.key}"}) as http:
        assert await statuses(http, workers, 4) == {200: 4}
        apikeys(workers, "pause")
        await within_seconds(workers, lambda: statuses(http, workers, 4), {403: 4})
        apikeys(workers, "resume")
        await within_seconds(workers, lambda: statuses(http, workers, 4), {200: 4})
        apikeys(workers, "limit", "--requests-per-minute", "20")
        await asyncio.sleep(3)
        began = -1
        while began != minute():  # limits are of a minute: on a slow machine again, from the start of the next
            if began != -1 or real_time.time() % 60 > 50:
                await asyncio.sleep(61 - real_time.time() % 60)
            began, found = minute(), Counter[int]()
            for _ in range(4):
                found += await statuses(http, workers, 8)
                await asyncio.sleep(1.2)
            last = await statuses(http, workers, 4)
        assert found.keys() == {200, 429}
        assert found[200] <= 20 + 4  # what the other worker can have left of its share when a burst comes
        assert last == {429: 4}


def minute() -> int:
    return int(real_time.time() // 60)


async def within_seconds(workers: Workers, get: Any, expected: Any, seconds: float = 5) -> None:
    took = stopwatch(*(worker.process.pid for worker in workers.each))
    while (found := await get()) != expected:
        assert took() < seconds, found
        await asyncio.sleep(0.1)
