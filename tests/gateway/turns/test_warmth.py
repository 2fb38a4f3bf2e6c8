"""Conversations return to the provider they are bound to while their prompt cache there is warm, and only then."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import asynccontextmanager

import pytest

from sentinel_project.gateway import clock
from sentinel_project.gateway.background import cancel
from sentinel_project.gateway.providers import health_sync
from sentinel_project.gateway.providers.current import providers
from sentinel_project.gateway.providers.failures import Cools
from sentinel_project.gateway.providers.health import Health
from sentinel_project.gateway.providers.slots import Failure, SlotState
from sentinel_project.gateway.routing import process
from sentinel_project.gateway.routing import warmth as rules
from sentinel_project.gateway.routing.plan import Plan
from sentinel_project.gateway.routing.reasons import CACHE_EXPIRED, CAME_BACK_COLD, Spill
from sentinel_project.gateway.routing.result import RouteResult, record_result
from sentinel_project.gateway.routing.warmth import Decision, Returning, Warmth, watch_forever
from sentinel_project.gateway.turns.recorder import recorder
from sessions_sticky import PromptCache, Session, SessionStoreUnavailable, Trail, Usage, sessions
from sessions_sticky.identity import Identity
from tests.clients.account import PromptCache as ProviderCache
from tests.gateway.asgi import ask, outcome_of
from tests.gateway.conftest import provider
from tests.gateway.responses import account

MODEL = "gpt-5.2"
NAMES = [f"conv-{number}" for number in range(8)]


@asynccontextmanager
async def flushing():
    task = asyncio.create_task(recorder.flush_forever())
    await asyncio.sleep(0)
    try:
        yield
    finally:
        await cancel([task])


class Conversation:
    """Messages that grow by each turn; `name` is also what its prompt begins with."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.messages = [{"role": "system", "content": f"{name} " + "knows many things " * 500}]

    async def turn(self):
        self.messages.append({"role": "user", "content": "a question of some words " * 10})
        answered = await ask({"model": MODEL, "messages": self.messages, "conversation_id": self.name})
        self.messages.append({"role": "assistant", "content": "an answer"})
        await recorder.flush()
        return outcome_of(answered)


def all_bound_to_north() -> list[Conversation]:
    for name in NAMES:
        sessions.create(name, "north", MODEL, "ann")
    return [Conversation(name) for name in NAMES]


async def interrupt(upstream, conversations: list[Conversation]) -> None:
    """Have two turns of each conversation, and one elsewhere while the provider is down; return when it has cooled."""
    for each in [*conversations, *conversations]:
        await each.turn()
    upstream.kill()
    for each in conversations:
        assert (await each.turn())[1] == "spilled"
    upstream.start()
    await asyncio.sleep(0.4)


async def cold_turns() -> dict[str, int]:
    """Return how many turns of each conversation, but its first, read nothing from a cache."""
    trails = [await sessions.atrail(name) for name in NAMES]
    return {
        name: sum(turn.usage.read == 0 for turn in trail.turns[1:]) for name, trail in zip(NAMES, trails, strict=True)
    }


@pytest.fixture
def patient(accounts, gateway, monkeypatch):
    """The two accounts, north with an empty cache of its own; cooldowns are short."""
    monkeypatch.setattr(process, "health", Health(0.05, providers))
    monkeypatch.setattr(rules, "READ_SECONDS", 5)
    monkeypatch.setattr(rules, "QUIET_SECONDS", 0.1)
    monkeypatch.setattr(random, "uniform", lambda least, most: most)
    for upstream in accounts:
        upstream.account.cache = ProviderCache()
    yield accounts
    for upstream in accounts:
        upstream.restore()


@pytest.mark.slow
async def test_conversations_stay_where_they_are_warm_when_their_provider_came_back_cold(patient):
    north, _ = patient
    conversations = all_bound_to_north()
    async with flushing():
        for each in [*conversations, *conversations]:
            assert (await each.turn())[2] == "north"
        north.kill()
        for each in [*conversations, *conversations]:
            assert await each.turn() == (200, "spilled", "south")
        north.account.cache = ProviderCache()
        north.start()
        await asyncio.sleep(0.4)
        assert await conversations[0].turn() == (200, "spilled", "south")
        await asyncio.sleep(2 * rules.SHARE_SECONDS)
        assert await conversations[0].turn() == (200, "hit", "north")
        assert await conversations[1].turn() == (200, "spilled", "south")
        await asyncio.sleep(rules.SHARE_SECONDS)
        assert await conversations[1].turn() == (200, "hit", "north")
        assert (await sessions.atrail(NAMES[1])).turns[-2].reason == Spill.WARM
        assert [await each.turn() for each in conversations[2:]] == [(200, "rebound", "south")] * 6
        assert [(await each.turn())[1] for each in conversations] == ["hit"] * 8
    cold = await cold_turns()
    assert sum(cold.values()) == len(NAMES) + 2
    assert [event.reason for event in sessions.history(NAMES[-1]) if event.kind == "rebound"] == [CAME_BACK_COLD]


