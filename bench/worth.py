"""What stickiness is worth: how much of the input comes from the providers' prompt caches, with and without faults.

    python bench/worth.py                           # everything, about an hour; writes docs/worth.json and worth.svg
    python bench/worth.py ours litellm              # only these gateways; the other rows of worth.json stay
    python bench/worth.py ours:header:killed        # only this case
    python bench/worth.py --draw                    # only draw and print what worth.json has

Needs nginx, and LiteLLM and Portkey as bench/peers.sh installs them. Agents' sessions (bench/conversations.py) run over
four providers with prompt caches of their own (bench/cached_upstream.py), in a tenth of the real time: 4 to 20 s
between two turns are 0.4 to 2 s here, five minutes of a cache 30 s. The most there is: one cache for all providers.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import aiohttp  # noqa: E402

from bench.cached_upstream import LEAST_TOKENS, PromptCache, Upstream  # noqa: E402
from bench.conversations import MODELS, SMALL, Message, Thread, session  # noqa: E402
from bench.worth_gateways import CACHE_SECONDS, GATEWAYS, Gateway  # noqa: E402
from bench.worth_report import Row, draw, table  # noqa: E402
from tests.servers import free_port  # noqa: E402

SEED, SESSIONS = 7, 48
THINK_SECONDS = (0.4, 2.0)
TURN_SECONDS = 1.3
"""About what a turn takes with its answer."""
FAULT_AFTER, FAULT_SECONDS = 0.25, 8.0
"""A fault begins when this share of all turns is answered, whatever a gateway needs for them."""
ATTEMPTS, RETRY_SECONDS = 8, 0.5
"""How often a client sends a request that is refused, and how long it waits."""
REFUSED_EVERY = 3
"""The saturated provider refuses each third request."""
PRICES = {SMALL: (0.25, 0.025)} | {model: (1.25, 0.125) for model in MODELS if model != SMALL}
"""Dollars for a million tokens of input, uncached and cached: OpenAI's list prices of November 2026."""


class Turn(NamedTuple):
    """What one turn used, when it was answered, and by whom."""

    at: float
    provider: str
    tokens: int
    cached: int


class Setup(NamedTuple):
    """A gateway and what a fault needs to break."""

    gateway: Gateway
    upstreams: list[Upstream]


Identify = Callable[[str], tuple[dict[str, str], dict[str, Any]]]
WAYS: dict[str, Identify] = {
    "header": lambda name: ({"X-Session-Affinity": name, "x-litellm-session-id": name}, {}),
    "body": lambda name: ({}, {"metadata": {"session_id": name}}),
    "none": lambda name: ({}, {}),
}
"""Where the id of a session is; a header has the names that clients and gateways use."""


def killed(setup: Setup) -> None:
    """Kill a provider."""
    setup.upstreams[0].kill()


def back(setup: Setup) -> None:
    """Start the provider again, with an empty cache."""
    setup.upstreams[0].start()


def redis_killed(setup: Setup) -> None:
    """Kill the gateway's Redis."""
    if setup.gateway.redis is not None:
        setup.gateway.redis.kill()


def redis_back(setup: Setup) -> None:
    """Start the gateway's Redis again, empty."""
    if setup.gateway.redis is not None:
        setup.gateway.redis.start()


def added(setup: Setup) -> None:
    """Add the fifth provider."""
    setup.gateway.urls[:] = setup.gateway.add()


def saturated(setup: Setup) -> None:
    """Let a provider refuse some of its requests."""
    setup.upstreams[0].refuse(REFUSED_EVERY)


def relieved(setup: Setup) -> None:
    """End the saturation."""
    setup.upstreams[0].refuse(0)


def nothing(_: Setup) -> None:
    """Break nothing."""


Act = Callable[[Setup], None]
FAULTS: dict[str, tuple[Act, Act]] = {
    "plain": (nothing, nothing),
    "killed": (killed, back),
    "saturated": (saturated, relieved),
    "redis": (redis_killed, redis_back),
    "added": (added, nothing),
}
CASES = [
    *(("ours", way, fault) for way in ("header", "none") for fault in FAULTS),
    ("ours", "body", "plain"),
    *(("litellm", "header", fault) for fault in FAULTS),
    ("litellm", "body", "plain"),
    ("litellm", "none", "plain"),
    ("litellm", "none", "killed"),
    *(("nginx", "header", fault) for fault in FAULTS if fault != "redis"),
    ("portkey", "header", "plain"),
    ("portkey", "header", "killed"),
]


def sessions() -> list[list[Thread]]:
    """Return the threads of each session."""
    return [session(f"ses-{SEED}-{number}", number, SEED) for number in range(SESSIONS)]


class Replay(NamedTuple):
    """The turns of each thread, when the fault began, and how often a request was refused."""

    turns: list[list[Turn]]
    fault_at: float
    refused: int


