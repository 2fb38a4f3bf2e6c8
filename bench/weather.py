"""The gateway's routing in bad weather: seeded, in virtual time, without network and Redis.

    python bench/weather.py          # the table of docs/figures.md
    python bench/weather.py --seed 7

The gateway's own plan, dispatch, health and load run on simulated providers; the store is a dict. Beside it plain
stickiness: the bound provider, then the others in the ranking's order, no memory of failures, no look at the load.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "sentinel_project.settings")
os.environ.setdefault("REDIS_URL", "redis://127.0.0.1:1/0")  # never asked
os.environ.setdefault("SENTINEL_DATA_DIR", tempfile.mkdtemp())

import django  # noqa: E402

django.setup()

from django.conf import settings  # noqa: E402

from bench.virtual_time import VirtualTimeLoop  # noqa: E402
from sentinel_project.gateway.apis.base import ApiRequest  # noqa: E402
from sentinel_project.gateway.apis.body import Body  # noqa: E402
from sentinel_project.gateway.apis.chat import CHAT  # noqa: E402
from sentinel_project.gateway.errors import ApiError  # noqa: E402
from sentinel_project.gateway.providers import failures  # noqa: E402
from sentinel_project.gateway.providers.config import Provider  # noqa: E402
from sentinel_project.gateway.providers.health import Health  # noqa: E402
from sentinel_project.gateway.providers.load import Load  # noqa: E402
from sentinel_project.gateway.routing import binding, dispatch, plan, process  # noqa: E402
from sentinel_project.gateway.upstream import client  # noqa: E402
from sentinel_project.gateway.upstream.errors import UpstreamFailure  # noqa: E402
from sentinel_project.gateway.upstream.probes import probe_forever  # noqa: E402
from sentinel_project.gateway.upstream.relay import Progress  # noqa: E402
from sessions_sticky import Outcome, Session, SessionConflict, Trail, rendezvous  # noqa: E402
from sessions_sticky.identity import Identity  # noqa: E402

NAMES = ("north", "south", "east", "west")
MODEL = "model-a"
SECONDS, BEGINS, ENDS = 300.0, 60.0, 240.0
"""How long a run takes, and from when to when the weather is bad: all conversations are bound before."""
RATE = 20.0
CONVERSATIONS = 200
FIRST_BYTE, STREAM_SECONDS = (0.2, 1.0), (0.5, 3.0)
IDLE_SECONDS = 30.0
CONNECT_ERROR, BUSY, NO_CREDIT = "refused", "429", "402"


class Sky(NamedTuple):
    """One kind of weather. `fails` returns why north fails at a time with so many in flight, None when it answers.

    `stalls`: its streams begin, and have no content within `IDLE_SECONDS`.
    """

    name: str
    fails: Callable[[float, int], str | None] = lambda now, in_flight: None
    first_byte: float | None = None
    poison_every: float | None = None
    stalls: bool = False


SKIES = (
    Sky("calm"),
    Sky("poison: every 5 s a request that every provider answers with 500", poison_every=5),
    Sky("slow: north begins after 20 s (`first_byte_seconds` 5)", first_byte=20),
    Sky("flapping: north answers 500 for 5 s of 10", lambda now, in_flight: "500" if now % 10 < 5 else None),
    Sky("stalling: streams of north begin, and have no content within 30 s", stalls=True),
    Sky("saturated: north answers 429, `Retry-After: 2`, beyond 4", lambda now, n: BUSY if n > 4 else None),
    Sky("out of credit: north answers 402", lambda now, in_flight: NO_CREDIT),
    Sky("returning: north cannot be reached for 60 s", lambda now, n: CONNECT_ERROR if now < BEGINS + 60 else None),
)


class World:
    """Providers, conversations and what has happened to them."""

    def __init__(self, sky: Sky, seed: int) -> None:
        self.sky, self.random = sky, random.Random(seed)
        self.calls: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.in_flight: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.waits: list[float] = []
        self.bound: dict[str, str] = {}
        self.first: dict[str, str] = {}

    async def call(
        self, provider: Provider, request: ApiRequest, body: Body, hint: str | None, until: client.Until
    ) -> client.Answer:
        """Answer as a provider in this weather would; in the place of `client.call`."""
        loop, name = asyncio.get_running_loop(), provider.name
        self.calls[name] += 1
        is_bad = name == "north" and BEGINS <= loop.time() < ENDS
        why = self.sky.fails(loop.time(), self.in_flight[name]) if is_bad else None
        if "poison" in request.headers:
            why = "500"
        self.in_flight[name] += 1
        try:
            late = self.sky.first_byte if is_bad else None
            first_byte = 0.05 if why else late or self.random.uniform(*FIRST_BYTE)
            await asyncio.sleep(max(0.0, min(first_byte, until.answer - loop.time())))
            if loop.time() >= until.answer:
                raise _failure("timeout")
            if why:
                raise _failure(why)
        except BaseException:
            self.in_flight[name] -= 1
            raise
        if is_bad and self.sky.stalls:
            progress = Progress(CHAT, until.content)
            return client.Answer({}, self._stall(name, progress), progress)
        return client.Answer({}, self._stream(name))

    async def probe(self, provider: Provider) -> int:
        """Answer a probe; in the place of `client.probe`."""
        now = asyncio.get_running_loop().time()
        is_bad = provider.name == "north" and BEGINS <= now < ENDS
        why = self.sky.fails(now, self.in_flight[provider.name]) if is_bad else None
        if why == CONNECT_ERROR:
            raise OSError
        return int(why or 200)

    async def _stream(self, name: str) -> AsyncGenerator[bytes]:
        try:
            await asyncio.sleep(self.random.uniform(*STREAM_SECONDS))
            self.answered[name] += 1
            yield b"data: [DONE]\n\n"
        finally:
            self.in_flight[name] -= 1

    async def _stall(self, name: str, progress: Progress) -> AsyncGenerator[bytes]:
        try:
            yield CHAT.heartbeat
            await asyncio.sleep(IDLE_SECONDS)
            progress.failure = _failure("timeout")
            yield CHAT.error_event(progress.failure)
        finally:
            self.in_flight[name] -= 1

    async def run(self, ask: Callable[[World, str, ApiRequest], Any]) -> None:
        """Send requests at random moments, each conversation one at a time."""
        loop, busy, tasks, poisons = asyncio.get_running_loop(), set[str](), set[asyncio.Task[None]](), 0
        ids = [f"conv-{number}" for number in range(CONVERSATIONS)]

        async def one(conversation_id: str, *, is_poison: bool = False) -> None:
            begun = loop.time()
            headers = {"poison": ""} if is_poison else {}
            body = Body.parse(b'{"model": "model-a", "messages": [{"role": "user"}], "stream": true}')
            request = ApiRequest(CHAT, body, MODEL, True, headers, "", "POST", CHAT.path)
            try:
                outcome, answer = await ask(self, conversation_id, request)
            except ApiError:
                outcome, answer = "refused", None
            waited = loop.time() - begun
            if answer is not None:
                events = [event async for event in answer.body]
                outcome = "refused" if b"error" in events[-1] else outcome
            if not is_poison:
                self.outcomes[outcome] += 1
                self.waits.append(waited)
            busy.discard(conversation_id)

        probes = asyncio.create_task(probe_forever(process.health, lambda: settings.SENTINEL_PROVIDERS))
        while loop.time() < SECONDS:
            await asyncio.sleep(self.random.expovariate(RATE))
            chosen = self.random.choice(ids)
            if chosen not in busy:
                busy.add(chosen)
                tasks.add(asyncio.create_task(one(chosen)))
            if self.sky.poison_every is not None and (loop.time() - BEGINS) / self.sky.poison_every > poisons:
                poisons += 1
                tasks.add(asyncio.create_task(one("poison", is_poison=True)))
        await asyncio.gather(*tasks)
        probes.cancel()

    def bind(self, conversation_id: str, provider: str) -> None:
        """Keep a binding, and the first one for comparison."""
        self.bound[conversation_id] = provider
        self.first.setdefault(conversation_id, provider)


class Manager:
    """A session manager over a world's dict."""

    ttl_seconds = 86_400

    def __init__(self, world: World) -> None:
        self._world = world

    async def resolve(self, identity: Identity, *, provider: str, model: str, owner: str) -> binding.Bound:
        """Return the binding, new or not; in the place of `binding.resolve`."""
        conversation_id = str(identity.session_id)
        is_new = conversation_id not in self._world.bound
        bound = self._world.bound.setdefault(conversation_id, provider)
        outcome = Outcome.CREATED if is_new else Outcome.HIT
        return binding.Bound(Session(conversation_id, bound, model, owner, 1), str(outcome), is_new)

    async def arebind(self, session: Session, *, provider: str, model: str, reason: str) -> None:
        """Move by compare-and-set."""
        if self._world.bound.get(session.id) != session.provider:
            raise SessionConflict(session.id, None)
        self._world.bound[session.id] = provider

    async def atrail(self, conversation_id: str) -> Trail:
        """Return no turns: the weather is about health and load, not about prompt caches."""
        return Trail()

    async def adelete_unchanged(self, session: Session) -> None:
        """Remove by compare-and-delete."""
        if self._world.bound.get(session.id) == session.provider:
            del self._world.bound[session.id]