@pytest.mark.slow
async def test_conversations_return_when_their_provider_came_back_warm(patient):
    north, _ = patient
    conversations = all_bound_to_north()
    async with flushing():
        await interrupt(north, conversations)
        assert await conversations[0].turn() == (200, "spilled", "south")
        await asyncio.sleep(2 * rules.SHARE_SECONDS)
        assert [await each.turn() for each in conversations] == [(200, "hit", "north")] * 8
    assert await cold_turns() == dict.fromkeys(NAMES, 1)
    assert not process.warmth._is_doubtful("north", providers())


async def test_conversations_that_wait_elsewhere_do_not_prolong_the_doubt(patient, monkeypatch):
    """Only failures do: with many conversations some wait at any time, and they would return one a second."""
    monkeypatch.setattr(rules, "QUIET_SECONDS", 1)
    north, _ = patient
    conversations = all_bound_to_north()
    async with flushing():
        await interrupt(north, conversations)
        for _ in range(7):
            assert await conversations[0].turn() == (200, "spilled", "south")
            await asyncio.sleep(0.2)
        await asyncio.sleep(2 * rules.SHARE_SECONDS - 1.4)
        assert [await each.turn() for each in conversations] == [(200, "hit", "north")] * 8


@pytest.mark.parametrize("away", [Spill.FULL, Spill.SLOW, Spill.LOAD, Spill.WARM, Spill.PINNED, Spill.API])
async def test_caches_are_not_in_doubt_when_a_spill_is_no_failure(gateway, north, south, monkeypatch, away):
    gateway.SENTINEL_PROVIDERS = (provider(north), provider(south))
    monkeypatch.setattr(process, "warmth", Warmth())
    identity = Identity(HOME.id, "body.conversation_id", True, HOME.id, HOME.id, True)
    plan = Plan(identity, "ann", "chat", MODEL, list(providers()), HOME, "hit")
    assert await record_result(plan, providers()[1], away) == RouteResult("spilled", away)
    assert not process.warmth._is_doubtful("north", providers())
    await record_result(plan, providers()[1], Spill.FAILED)
    assert process.warmth._is_doubtful("north", providers())


async def test_conversation_moves_when_its_prompt_cache_has_expired(patient, gateway, monkeypatch):
    north, _ = patient
    (conversation, *_) = all_bound_to_north()
    async with flushing():
        await conversation.turn()
        north.kill()
        assert (await conversation.turn())[1] == "spilled"
        later = clock.now() + 301
        monkeypatch.setattr(clock, "now", lambda: later)
        assert await conversation.turn() == (200, "rebound", "south")
        assert await conversation.turn() == (200, "hit", "south")
    assert [event.reason for event in sessions.history(NAMES[0]) if event.kind == "rebound"] == [CACHE_EXPIRED]


async def test_conversation_returns_to_a_slow_provider_when_it_is_fast_again(patient):
    conversation, other, *_ = all_bound_to_north()
    pace = process.load.paces["north"]
    async with flushing():
        assert (await conversation.turn())[1] == "hit"
        assert (await other.turn())[1] == "hit"
        for _ in range(3):
            pace.record(process.health.now(), is_late=True)
        assert await conversation.turn() == (200, "spilled", "south")
        assert await other.turn() == (200, "spilled", "south")
        pace.record(process.health.now(), is_late=False)
        assert await conversation.turn() == (200, "hit", "north")
        assert await other.turn() == (200, "hit", "north")