async def replay(setup: Setup, way: str, fault: str) -> Replay:
    """Run all sessions."""
    identify, (breaks, ends) = WAYS[way], FAULTS[fault]
    urls, began = setup.gateway.urls, time.monotonic()
    threads = [thread for each in sessions() for thread in each]
    answered, refused, fault_at = 0, 0, float("inf")
    is_due = asyncio.Event()
    due_at = FAULT_AFTER * sum(len(thread.turns) for thread in threads)
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=2)  # servers close idle connections after five
    async with aiohttp.ClientSession(headers=setup.gateway.headers, connector=connector) as client:

        async def ask(thread: Thread, messages: list[Message], number: int) -> Turn:
            nonlocal answered, refused
            headers, fields = identify(thread.session_id)
            body = {"model": thread.model, "messages": messages, **fields}
            for attempt in range(ATTEMPTS):
                url = f"{urls[(number + attempt) % len(urls)]}/v1/chat/completions"
                try:
                    async with client.post(url, json=body, headers=headers) as response:
                        answer = json.loads(await response.read())
                        if response.status == 200:
                            answered += 1
                            if answered >= due_at:
                                is_due.set()
                            usage = answer["usage"]
                            cached = usage["prompt_tokens_details"]["cached_tokens"]
                            provider = answer["choices"][0]["message"]["content"]
                            return Turn(time.monotonic() - began, provider, usage["prompt_tokens"], cached)
                        reason = f"{response.status} {answer}"
                except aiohttp.ClientError as exc:  # its process is being replaced
                    reason = repr(exc)
                print(f"refused after {time.monotonic() - began:.1f} s: {reason[:300]}", file=sys.stderr)
                refused += 1
                await asyncio.sleep(RETRY_SECONDS)
            raise RuntimeError(f"{thread.session_id} got no answer: {reason}")

        async def run(thread: Thread, dice: random.Random) -> list[Turn]:
            await asyncio.sleep(thread.starts_after * TURN_SECONDS)
            turns = []
            for number, messages in enumerate(thread.turns):
                turns.append(await ask(thread, messages, number))
                await asyncio.sleep(dice.uniform(*THINK_SECONDS))
            return turns

        async def break_something() -> None:
            nonlocal fault_at
            await is_due.wait()
            fault_at = time.monotonic() - began
            await asyncio.to_thread(breaks, setup)
            await asyncio.sleep(FAULT_SECONDS)
            await asyncio.to_thread(ends, setup)

        runs = [run(thread, random.Random(f"{SEED} {at}")) for at, thread in enumerate(threads)]
        turns, _ = await asyncio.gather(asyncio.gather(*runs), break_something())
    return Replay(turns, fault_at, refused)


def most() -> float:
    """Return the share of the input that one cache for all would give."""
    cache = PromptCache()
    found = [cache.read(thread.model, turn) for each in sessions() for thread in each for turn in thread.turns]
    return sum(cached for _, cached in found) / sum(tokens for tokens, _ in found)


def is_cold(before: Turn, turn: Turn) -> bool:
    """Return whether a turn read less than half of what the thread's last turn had."""
    return before.tokens >= LEAST_TOKENS and 2 * turn.cached < before.tokens


def affected(replayed: Replay, fault: str) -> list[list[Turn]]:
    """Return the turns from the last one before the fault on, of the threads that it concerns."""
    found = []
    for each in replayed.turns:
        before = [turn for turn in each if turn.at < replayed.fault_at]
        if not before or len(before) == len(each):
            continue
        if fault in ("killed", "saturated") and before[-1].provider != "up0":
            continue
        found.append(each[len(before) - 1 :])
    return found


def measure(name: str, way: str, fault: str, most_share: float) -> Row:
    """Run one case."""
    with ExitStack() as stack:
        upstreams = [stack.enter_context(Upstream(f"up{number}", free_port(), CACHE_SECONDS)) for number in range(5)]
        gateway = stack.enter_context(GATEWAYS[name](upstreams))
        replayed = asyncio.run(replay(Setup(gateway, upstreams), way, fault))
    turns, threads = replayed.turns, [thread for each in sessions() for thread in each]
    every = [(thread.model, turn) for thread, each in zip(threads, turns, strict=True) for turn in each]
    tokens, cached = sum(turn.tokens for _, turn in every), sum(turn.cached for _, turn in every)
    cost = sum((turn.tokens - turn.cached) * PRICES[model][0] + turn.cached * PRICES[model][1] for model, turn in every)
    hit = affected(replayed, fault)
    return Row(
        name,
        way,
        fault,
        share=cached / tokens,
        most=most_share,
        cold=sum(is_cold(before, turn) for each in turns for before, turn in pairwise(each)),
        affected=len(hit),
        cold_of_affected=sum(is_cold(before, turn) for each in hit for before, turn in pairwise(each)),
        dollars=cost / 1_000_000,
        requests=len(every),
        refused=replayed.refused,
    )


def keep(row: Row | None = None) -> list[Row]:
    """Add a row to worth.json; return all that it has. Another process may be adding rows too."""
    file = ROOT / "docs" / "worth.json"
    found = [Row(**each) for each in json.loads(file.read_text())] if file.exists() else []
    rows = {(each.gateway, each.way, each.fault): each for each in [*found, *([row] if row else [])]}
    kept = [rows[case] for case in CASES if case in rows]
    file.write_text(json.dumps([each._asdict() for each in kept], indent=1) + "\n")
    return kept


def main(chosen: Sequence[str]) -> None:
    """Run the chosen cases, keep their rows beside the others, and draw all."""
    most_share = most()
    for case in CASES:
        if "--draw" in chosen or (chosen and not any(":".join(case).startswith(each) for each in chosen)):
            continue
        began = time.monotonic()
        row = measure(*case, most_share)
        print(row, f"{time.monotonic() - began:.0f} s", flush=True)
        keep(row)
    print(table(keep()))
    draw(ROOT / "docs" / "worth.svg", keep())


if __name__ == "__main__":
    main(sys.argv[1:])