async def gateway(world: World, conversation_id: str, request: ApiRequest) -> tuple[str, client.Answer]:
    """Serve as the gateway does."""
    identity = Identity(conversation_id, "body.conversation_id", True, conversation_id, conversation_id, True)
    planned = await plan.plan_route(identity, model=MODEL, owner="ann", api="chat")
    served = await dispatch.dispatch(planned, request)
    world.bind(conversation_id, world.bound.get(conversation_id, served.provider.name))
    return ("spilled" if served.provider.name != world.bound[conversation_id] else "kept"), served.answer


async def plain(world: World, conversation_id: str, request: ApiRequest) -> tuple[str, client.Answer]:
    """Serve by stickiness alone."""
    ranking = rendezvous(conversation_id, dict.fromkeys(NAMES, 1))
    deadline = asyncio.get_running_loop().time() + settings.SENTINEL_UPSTREAM_TIMEOUT_SECONDS
    bound = world.bound.get(conversation_id, ranking[0])
    world.bind(conversation_id, bound)
    by_name = {provider.name: provider for provider in settings.SENTINEL_PROVIDERS}
    error: ApiError | None = None
    for name in (bound, *(each for each in ranking if each != bound)):
        try:
            answer = await world.call(by_name[name], request, request.body, None, client.Until(deadline, deadline))
        except UpstreamFailure as exc:
            error = error or exc
        else:
            return ("spilled" if name != bound else "kept"), answer
    raise error or AssertionError