async def test_requests_of_a_bucket_are_spread_although_its_cache_is_elsewhere(patient, monkeypatch):
    """The load counts, whatever is known of the caches."""
    decided = Decision("south")

    async def decide(*_):
        return decided

    monkeypatch.setattr(process.warmth, "decide", decide)
    monkeypatch.setattr(process.load, "is_bucket", lambda _: True)
    monkeypatch.setattr(process.load, "overfull", lambda _: {"south"})
    messages = [*Conversation("bucket").messages, {"role": "user", "content": "a"}]
    messages += [{"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    for _ in range(2):
        answered = await ask({"model": MODEL, "messages": messages})
    assert outcome_of(answered)[2] == "north"


async def test_conversation_never_moves_for_an_api_that_its_provider_does_not_support(patient, gateway, monkeypatch):
    """Its cache at home has expired and another provider answers; it still only spills over."""
    north, south = patient
    (conversation, *_) = all_bound_to_north()
    async with flushing():
        await conversation.turn()
        gateway.SENTINEL_PROVIDERS = (account(north, apis=("messages",)), account(south))
        later = clock.now() + 301
        monkeypatch.setattr(clock, "now", lambda: later)
        assert [await conversation.turn() for _ in range(3)] == [(200, "spilled", "south")] * 3
        gateway.SENTINEL_PROVIDERS = (account(north), account(south))
        assert await conversation.turn() == (200, "hit", "north")
    assert not process.warmth._is_doubtful("north", providers())
    assert [event.kind for event in sessions.history(NAMES[0])] == ["created"]


NOW = 1_000_000.0
HOME = Session("conv-1", "north", MODEL, "ann", 1)


def trail(**caches: tuple[float, int]) -> Trail:
    """A trail with caches as they expire from now on; the first one is of the last answer."""
    found = {name: PromptCache(int(NOW + left), tokens) for name, (left, tokens) in caches.items()}
    return Trail(caches=found, last_provider=next(iter(found), None))


@pytest.fixture
def known(gateway, north, south, monkeypatch):
    """Decide for a session that is bound to north, by its trail."""
    both = [provider(north), provider(south)]
    monkeypatch.setattr(clock, "now", lambda: NOW)
    monkeypatch.setattr(rules, "SHARE_SECONDS", 0)
    monkeypatch.setattr(rules, "QUIET_SECONDS", 0)
    warmth, health = Warmth(), Health(30, lambda: both)
    warmth.note_failing(["north"])

    async def decide(found, order=both, warmth=warmth):
        class Manager:
            async def atrail(self, session_id):
                if isinstance(found, Exception):
                    raise found
                return found

        return await warmth.decide(HOME, Manager(), list(order), both, health)

    decide.both, decide.warmth, decide.health = both, warmth, health
    return decide


async def test_nothing_is_decided_when_nothing_is_known(known, gateway):
    assert await known(SessionStoreUnavailable("down")) is None
    assert await known(Trail()) is None
    assert await known(trail(south=(100, 2_000)), warmth=Warmth()) is None
    gateway.SENTINEL_TRAIL_TURNS = 0
    assert await known(trail(south=(100, 2_000))) is None


async def test_conversation_does_not_move_when_its_last_turn_at_home_is_not_known(known):
    """Bound before there were trails, or by another program."""
    assert await known(trail(south=(100, 2_000))) is None
    assert await known(trail(south=(100, 2_000)), known.both[1:]) is None


async def test_conversation_spills_to_where_it_is_warm(known):
    elsewhere = known.both[1:]
    assert await known(trail(south=(100, 2_000), north=(50, 2_000)), elsewhere) == Decision("south")
    assert await known(trail(north=(50, 2_000)), elsewhere) == Decision()
    assert await known(trail(north=(-1, 2_000)), elsewhere) == Decision(None, CACHE_EXPIRED)


async def test_provider_behind_others_is_not_in_doubt(known):
    """It is slow or has more than its share of the load; its caches are what they were."""
    warmth = Warmth()
    assert await known(trail(south=(100, 2_000), north=(50, 2_000)), known.both[::-1], warmth) is None
    assert (warmth._doubtful_since, warmth._away) == ({}, set())


async def test_conversation_does_not_return_to_a_provider_behind_others(known):
    busy = known.both[::-1]
    assert await known(trail(south=(100, 2_000), north=(50, 2_000)), busy) == Decision("south")
    assert await known(trail(north=(50, 2_000)), busy) == Decision()
    assert await known(trail(south=(100, 2_000), north=(-1, 2_000)), busy) == Decision("south", CACHE_EXPIRED)
    assert (await known(trail(south=(100, 2_000), north=(50, 2_000)))).returning is not None


async def test_conversation_returns_when_it_is_warm_nowhere_else_or_short(known):
    assert await known(trail(north=(50, 2_000))) == Decision()
    assert await known(trail(south=(-1, 2_000), north=(50, 2_000))) == Decision()
    assert await known(trail(south=(-1, 2_000), north=(-1, 2_000))) == Decision(None, CACHE_EXPIRED)
    assert await known(trail(south=(100, 2_000), north=(50, 0))) == Decision()
    assert await known(trail(south=(100, 2_000), north=(-1, 2_000))) == Decision("south", CACHE_EXPIRED)
    assert await known(trail(gone=(100, 2_000), north=(50, 2_000))) == Decision()


async def test_conversations_return_one_at_a_time_until_it_is_known(known):
    away = trail(south=(100, 2_000), north=(50, 2_000))
    first = await known(away)
    assert isinstance(first.returning, Returning)
    assert await known(away) == Decision("south")
    first.returning.end("south", Usage(3_000))
    second = await known(away)
    assert second.returning is not None
    second.returning.end("north", None)
    third = await known(away)
    third.returning.end("north", Usage(3_000, read=1_024))
    assert await known(away) is None


async def test_provider_is_cold_when_two_conversations_in_a_row_read_less_than_half(known):
    away = trail(south=(100, 2_000), north=(50, 2_000))
    for conversation_id, read in (("a", 0), ("b", 900)):
        decision = await known(away)
        decision.returning._replace(conversation_id=conversation_id).end("north", Usage(3_000, read=read))
    assert await known(away) == Decision("south", CAME_BACK_COLD)
    assert (await known(trail(south=(100, 2_000), north=(300, 2_000)))).returning is not None


async def test_a_single_conversation_proves_nothing(known):
    away = trail(south=(100, 2_000), north=(50, 2_000))
    for _ in range(3):
        (await known(away)).returning.end("north", Usage(3_000))
    assert (await known(away)).returning is not None


async def test_provider_is_not_cold_when_a_conversation_in_between_found_it_warm(known):
    away = trail(south=(100, 2_000), north=(50, 2_000))
    for conversation_id, read in (("a", 0), ("b", 2_000), ("c", 0)):
        known.warmth.note_failing(["north"])
        decision = await known(away)
        decision.returning._replace(conversation_id=conversation_id).end("north", Usage(3_000, read=read))
    assert (await known(away)).returning is not None


async def test_doubt_ends_with_the_life_of_the_caches(known, monkeypatch):
    began = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: began + 301)
    assert await known(trail(south=(100, 2_000), north=(50, 2_000))) is None
    assert known.warmth._doubtful_since == {}


def shared(health: Health, read_at: float) -> dict[str, SlotState]:
    """Return what another process reads of a provider at a time of its own clock."""
    written = {slot: health_sync._relative(state, health.now()) for slot, state in health.states["north"].items()}
    return {slot: health_sync._absolute(state, read_at) for slot, state in written.items()}


@pytest.mark.parametrize("uptime", [1, 1e6])
def test_one_cold_return_proves_nothing_after_a_warm_one_on_another_host(known, uptime):
    known.health.record_cold("north")
    known.health.record_warm("north")
    other = Health(30, lambda: known.both, lambda: uptime)
    health_sync.merge(other, {"north": shared(known.health, uptime)})
    other.record_cold("north")
    assert other.cold_for("north") is None


async def test_workers_share_that_a_provider_came_back_cold(known):
    known.health.record_cold("north")
    assert known.health.cold_for("north") is None
    known.health.record_cold("north")
    other, now = Health(30, lambda: known.both), known.health.now()
    health_sync.merge(other, {"north": shared(known.health, now)})
    assert other.cold_for("north") == pytest.approx(0, abs=5)
    assert other.failing() == []
    assert not other.is_cooling("north", MODEL)


async def test_workers_prove_that_a_provider_came_back_cold_with_a_conversation_each(known):
    mine, other = known.health, Health(30, lambda: known.both)
    for health in (mine, other):
        health.record_cold("north")
        assert health.cold_for("north") is None
    (state,) = other.states["north"].values()
    (slot,) = other.states["north"]
    mine.merge("north", slot, state)
    assert mine.cold_for("north") is not None
    other.merge("north", slot, mine.states["north"][slot])
    assert other.cold_for("north") is not None


async def test_provider_is_not_cold_when_a_worker_found_it_warm_in_between(known):
    mine, other = known.health, Health(30, lambda: known.both)
    mine.record_cold("north")
    (slot,) = mine.states["north"]
    other.merge("north", slot, mine.states["north"][slot])
    other.record_warm("north")
    mine.merge("north", slot, other.states["north"][slot])
    other.record_cold("north")
    mine.merge("north", slot, other.states["north"][slot])
    assert mine.cold_for("north") is None


async def test_conversations_return_one_at_a_time_while_their_provider_keeps_failing(known, monkeypatch):
    """All at once would saturate it again."""
    away, began = trail(south=(100, 2_000), north=(50, 2_000)), time.monotonic()
    monkeypatch.setattr(rules, "SHARE_SECONDS", 1)
    monkeypatch.setattr(rules, "QUIET_SECONDS", 10)
    for seconds in (0, 2, 4):
        monkeypatch.setattr(time, "monotonic", lambda now=began + seconds: now)
        known.warmth.note_failing(["north"])
        (await known(away)).returning.end("north", Usage(3_000, read=2_000))
        assert await known(away) == Decision("south")
    monkeypatch.setattr(time, "monotonic", lambda: began + 4 + rules.QUIET_SECONDS)
    (await known(away)).returning.end("north", Usage(3_000, read=2_000))
    assert await known(away) is None


async def test_failing_providers_of_other_workers_are_noted(known):
    warmth = Warmth()
    known.health.failed("south", MODEL, Failure(Cools.PROVIDER))
    watching = asyncio.create_task(watch_forever(warmth, known.health, 0.01))
    await asyncio.sleep(0.05)
    watching.cancel()
    assert warmth._doubtful_since.keys() == {"south"}