def _failure(why: str) -> UpstreamFailure:
    failed = UpstreamFailure(
        504 if why == "timeout" else 502, why, code="upstream_timeout" if why == "timeout" else why
    )
    failed.reason = why
    failed.failure_class = failures.classify(int(why)) if why.isdigit() else failures.BROKEN
    if why == CONNECT_ERROR:
        failed.failure_class = failures.UNREACHABLE
    failed.retry_after = 2.0 if why == BUSY else None
    failed.is_alive = why in (BUSY, NO_CREDIT)
    return failed


def simulate(sky: Sky, ask: Callable[..., Any], seed: int) -> World:
    """Run one kind of weather, and return what has become of it."""
    random.seed(seed)  # the gateway draws waits
    world, loop = World(sky, seed), VirtualTimeLoop()
    providers = tuple(
        Provider(
            name=name, base_url="http://sim.invalid", api_key=None, models=(MODEL,), weight=1, first_byte_seconds=5
        )
        for name in NAMES
    )
    manager = Manager(world)
    health = Health(settings.SENTINEL_COOLDOWN_SECONDS, lambda: providers, loop.time)
    with (
        patch.object(settings, "SENTINEL_PROVIDERS", providers),
        patch.object(process, "health", health),
        patch.object(process, "load", Load()),
        patch.object(client, "call", world.call),
        patch.object(client, "probe", world.probe),
        patch.object(binding, "resolve", manager.resolve),
        patch.object(binding, "manager_for", lambda identity: manager),
    ):
        try:
            loop.run_until_complete(world.run(ask))
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()
    return world


def figures(world: World) -> list[str]:
    """Return the cells of one router: refused, moved, spilled, calls a request, first byte, shares."""
    requests, waits = sum(world.outcomes.values()), sorted(world.waits)
    moved = sum(world.bound.get(each) != provider for each, provider in world.first.items())
    calls, answered = sum(world.calls.values()) / requests, sum(world.answered.values())
    return [
        str(world.outcomes["refused"]),
        str(moved),
        f"{100 * world.outcomes['spilled'] / requests:.1f}%",
        f"{calls:.2f}",
        f"{waits[len(waits) * 99 // 100]:.1f} s",
        "/".join(f"{100 * world.answered[each] / answered:.0f}" for each in NAMES),
    ]


def row(sky: Sky, seed: int) -> str:
    """Return a row of the table: the figures of the gateway, then those of plain stickiness."""
    pairs = zip(figures(simulate(sky, gateway, seed)), figures(simulate(sky, plain, seed)), strict=True)
    return f"| {sky.name} | {' | '.join('; '.join(pair) for pair in pairs)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    seed = parser.parse_args().seed
    logging.disable()
    print(f"| weather | refused | moved | spilled | calls a request | first byte, 99% | share of {', '.join(NAMES)} |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for sky in SKIES:
        print(row(sky, seed))


if __name__ == "__main__":
    main()
